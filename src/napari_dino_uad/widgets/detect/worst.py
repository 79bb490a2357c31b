"""The place a reader looks at first after a detection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["worst_voxel"]


def worst_voxel(detection: Detection) -> tuple[int, ...] | None:
    """Return the highest score in the worst slice of the largest finding.

    The worst slice is that with the largest sum of scores above the threshold.

    Returns
    -------
    tuple of int or None
        Index in the layer, (S, P, L) or (P, L); None without a finding.
    """
    found, anomaly = detection.found, detection.anomaly
    if found is None or anomaly is None or not found.findings:
        return None
    first = found.findings[0]
    part = slice(first.first_slice, first.last_slice + 1)
    excess = np.maximum(anomaly.scores[part] - detection.threshold, 0)
    excess[found.labels[part] != first.label] = 0
    index = int(excess.sum(axis=(1, 2)).argmax())
    row, column = np.unravel_index(int(excess[index].argmax()), excess[index].shape)
    voxel = (first.first_slice + index, int(row), int(column))
    return voxel[3 - detection.scan.ndim :]
