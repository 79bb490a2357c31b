"""Smoothing of score maps that come slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["GrowingMaps"]


@lru_cache(maxsize=32)
def _gaussian(sigma: float) -> NDArray[np.float32]:
    """Make a kernel that sums to 1; `sigma` in steps of the grid."""
    # Below a fifth of a step a Gaussian leaves neighbours untouched.
    radius = int(np.ceil(3 * sigma)) if sigma > 0.2 else 0
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


class GrowingMaps:
    """The map of a scan, smoothed with a Gaussian of one width in mm along all axes.

    Normalised convolution: what has no weight (patches outside the tissue, slices that have not
    come yet) takes no part, so the borders of the tissue are not dragged down. Each slice is
    smoothed within itself once, when it comes, and across slices when it is asked for: the work
    grows with the number of slices, not with its square.

    Parameters
    ----------
    shape : (int, int, int)
        (slices, h, w).
    spacing_mm : sequence of float
        Between patches along (slices, rows, cols).
    sigma_mm : float
        Standard deviation; 0 leaves the map alone.
    """

    def __init__(
        self, shape: tuple[int, int, int], spacing_mm: Sequence[float], sigma_mm: float
    ) -> None:
        self._across, *self._within = (_gaussian(sigma_mm / spacing) for spacing in spacing_mm)
        self._top = np.zeros(shape, dtype=np.float32)
        self._bottom = np.zeros(shape, dtype=np.float32)
        self.known = np.zeros(shape[0], dtype=bool)

    def add(
        self, indices: Sequence[int], weights: NDArray[np.float32], maps: NDArray[np.float32]
    ) -> None:
        """Add some slices: how much each patch counts, and the map, (B, h, w) both."""
        from scipy.ndimage import correlate1d

        def within(values: NDArray[np.float32]) -> NDArray[np.float32]:
            for axis, kernel in enumerate(self._within, start=1):
                values = correlate1d(values, kernel, axis=axis, mode="constant")
            return values

        self._top[indices] = within(maps * weights)
        self._bottom[indices] = within(weights)
        self.known[indices] = True

    def smoothed(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return the map in some slices, smoothed over all that are known.

        Parameters
        ----------
        indices : sequence of int
            Slice numbers, B of them.

        Returns
        -------
        ndarray of float32, (B, h, w)
            0 where nothing with weight is near.
        """
        radius = len(self._across) // 2
        out = np.zeros((len(indices), *self._top.shape[1:]), dtype=np.float32)
        for place, index in enumerate(indices):
            low, high = max(0, index - radius), min(len(self._top), index + radius + 1)
            kernel = self._across[low - index + radius : high - index + radius]
            top = np.tensordot(kernel, self._top[low:high], axes=1)
            bottom = np.tensordot(kernel, self._bottom[low:high], axes=1)
            np.divide(top, bottom, out=out[place], where=bottom > 1e-6)
        return out
