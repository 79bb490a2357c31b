"""The intensity scale of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.slices.padding import find_padding
from napari_dino_uad.core.slices.preprocessing import Preprocessing

__all__ = ["IntensityScale"]

# Voxels sampled to find the intensity scale. Enough that thousands of tissue voxels lie above the
# percentile.
_SAMPLED_VOXELS = 1_000_000


@dataclass(frozen=True)
class IntensityScale:
    """The linear map from voxel values to [0, 1].

    Attributes
    ----------
    low, height : float
        The value that becomes 0, and the height above it that becomes 1.
    padding : ndarray of bool, or None
        Mask of bright padding, in the scan's shape; it becomes 0.
    """

    low: float
    height: float
    padding: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, array: NDArray[np.float32], preprocessing: Preprocessing) -> IntensityScale:
        """Find the scale of a scan.

        A fixed window maps its ends to 0 and 1. Otherwise 0 stays 0 and the chosen percentile of
        the foreground becomes 1. In scans with a negative border, such as standardised ones, the
        border's value becomes 0. Foreground is everything above a share of that percentile, so the
        two are found together by iteration. Bright padding is excluded.

        Parameters
        ----------
        array : ndarray of float32, (slices, rows, cols)
            Voxel values.
        preprocessing : Preprocessing
            Window or percentile, and the foreground threshold.
        """
        low, height = _intensity_range(array, preprocessing)
        padding = find_padding(array, low + preprocessing.foreground_threshold * height)
        # An image of flat areas only would be all padding.
        if padding is None or array[~padding].max(initial=low) <= low:
            return cls(low, height)
        dark = np.where(padding, np.float32(low), array)
        return cls(*_intensity_range(dark, preprocessing), padding)

    def apply(self, array: NDArray[np.float32], part: Any = ...) -> NDArray[np.float32]:
        """Scale a part of the scan to [0, 1].

        Parameters
        ----------
        array : ndarray of float32, (slices, rows, cols)
            The scan's voxel values.
        part : index
            Which slices; default all.

        Returns
        -------
        ndarray of float32
            The scaled part, in its own shape, contiguous.
        """
        scaled = np.subtract(array[part], np.float32(self.low), order="C")
        scaled /= np.float32(self.height)
        if self.padding is not None:
            scaled[self.padding[part]] = 0
        return np.clip(scaled, 0, 1, out=scaled)


def _intensity_range(
    array: NDArray[np.float32], preprocessing: Preprocessing
) -> tuple[float, float]:
    """Return the value that becomes 0, and the height above it that becomes 1."""
    if preprocessing.window is not None:
        centre, width = preprocessing.window
        return centre - width / 2, width
    border = np.concatenate(
        [array[..., 0, :], array[..., -1, :], array[..., :, 0], array[..., :, -1]], axis=-1
    )
    low = min(0.0, float(np.median(border)))
    # Percentiles of a subsample are close enough; sorting all voxels would dominate the run time.
    sample = array.ravel()[:: max(1, array.size // _SAMPLED_VOXELS)] - np.float32(low)
    top = float(np.percentile(sample[sample > sample.mean()], preprocessing.percentile))
    for _ in range(5):
        inside = sample[sample > preprocessing.foreground_threshold * top]
        new_top = float(np.percentile(inside, preprocessing.percentile)) if inside.size else top
        if abs(new_top - top) <= 1e-4 * top:
            break
        top = new_top
    return low, top
