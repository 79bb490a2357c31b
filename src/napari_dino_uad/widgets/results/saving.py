"""Writes a result into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.review import Review
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.results.found import find
from napari_dino_uad.widgets.workers import writing

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.finding_settings import FindingSettings
    from napari_dino_uad.widgets.results.detection import Detection
    from napari_dino_uad.widgets.results.found import Found

__all__ = ["refuse_another_scan", "results_extra", "saver"]


def saver(detection: Detection, folder: Path) -> Callable[[], Generator[Progress, None, str]]:
    """Return a pipeline that writes a finished map, its findings and their table into a folder.

    All files have the settings and corrections of this moment, even if the search for the
    findings on screen is not finished.
    """
    anomaly, settings, model_name = detection.anomaly, detection.settings, detection.model_name
    known = detection.found if detection.current else None
    review = Review(detection.review.judgements)
    if anomaly is None:
        raise RuntimeError("only a finished map can be saved")

    def pipeline() -> Generator[Progress, None, str]:
        from napari_dino_uad.core.results import write_results

        yield Progress("Saving", 0, 1)
        found = known or find(anomaly, settings)
        refuse_another_scan(folder, anomaly)
        with writing(folder):
            write_results(
                folder,
                anomaly,
                found.labels,
                found.findings,
                settings.rate,
                extra=results_extra(model_name, settings, found),
                judgements=review.of(found.labels, found.findings),
            )
        what = "map, findings, their table and a record (JSON)"
        return f"Saved {what} of {anomaly.volume.name} in {folder.name}."

    return pipeline


def results_extra(model_name: str, settings: FindingSettings, found: Found) -> dict[str, Any]:
    """Return what the record of a result says of how it was made in the window."""
    return {
        "model_name": model_name,
        "minimum_size": settings.minimum_size,
        "tissue_only": settings.tissue_only,
        "without_scalp": settings.without_scalp,
        "edited": settings.edits is not None,
        "voxels_added": found.added,
        "voxels_removed": found.removed,
        "voxels_left_out": found.left_out,
    }


def refuse_another_scan(folder: Path, anomaly: AnomalyMap) -> None:
    """Refuse to overwrite the results of another scan with the same name."""
    from napari_dino_uad.core.results import ResultPaths

    report = ResultPaths.of(folder, anomaly.volume.name).report
    scan = None if anomaly.volume.path is None else str(anomaly.volume.path)
    try:
        there = json.loads(report.read_text(encoding="utf-8"))["scan"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if scan is not None and there is not None and Path(there).resolve() != Path(scan).resolve():
        raise InputError(
            f"{folder.name} holds results of another scan named {anomaly.volume.name}, {there}; "
            "choose another folder."
        )
