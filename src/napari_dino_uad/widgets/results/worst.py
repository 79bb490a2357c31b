"""The place of a finding that a reader looks at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dino_uad.core.maps.findings import worst_voxel
from napari_dino_uad.widgets.layers import scan_shape

if TYPE_CHECKING:
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["extent_around", "worst_place"]


def worst_place(detection: Detection, label: int | None = None) -> tuple[int, ...] | None:
    """Return the highest score in the worst slice of a finding.

    Parameters
    ----------
    detection : Detection
    label : int, optional
        The finding; the largest if not given.

    Returns
    -------
    tuple of int or None
        Index in the layer, (S, P, L) or (P, L); None without such a finding.
    """
    found, anomaly = detection.found, detection.anomaly
    if found is None or anomaly is None:
        return None
    chosen = [one for one in found.findings if label in (None, one.label)]
    if not chosen:
        return None
    voxel = worst_voxel(anomaly.scores, found.labels, chosen[0], detection.threshold)
    return voxel[3 - detection.scan.ndim :]


def extent_around(
    detection: Detection, label: int, voxel: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """Return the lowest and highest voxel of a finding in the slices through a voxel of it."""
    if detection.found is None:
        return list(voxel), list(voxel)
    labels = detection.found.labels.reshape(scan_shape(detection.scan))
    low, high = [float(one) for one in voxel], [float(one) for one in voxel]
    for fixed in range(labels.ndim):
        cut = labels.take(voxel[fixed], axis=fixed) == label
        others = [axis for axis in range(labels.ndim) if axis != fixed]
        for place, axis in enumerate(others):
            along = cut.any(axis=tuple(one for one in range(cut.ndim) if one != place)).nonzero()[0]
            if len(along):
                low[axis] = min(low[axis], float(along[0]))
                high[axis] = max(high[axis], float(along[-1]))
    return low, high
