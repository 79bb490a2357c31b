"""What is exported, and the pipeline that writes it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.maps.finding_rows import finding_rows
from napari_dino_uad.core.maps.review import Review
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.results.found import find
from napari_dino_uad.widgets.results.saving import refuse_another_scan, results_extra
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.workers import writing

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.finding_rows import FindingRow
    from napari_dino_uad.core.maps.review import Judgement
    from napari_dino_uad.widgets.results.detection import Detection
    from napari_dino_uad.widgets.results.found import Found

__all__ = ["ExportChoice", "exporter"]

_SETTING = "exports"


@dataclass(frozen=True)
class ExportChoice:
    """Which files to write.

    Attributes
    ----------
    results : bool
        Map and labels as NIfTI, table as CSV, all of it as JSON.
    html, pdf : bool
        The report.
    dicom_seg, dicom_map : bool
        Findings as DICOM segmentation, map as DICOM parametric map.
    rejected : bool
        Whether rejected findings are written too, marked as such.
    named : bool
        Whether the report names the scan.
    """

    results: bool = True
    html: bool = False
    pdf: bool = True
    dicom_seg: bool = False
    dicom_map: bool = False
    rejected: bool = True
    named: bool = False

    @property
    def any(self) -> bool:
        """Whether any file is wanted."""
        return self.results or self.html or self.pdf or self.dicom_seg or self.dicom_map

    def paths(self, folder: Path, name: str) -> list[Path]:
        """List the files that are written for a scan of this name."""
        from napari_dino_uad.core.dicom_export import DicomPaths
        from napari_dino_uad.core.results import ResultPaths

        dicom = DicomPaths.of(folder, name)
        return [
            *(ResultPaths.of(folder, name) if self.results else ()),
            *((_report(folder, name, "html"),) if self.html else ()),
            *((_report(folder, name, "pdf"),) if self.pdf else ()),
            *((dicom.segmentation,) if self.dicom_seg else ()),
            *((dicom.parametric_map,) if self.dicom_map else ()),
        ]

    @classmethod
    def last(cls) -> ExportChoice:
        """Return the choice made last; the scan is never named unless asked for again."""
        kept = recall(_SETTING)
        if not kept:
            return cls()
        chosen = set(kept.split())
        return cls(**{one.name: one.name in chosen for one in fields(cls)})

    def remember(self) -> None:
        """Keep the choice for the next time."""
        chosen = [one.name for one in fields(self) if getattr(self, one.name)]
        remember(_SETTING, " ".join(name for name in chosen if name != "named") or "none")


def exporter(
    detection: Detection, folder: Path, choice: ExportChoice
) -> Callable[[], Generator[Progress, None, str]]:
    """Return a pipeline that writes what was chosen into a folder.

    All files have the settings, corrections and decisions of this moment.
    """
    anomaly, settings, model_name = detection.anomaly, detection.settings, detection.model_name
    known = detection.found if detection.current else None
    review = Review(detection.review.judgements)
    if anomaly is None:
        raise RuntimeError("only a finished map can be exported")

    def pipeline() -> Generator[Progress, None, str]:
        name = anomaly.volume.name
        yield Progress("Exporting", 0, 1, name)
        refuse_another_scan(folder, anomaly)
        found = known or find(anomaly, settings)
        case = _Case.of(anomaly, found, review, model_name, choice)
        writers = [write for wanted, write in case.writers(folder) if wanted]
        with writing(folder):
            for number, write in enumerate(writers):
                yield Progress("Exporting", number, len(writers), name)
                write()
        missing = choice.dicom_seg and not case.rows
        why = " There is no finding, so there is no DICOM segmentation." if missing else ""
        return f"Exported {name} into {folder.name}.{why}"

    return pipeline


@dataclass(frozen=True)
class _Case:
    """What is written of a result, without the findings that are left out."""

    anomaly: AnomalyMap
    found: Found
    labels: NDArray[np.uint8]
    rows: list[FindingRow]
    judgements: dict[int, Judgement]
    model_name: str
    choice: ExportChoice
    left_out: int

    @classmethod
    def of(
        cls,
        anomaly: AnomalyMap,
        found: Found,
        review: Review,
        model_name: str,
        choice: ExportChoice,
    ) -> _Case:
        """Choose the findings to write."""
        judgements = review.of(found.labels, found.findings)
        rows = finding_rows(found.findings, anomaly.tissue_frame, judgements)
        kept = [row for row in rows if choice.rejected or row.decision != "rejected"]
        numbers = np.zeros(256, dtype=np.uint8)
        for row in kept:
            numbers[row.label] = row.label
        return cls(
            anomaly,
            found,
            found.labels if len(kept) == len(rows) else numbers[found.labels],
            kept,
            judgements,
            model_name,
            choice,
            len(rows) - len(kept),
        )

    def writers(self, folder: Path) -> list[tuple[bool, Callable[[], object]]]:
        """List which files are wanted, and what writes them."""
        from napari_dino_uad.core.dicom_export import DicomPaths

        name = self.anomaly.volume.name
        dicom = DicomPaths.of(folder, name)
        choice = self.choice
        # A segmentation without a segment is not allowed.
        segments = choice.dicom_seg and bool(self.rows)
        return [
            (choice.results, partial(self._write_results, folder)),
            (choice.html, partial(self._write_html, _report(folder, name, "html"))),
            (choice.pdf, partial(self._write_pdf, _report(folder, name, "pdf"))),
            (segments, partial(self._write_segments, dicom.segmentation)),
            (choice.dicom_map, partial(self._write_map, dicom.parametric_map)),
        ]

    def _write_results(self, folder: Path) -> None:
        from napari_dino_uad.core.results import write_results

        settings = self.found.settings
        extra = results_extra(self.model_name, settings, self.found)
        write_results(
            folder,
            self.anomaly,
            self.labels,
            [row.finding for row in self.rows],
            settings.rate,
            extra=extra | {"rejected_left_out": self.left_out},
            judgements=self.judgements,
        )

    def _page(self, *, printed: bool) -> str:
        from napari_dino_uad.core.report import CaseFacts, render_report

        settings = self.found.settings
        facts = CaseFacts(
            rate=settings.rate,
            minimum_size=settings.minimum_size,
            tissue_only=settings.tissue_only,
            without_scalp=settings.without_scalp,
            added=self.found.added,
            removed=self.found.removed,
            model_name=self.model_name,
            scan_name=self.anomaly.volume.name if self.choice.named else "",
        )
        return render_report(self.anomaly, self.labels, self.rows, facts, printed=printed)

    def _write_html(self, path: Path) -> None:
        from napari_dino_uad.core.storage.atomic import write_text

        write_text(path, self._page(printed=False))

    def _write_pdf(self, path: Path) -> None:
        from napari_dino_uad.widgets.findings.pdf import write_pdf

        write_pdf(path, self._page(printed=True))

    def _write_segments(self, path: Path) -> None:
        from napari_dino_uad.core.dicom_export import write_dicom_segmentation

        edited = self.found.settings.edits is not None
        write_dicom_segmentation(path, self.anomaly, self.labels, self.rows, edited=edited)

    def _write_map(self, path: Path) -> None:
        from napari_dino_uad.core.dicom_export import write_dicom_map

        write_dicom_map(path, self.anomaly)


def _report(folder: Path, name: str, ending: str) -> Path:
    return folder / f"{name}_report.{ending}"
