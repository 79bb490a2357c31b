"""The contrast a scan is shown with: its file's own, a window of CT, or one from its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.hounsfield import CT_WINDOWS, is_ct, voxel_sample

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["auto_limits", "file_limits", "first_limits"]

# Percentile of tissue above which values may be clipped.
_BRIGHT = 99.8


def first_limits(volume: Volume) -> tuple[float, float]:
    """Return the contrast a scan opens with."""
    window = file_limits(volume)
    if window is not None:
        return window
    if is_ct(volume.array, volume.modality):
        # The whole range shows little but air and bone.
        return CT_WINDOWS["abdomen"].limits
    return auto_limits(volume.array)


def file_limits(volume: Volume) -> tuple[float, float] | None:
    """Return the limits of the window that the file recommends, if it has one."""
    if volume.window is None:
        return None
    centre, width = volume.window
    return centre - width / 2, centre + width / 2


def auto_limits(array: NDArray[Any]) -> tuple[float, float]:
    """Return limits from a scan's values: background black, all but the brightest tissue grey.

    Parameters
    ----------
    array : ndarray
        In 2D or 3D.
    """
    sample = voxel_sample(array)
    if not sample.size:
        return 0.0, 1.0
    low = _background(array, sample)
    # The background is often half of the picture.
    tissue = sample[sample > low]
    high = float(np.percentile(tissue, _BRIGHT)) if tissue.size else low
    return low, high if high > low else low + 1.0


def _background(array: NDArray[Any], sample: NDArray[Any]) -> float:
    """Return the value of a background that fills the corners, or else the lowest value.

    Resampling leaves values below a background of zero, which would be grey then.
    """
    lowest = float(sample.min())
    corners = np.unique(array[np.ix_(*[(0, -1)] * array.ndim)])
    if corners.size == 1 and lowest <= corners[0] <= np.percentile(sample, 75):
        return float(corners[0])
    return lowest
