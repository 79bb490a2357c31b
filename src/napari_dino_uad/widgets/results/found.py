"""Results of a detection: the map, and the findings with their settings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.widgets.threshold import HIGHEST_RATE, histogram_edges, score_histogram

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.domain_shift import Differences
    from napari_dino_uad.core.maps.finding_settings import FindingSettings
    from napari_dino_uad.core.maps.findings import Finding

__all__ = ["Detected", "Found", "Highest", "fill_map", "find", "finish_map", "painted_slices"]


@dataclass(frozen=True)
class Highest:
    """The highest score of a scan.

    Attributes
    ----------
    rate : float
        The share of healthy tissue that exceeds it.
    slice : int
        Where it is.
    """

    rate: float
    slice: int


@dataclass(frozen=True)
class Found:
    """Findings, and the settings they belong to.

    Attributes
    ----------
    settings : FindingSettings
    automatic : ndarray of uint8, (S, P, L)
        Labels without the user's corrections.
    labels : ndarray of uint8, (S, P, L)
        Labels with the corrections; the same array if there are none.
    findings : list of Finding
        One for each label.
    added, removed : int
        Number of voxels in which the two differ.
    left_out : int
        Number of voxels in regions that were dropped, because only the largest regions fit.
    copy : ndarray of uint8, (S, P, L), or None
        A copy of the labels, in which the slice on screen follows the threshold while it is
        dragged. It is made in the thread: for a large scan it takes longer than a frame.
    highest : Highest or None
        Where the scan comes closest to a finding, if there is none.
    """

    settings: FindingSettings
    automatic: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    findings: list[Finding]
    added: int = 0
    removed: int = 0
    left_out: int = 0
    copy: NDArray[np.uint8] | None = None
    highest: Highest | None = None


@dataclass(frozen=True)
class Detected:
    """A finished map, as the worker returns it.

    Attributes
    ----------
    anomaly : AnomalyMap
    array : ndarray of float32, (S, P, L)
        The map for display.
    histogram : ndarray of float64
        Shares of the tissue's scores.
    warning : str
        Why the model may not fit the scan; empty if it does.
    seconds : float
    tissue_only : bool
        Whether the background of the array is blank.
    differences : Differences or None
        What distinguishes the scan from the cohort.
    remark : str
        That the scan is at the edge of what the model knows; empty if it is not.
    """

    anomaly: AnomalyMap
    array: NDArray[np.float32]
    histogram: NDArray[np.float64]
    warning: str
    seconds: float
    tissue_only: bool
    differences: Differences | None = None
    remark: str = ""


def finish_map(
    array: NDArray[np.float32],
    anomaly: AnomalyMap,
    settings: FindingSettings,
    model_name: str,
    started: float,
) -> Detected:
    """Fill the array for display, and measure what the window shows of a finished map.

    Call it in a thread.

    Parameters
    ----------
    array : ndarray of float32, (S, P, L)
        Filled in place.
    anomaly : AnomalyMap
    settings : FindingSettings
        What to leave out.
    model_name : str
        What the model is called in the window.
    started : float
        When the work began, as from `time.perf_counter`.
    """
    from napari_dino_uad.core.maps.domain_shift import differences, measure_shift

    model, tissue_only = anomaly.model, settings.tissue_only
    low = model.calibration.threshold(HIGHEST_RATE)
    fill_map(array, anomaly, low, tissue_only, settings.without_scalp)
    edges = histogram_edges(model.calibration)
    shift = measure_shift(anomaly.level, model.levels)
    return Detected(
        anomaly=anomaly,
        array=array,
        histogram=score_histogram(anomaly.scores[anomaly.foreground], edges),
        warning=shift.warning,
        remark=shift.remark,
        differences=differences(
            anomaly.volume, anomaly.scan, anomaly.tissue_frame, model.preprocessing, model_name
        ),
        tissue_only=tissue_only,
        seconds=time.perf_counter() - started,
    )


def find(
    anomaly: AnomalyMap, settings: FindingSettings, known: NDArray[np.uint8] | None = None
) -> Found:
    """Find the regions above a threshold, with the user's corrections. Call it in a thread.

    Parameters
    ----------
    anomaly : AnomalyMap
    settings : FindingSettings
    known : ndarray of uint8, (S, P, L), optional
        Labels whose numbers stay, as in `edit_findings`.
    """
    # Imported and measured here, in the thread: the outlines and the table need it.
    import scipy.ndimage  # noqa: F401

    from napari_dino_uad.core.maps.findings import count_edits, edit_findings, find_findings

    _ = anomaly.tissue_frame
    scores, volume, calibration = anomaly.scores, anomaly.volume, anomaly.model.calibration
    automatic, findings = find_findings(
        scores,
        volume,
        calibration.threshold(settings.rate),
        calibration,
        foreground=_tissue(anomaly, settings),
        minimum_size=settings.minimum_size,
        core=calibration.core_threshold(settings.rate),
    )
    if settings.edits is None:
        highest = None if findings else _highest(anomaly, settings)
        return Found(
            settings, automatic, automatic, findings, copy=automatic.copy(), highest=highest
        )
    edits = settings.edits
    labels, findings = edit_findings(automatic, edits, scores, volume, calibration, known)
    wanted = ((automatic > 0) | (edits > 0)) & (edits >= 0)
    left_out = int(np.count_nonzero(wanted) - np.count_nonzero(labels))
    counts = count_edits(automatic, labels)
    return Found(settings, automatic, labels, findings, *counts, left_out, labels.copy())


def _highest(anomaly: AnomalyMap, settings: FindingSettings) -> Highest | None:
    tissue = _tissue(anomaly, settings)
    peaks = [
        float((one if tissue is None else one[tissue[number]]).max(initial=-np.inf))
        for number, one in enumerate(anomaly.scores)
    ]
    number = int(np.argmax(peaks))
    if peaks[number] == -np.inf:
        return None
    rate = float(anomaly.model.calibration.false_positive_rate(peaks[number]))
    return Highest(rate, number)


def _tissue(anomaly: AnomalyMap, settings: FindingSettings) -> NDArray[np.bool_] | None:
    """Return where findings may lie; None is everywhere."""
    return anomaly.tissue(without_scalp=settings.without_scalp) if settings.tissue_only else None


def fill_map(
    array: NDArray[np.float32],
    anomaly: AnomalyMap,
    low: float,
    tissue_only: bool,
    without_scalp: bool = False,
) -> None:
    """Write a finished map into the array for display; a blank background gets the score `low`."""
    scores = anomaly.scores
    if tissue_only:
        tissue = anomaly.tissue(without_scalp=without_scalp)
        np.copyto(array, np.where(tissue, scores, low))
    else:
        np.copyto(array, scores)


def painted_slices(
    now: NDArray[np.uint8], drawn: NDArray[np.uint8]
) -> dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Find the slices on which the user has painted or erased.

    It goes slice by slice, which stays in the processor's cache: on a scan of 400 x 512 x 512 it
    takes a tenth of the time of a comparison of whole arrays.

    Parameters
    ----------
    now, drawn : ndarray of uint8, (S, P, L)
        The labels of the layer, and as they were drawn.

    Returns
    -------
    dict
        By slice: what is marked now, and which voxels were not so before, (P, L).
    """
    painted = {}
    for index, (new, old) in enumerate(zip(now, drawn, strict=True)):
        if not np.array_equal(new, old):
            marked = new > 0
            changed = marked != (old > 0)
            if changed.any():
                painted[index] = (marked, changed)
    return painted
