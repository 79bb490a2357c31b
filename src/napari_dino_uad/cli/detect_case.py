"""One case of `detect`: a scan gives a map, findings and a record, here or in another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.cli.extras import Extras
from napari_dino_uad.cli.resume import Request
from napari_dino_uad.core.errors import OF_ONE_SCAN, sentence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.backbones.recipe import BackboneRecipe
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.features.cache import FeatureCache
    from napari_dino_uad.core.maps.findings import Finding
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["DetectJob", "DoneCase", "detect_case", "detect_case_there"]


@dataclass(frozen=True)
class DetectJob:
    """What all cases of a run have in common.

    Attributes
    ----------
    model : FittedModel
    request : Request
    out : Path
        Folder for the results.
    model_path : Path
        The model's file, for the records.
    cache : FeatureCache or bool
        As in `detect`.
    extras : Extras
    """

    model: FittedModel
    request: Request
    out: Path
    model_path: Path
    cache: FeatureCache | bool
    extras: Extras


@dataclass(frozen=True)
class DoneCase:
    """A case that was done, or why it was not.

    Attributes
    ----------
    notes : tuple of str
        What the user should know.
    cells : tuple of str
        Its row of the table, without the name.
    failure : str
        Why there is no result.
    """

    notes: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    failure: str = ""


def detect_case_there(shared: tuple[DetectJob, BackboneRecipe], item: tuple[str, Path]) -> DoneCase:
    """Detect in a process of a crew."""
    job, recipe = shared
    return detect_case(job, item, recipe.load())


def detect_case(
    job: DetectJob,
    item: tuple[str, Path],
    backbone: Backbone,
    shown: Callable[[Progress], None] | None = None,
) -> DoneCase:
    """Detect in a scan and write the results.

    Parameters
    ----------
    job : DetectJob
    item : tuple of (str, Path)
        Name of the case, and its scan.
    backbone : Backbone
    shown : callable, optional
        Called with every `Progress`; without it their notes are among those of the case.

    Raises
    ------
    InputError
        If a file cannot be written: a full disk affects every case.
    """
    from napari_dino_uad.core.maps.domain_shift import measure_shift
    from napari_dino_uad.core.results import writing_results

    name, path = item
    notes: list[str] = []
    started = time.perf_counter()
    try:
        anomaly, seconds = _detect_one(job, path, backbone, notes, shown)
    except OF_ONE_SCAN as error:
        return DoneCase(tuple(notes), failure=sentence(error))
    clock = time.perf_counter()
    with writing_results(job.out, anomaly, name) as finish:
        try:
            labels, findings = _find(anomaly, job)
        except OF_ONE_SCAN as error:
            return DoneCase(tuple(notes), failure=sentence(error))
        seconds["findings"] = time.perf_counter() - clock
        extra = _provenance(job, path, backbone, seconds)
        finish(labels, findings, job.request.false_positive_rate, extra)
    notes += job.extras.write(
        job.out, name, anomaly, labels, findings, job.request, backbone, job.cache
    )
    shift = measure_shift(anomaly.level, job.model.levels)
    if shift.unlike:
        notes.append(f"Warning: {name}: {shift.warning}")
    elif shift.remark:
        notes.append(f"Note: {name}: {shift.remark}")
    took = time.perf_counter() - started
    return DoneCase(tuple(notes), _cells(anomaly.volume, findings, took))


def _detect_one(
    job: DetectJob,
    path: Path,
    backbone: Backbone,
    notes: list[str],
    shown: Callable[[Progress], None] | None,
) -> tuple[AnomalyMap, dict[str, float]]:
    """Detect in a scan; return the map, with its scores computed, and the seconds of each step."""
    from napari_dino_uad.core.detect import detect
    from napari_dino_uad.core.progress import drain
    from napari_dino_uad.core.scans.labels import refuse_labels
    from napari_dino_uad.core.scans.volume import read_volume

    def keep(progress: Progress) -> None:
        if progress.note:
            notes.append(progress.note)

    clock = time.perf_counter()
    volume = read_volume(path, job.request.series, volume=job.request.volume)
    notes += [f"Note: {notice}" for notice in volume.named_notices]
    refuse_labels(volume)
    reading = time.perf_counter() - clock
    anomaly = drain(detect(volume, job.model, backbone=backbone, cache=job.cache), shown or keep)
    clock = time.perf_counter()
    # Computed on access. Do it here, so that an error counts for this scan only.
    _ = anomaly.scores
    enlarging = time.perf_counter() - clock
    return anomaly, {"reading": reading, **anomaly.seconds, "enlarging": enlarging}


def _find(anomaly: AnomalyMap, job: DetectJob) -> tuple[NDArray[np.uint8], list[Finding]]:
    from napari_dino_uad.core.maps.findings import find_findings

    calibration, rate = job.model.calibration, job.request.false_positive_rate
    return find_findings(
        anomaly.scores,
        anomaly.volume,
        calibration.threshold(rate),
        calibration,
        foreground=anomaly.foreground,
        minimum_size=job.request.minimum_size,
        core=calibration.core_threshold(rate),
    )


def _provenance(
    job: DetectJob, scan: Path, backbone: Backbone, seconds: dict[str, float]
) -> dict[str, Any]:
    """Return what made the result of a scan, for its JSON file."""
    model = job.model
    return {
        **job.request.entries(scan),
        "model_file": str(job.model_path.resolve()),
        "backbone_sha256": model.backbone_sha256,
        "engine": backbone.engine.spec.description,
        "fitted_with": model.versions,
        "versions": {library: version(library) for library in model.versions},
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
    }


def _cells(volume: Volume, findings: Sequence[Finding], seconds: float) -> tuple[str, ...]:
    """Return a row of the table."""
    from napari_dino_uad.core.maps.findings import size_unit

    unit = size_unit(volume)
    voxels = [finding.voxels for finding in findings]
    cells = ["0", "0", "", "", ""]
    if findings:
        highest = max(findings, key=lambda finding: finding.peak_score)
        cells = [
            str(len(findings)),
            unit.text(sum(voxels)),
            unit.text(max(voxels)),
            f"{highest.peak_score:.4g}",
            f"{highest.p_value:.1g}",
        ]
    return (*cells, f"{seconds:.1f}")
