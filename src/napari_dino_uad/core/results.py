"""Writing what detection found, on the grid of the scan's own file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.atomic import write_json
from napari_dino_uad.core.domain_shift import measure_shift
from napari_dino_uad.core.findings import Finding, size_unit, write_findings_csv
from napari_dino_uad.core.volume import write_volume

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap

__all__ = ["RESEARCH_USE", "ResultPaths", "write_results", "writing_map"]

#: Stands in every report.
RESEARCH_USE = "Research use only. Not a medical device."


class ResultPaths(NamedTuple):
    """The files of a case."""

    anomaly: Path
    findings: Path
    table: Path
    report: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> ResultPaths:
        """Name them; the report is written last, so the others are whole where it is."""
        endings = ("_anomaly.nii.gz", "_findings.nii.gz", "_findings.csv", ".json")
        return cls(*(folder / f"{name}{ending}" for ending in endings))


@contextmanager
def writing_map(folder: Path, anomaly: AnomalyMap, name: str | None = None) -> Iterator[None]:
    """Write an anomaly map in a thread, while its findings are being sought.

    Parameters
    ----------
    folder, anomaly, name
        As in `write_results`, which is told `map_written` afterwards.

    Raises
    ------
    InputError
        At the end, if the file cannot be written.
    """
    path = ResultPaths.of(folder, name or anomaly.volume.name).anomaly
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_volume, path, anomaly.scores, anomaly.volume)
        yield
        writing.result()


def write_results(
    folder: Path,
    anomaly: AnomalyMap,
    labels: NDArray[np.uint8],
    findings: Sequence[Finding],
    false_positive_rate: float,
    name: str | None = None,
    extra: dict[str, Any] | None = None,
    map_written: bool = False,
) -> list[Path]:
    """Write an anomaly map and its findings.

    Parameters
    ----------
    folder : Path
        Where to; made if need be.
    anomaly : AnomalyMap
        The map.
    labels : ndarray of uint8, (S, P, L)
        The findings' voxels on the canonical grid.
    findings : sequence of Finding
        What the labels are.
    false_positive_rate : float
        The threshold, as the rate on healthy tissue.
    name : str, optional
        Name of the case; the scan's own if not given.
    extra : dict, optional
        Further entries for the JSON file.
    map_written : bool
        Whether `writing_map` has written the map.

    Returns
    -------
    list of Path
        `NAME_anomaly.nii.gz`, `NAME_findings.nii.gz`, `NAME_findings.csv` and, written last,
        `NAME.json`.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    name = name or anomaly.volume.name
    paths = ResultPaths.of(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    if not map_written:
        write_volume(paths.anomaly, anomaly.scores, anomaly.volume)
    write_volume(paths.findings, labels, anomaly.volume)
    write_findings_csv(paths.table, findings)
    model = anomaly.model
    shift = measure_shift(anomaly.level, model.levels)
    report = {
        "case": name,
        "scan": None if anomaly.volume.path is None else str(anomaly.volume.path),
        "notice": RESEARCH_USE,
        "model": model.summary(),
        "backbone": model.backbone_key,
        "versions": model.versions,
        "false_positive_rate": false_positive_rate,
        "threshold": model.calibration.threshold(false_positive_rate),
        "size_unit": size_unit(anomaly.volume).name,
        "spacing_mm": anomaly.volume.spacing_mm if anomaly.volume.spacing_known else None,
        "domain_shift": {"median_rate": shift.median_rate, "warning": shift.warning},
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "seconds": anomaly.seconds,
        **(extra or {}),
    }
    write_json(paths.report, report)
    return list(paths)
