"""What is exported, and the pipeline that writes it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.maps.review import Review
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.results.found import find
from napari_dino_uad.widgets.results.saving import refuse_another_scan, results_extra
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.workers import writing

if TYPE_CHECKING:
    from napari_dino_uad.widgets.results.detection import Detection

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
        from napari_dino_uad.core.dicom_export import (
            DicomPaths,
            write_dicom_map,
            write_dicom_segmentation,
        )
        from napari_dino_uad.core.maps.finding_rows import finding_rows
        from napari_dino_uad.core.report import CaseFacts, render_report
        from napari_dino_uad.core.results import write_results
        from napari_dino_uad.core.storage.atomic import write_text
        from napari_dino_uad.widgets.findings.pdf import write_pdf

        name = anomaly.volume.name
        steps = sum((choice.results, choice.html or choice.pdf, choice.dicom_seg, choice.dicom_map))
        done = 0
        yield Progress("Exporting", done, steps, name)
        found = known or find(anomaly, settings)
        judgements = review.of(found.labels, found.findings)
        rows = finding_rows(found.findings, anomaly.tissue_frame, judgements)
        left_out = [row.label for row in rows if row.decision == "rejected" and not choice.rejected]
        rows = [row for row in rows if row.label not in left_out]
        labels = np.where(np.isin(found.labels, left_out), 0, found.labels).astype(np.uint8)
        refuse_another_scan(folder, anomaly)
        with writing(folder):
            if choice.results:
                extra = results_extra(model_name, settings, found)
                extra["rejected_left_out"] = len(left_out)
                findings = [row.finding for row in rows]
                write_results(
                    folder, anomaly, labels, findings, settings.rate,
                    extra=extra, judgements=judgements,
                )  # fmt: skip
                done += 1
                yield Progress("Exporting", done, steps, name)
            if choice.html or choice.pdf:
                facts = CaseFacts(
                    rate=settings.rate,
                    minimum_size=settings.minimum_size,
                    tissue_only=settings.tissue_only,
                    without_scalp=settings.without_scalp,
                    added=found.added,
                    removed=found.removed,
                    model_name=model_name,
                    scan_name=name if choice.named else "",
                )
                if choice.html:
                    page = render_report(anomaly, labels, rows, facts)
                    write_text(folder / f"{name}_report.html", page)
                if choice.pdf:
                    page = render_report(anomaly, labels, rows, facts, printed=True)
                    write_pdf(folder / f"{name}_report.pdf", page)
                done += 1
                yield Progress("Exporting", done, steps, name)
            places = DicomPaths.of(folder, name)
            if choice.dicom_seg:
                edited = settings.edits is not None
                write_dicom_segmentation(places.segmentation, anomaly, labels, rows, edited=edited)
                done += 1
                yield Progress("Exporting", done, steps, name)
            if choice.dicom_map:
                write_dicom_map(places.parametric_map, anomaly)
        return f"Exported {name} into {folder.name}."

    return pipeline
