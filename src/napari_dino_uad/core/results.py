"""Write the results of a detection, on the grid of the scan's own file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.maps.domain_shift import measure_shift
from napari_dino_uad.core.maps.finding_rows import FindingRow, accepted_rows, finding_rows
from napari_dino_uad.core.maps.findings import Finding, size_unit, write_findings_csv
from napari_dino_uad.core.scans.file_order import to_file_grid
from napari_dino_uad.core.scans.files.image_files import save_image
from napari_dino_uad.core.scans.formats import MAP_ENDING
from napari_dino_uad.core.storage.atomic import json_text, staged, writing
from napari_dino_uad.core.storage.records import (
    are_as_recorded,
    read_sealed,
    record_files,
    sealed,
)

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.review import Judgement

__all__ = ["RESEARCH_USE", "ResultPaths", "saved_threshold", "write_results", "writing_results"]

#: Part of every report.
RESEARCH_USE = "Research use only. Not a medical device."

# Voxels up to which a map is written while findings are sought: each needs room for another map.
_BESIDE = 64 * 1024**2


class ResultPaths(NamedTuple):
    """The files of a case."""

    anomaly: Path
    findings: Path
    table: Path
    report: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> ResultPaths:
        """Return the paths; the report exists only with the others, and has their checksums."""
        endings = (MAP_ENDING, "_findings.nii.gz", "_findings.csv", ".json")
        return cls(*(folder / f"{name}{ending}" for ending in endings))

    @staticmethod
    def tissue_of(folder: Path, name: str) -> Path:
        """Return the path of the tissue, written where the intensities alone do not give it."""
        return folder / f"{name}_tissue.nii.gz"


def saved_threshold(path: Path) -> float | None:
    """Return the threshold that a saved map was cut at; None if it is no map with its record.

    Parameters
    ----------
    path : Path
        A file, perhaps ``NAME_anomaly.nii.gz`` beside ``NAME.json``.
    """
    name = path.name.removesuffix(MAP_ENDING)
    paths = ResultPaths.of(path.parent, name)
    if paths.anomaly.name != path.name:
        return None
    record = read_sealed(paths.report)
    if record is None or not are_as_recorded(path.parent, record.get("files"), [path.name]):
        return None
    found = record.get("threshold")
    return float(found) if isinstance(found, int | float) else None


class Finish(Protocol):
    """Writes the findings and the report of a case whose map is being written."""

    def __call__(
        self,
        labels: NDArray[np.uint8],
        findings: Sequence[Finding],
        false_positive_rate: float,
        extra: dict[str, Any] | None = None,
        judgements: Mapping[int, Judgement] | None = None,
    ) -> None:
        """Finish the case; the parameters are those of `write_results`."""


@contextmanager
def writing_results(folder: Path, anomaly: AnomalyMap, name: str | None = None) -> Iterator[Finish]:
    """Write the results of a case; a map that is not huge is written while findings are computed.

    Parameters
    ----------
    folder, anomaly, name
        As in `write_results`.

    Yields
    ------
    callable
        Call it with the findings, as in `write_results`. All files appear together at the end;
        without the call none does, and older results stay.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    name = name or anomaly.volume.name
    paths = ResultPaths.of(folder, name)
    finished = False
    with writing(paths.anomaly), staged(folder, last=paths.report.name) as partial:
        places = ResultPaths.of(partial, name)
        with ThreadPoolExecutor(1) as pool:
            forms = anomaly.volume.grid.forms

            def write_map() -> None:
                save_image(places.anomaly, to_file_grid(anomaly.scores, anomaly.volume), forms)

            beside = anomaly.scores.size <= _BESIDE
            map_written = pool.submit(write_map) if beside else None

            def tissue_written() -> list[Path]:
                if not anomaly.scan.preprocessing.object_mask:
                    return []
                place = ResultPaths.tissue_of(partial, name)
                tissue = anomaly.foreground.astype(np.uint8)
                save_image(place, to_file_grid(tissue, anomaly.volume), forms)
                return [place]

            def finish(
                labels: NDArray[np.uint8],
                findings: Sequence[Finding],
                false_positive_rate: float,
                extra: dict[str, Any] | None = None,
                judgements: Mapping[int, Judgement] | None = None,
            ) -> None:
                nonlocal finished
                rows = finding_rows(findings, anomaly.tissue_frame, judgements)
                save_image(places.findings, to_file_grid(labels, anomaly.volume), forms)
                write_findings_csv(places.table, findings, [_words(row) for row in rows])
                if map_written is None:
                    write_map()
                else:
                    map_written.result()
                report = _report(name, anomaly, rows, false_positive_rate) | (extra or {})
                report["files"] = record_files([*places[:-1], *tissue_written()])
                places.report.write_text(json_text(sealed(report)), encoding="utf-8")
                finished = True

            yield finish
        if not finished:
            for place in places:
                place.unlink(missing_ok=True)


def write_results(
    folder: Path,
    anomaly: AnomalyMap,
    labels: NDArray[np.uint8],
    findings: Sequence[Finding],
    false_positive_rate: float,
    name: str | None = None,
    extra: dict[str, Any] | None = None,
    judgements: Mapping[int, Judgement] | None = None,
) -> list[Path]:
    """Write an anomaly map and its findings, all files or none.

    Parameters
    ----------
    folder : Path
        Folder to write to; created if needed.
    anomaly : AnomalyMap
        The map.
    labels : ndarray of uint8, (S, P, L)
        The findings' voxels on the canonical grid.
    findings : sequence of Finding
        The findings, one for each label.
    false_positive_rate : float
        The threshold, as the rate on healthy tissue.
    name : str, optional
        Name of the case; default the scan's own.
    extra : dict, optional
        Further entries for the JSON file.
    judgements : mapping of int to Judgement, optional
        The reader's decisions by label, from `Review.of`.

    Returns
    -------
    list of Path
        `NAME_anomaly.nii.gz`, `NAME_findings.nii.gz`, `NAME_findings.csv` and `NAME.json`, which
        records size and checksum of the others. A model with an object mask also writes
        `NAME_tissue.nii.gz`.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    with writing_results(folder, anomaly, name) as finish:
        finish(labels, findings, false_positive_rate, extra, judgements)
    return list(ResultPaths.of(folder, name or anomaly.volume.name))


def _words(row: FindingRow) -> dict[str, str]:
    """Return what a person says of a finding."""
    return {"side": row.side, "decision": row.decision, "note": row.note}


def _report(
    name: str, anomaly: AnomalyMap, rows: Sequence[FindingRow], false_positive_rate: float
) -> dict[str, Any]:
    """Return the content of the JSON file of a case."""
    model = anomaly.model
    shift = measure_shift(anomaly.level, model.levels)
    return {
        "case": name,
        "scan": None if anomaly.volume.path is None else str(anomaly.volume.path),
        "notice": RESEARCH_USE,
        "notices": list(anomaly.volume.notices),
        "model": model.summary(),
        "backbone": model.backbone_key,
        "versions": model.versions,
        "false_positive_rate": false_positive_rate,
        "threshold": model.calibration.threshold(false_positive_rate),
        "size_unit": size_unit(anomaly.volume).name,
        "spacing_mm": anomaly.volume.spacing_mm if anomaly.volume.spacing_known else None,
        "domain_shift": {"median_rate": shift.median_rate, "warning": shift.warning},
        "findings": [dataclasses.asdict(row.finding) | _words(row) for row in rows],
        "accepted": {
            "findings": len(accepted_rows(rows)),
            "size": sum(row.size for row in accepted_rows(rows)),
        },
        "seconds": anomaly.seconds,
    }
