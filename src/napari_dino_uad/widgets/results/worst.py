"""The place of a finding that a reader looks at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dino_uad.core.maps.findings import worst_voxel

if TYPE_CHECKING:
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["worst_place"]


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
