"""The parts of a voxel's score, step by step from the patch to the final map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.slices.planes import plane_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.explain.slices import SliceExplanation

__all__ = ["Place", "ScoreParts", "place_of", "score_parts", "typical_rate"]


@dataclass(frozen=True)
class Place:
    """A voxel and its patch in the first plane of a map.

    Attributes
    ----------
    voxel : tuple of int
        On canonical axes (S, P, L).
    index, row, column : int
        Its slice, row and column in the plane.
    patch : tuple of int
        Its patch in the slice, (i, j).
    """

    voxel: tuple[int, int, int]
    index: int
    row: int
    column: int
    patch: tuple[int, int]


@dataclass(frozen=True)
class ScoreParts:
    """Summands of a voxel's score, in healthy standard deviations.

    Attributes
    ----------
    model : float
        How unusual the model finds the patch.
    symmetry : float
        What the comparison of left and right adds.
    brightness : float
        What being brighter or darker than the other side, and than most of the scan, adds.
    smoothing : float
        What the patches around it add or take away.
    centring : float
        What bringing the scan's own scores to the common level and spread adds or takes away.
    planes : float
        What the other planes add or take away; 0 with one plane.
    edges : float
        What resampling to voxels and following the edges of the anatomy add or take away.
    score : float
        The sum: the score in the map.
    false_positive_rate : float
        Share of healthy tissue with a higher score.
    """

    model: float
    symmetry: float
    brightness: float
    smoothing: float
    centring: float
    planes: float
    edges: float
    score: float
    false_positive_rate: float


def place_of(anomaly: AnomalyMap, voxel: Sequence[int]) -> Place:
    """Return the patch of a voxel (S, P, L) in the first plane."""
    first = anomaly.planes[0]
    at = (int(voxel[0]), int(voxel[1]), int(voxel[2]))
    index, row, column = plane_index(at, anomaly.volume.shape, first.plane)
    return Place(at, index, row, column, first.grid.patch_at(row, column))


def score_parts(anomaly: AnomalyMap, slice_: SliceExplanation, place: Place) -> ScoreParts:
    """Split the score of a voxel into its summands.

    Parameters
    ----------
    anomaly : AnomalyMap
    slice_ : SliceExplanation
        Of the slice of the voxel.
    place : Place
        The voxel, whose patch is tissue.
    """
    first = anomaly.planes[0]
    model, symmetry = float(slice_.model[place.patch]), float(slice_.symmetry[place.patch])
    brightness = float(slice_.brightness[place.patch])
    before = float(first.scores[place.index][place.patch])
    smoothed = first.own_level.undo(before)
    by_plane = [_unrefined(anomaly, number, place) for number in range(len(anomaly.planes))]
    mean = float(np.mean(by_plane))
    score = float(anomaly.scores[place.voxel])
    planes = mean - by_plane[0]
    return ScoreParts(
        model=model,
        symmetry=symmetry,
        brightness=brightness,
        smoothing=smoothed - model - symmetry - brightness,
        centring=before - smoothed,
        planes=planes,
        edges=score - before - planes,
        score=score,
        false_positive_rate=float(anomaly.model.calibration.false_positive_rate(score)),
    )


def _unrefined(anomaly: AnomalyMap, number: int, place: Place) -> float:
    """Return a plane's score at a voxel, resampled but not fitted to the anatomy."""
    one = anomaly.planes[number]
    index, row, column = plane_index(place.voxel, anomaly.volume.shape, one.plane)
    return float(one.grid.to_slices(one.scores[[index]])[0, row, column])


def typical_rate(anomaly: AnomalyMap, place: Place) -> float | None:
    """Return the share of healthy patches that lie farther from typical healthy tissue.

    Distances are smoothed as in the calibration, and known in the nearest slice that was measured;
    None if the patch is no tissue there.
    """
    distances: NDArray[np.float32] = anomaly.planes[0].distances
    column = distances[(slice(None), *place.patch)]
    known = np.flatnonzero(np.isfinite(column))
    if not known.size:
        return None
    nearest = int(known[np.abs(known - place.index).argmin()])
    spacing = anomaly.scan.spacing_mm[0]
    if abs(nearest - place.index) * spacing > max(anomaly.model.maps.smoothing_mm, spacing):
        return None
    return float(anomaly.model.levels.false_positive_rate(float(column[nearest])))
