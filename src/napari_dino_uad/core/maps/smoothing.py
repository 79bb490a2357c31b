"""Smoothing of score maps that arrive slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["GrowingMaps"]


@lru_cache(maxsize=32)
def _gaussian(sigma: float) -> NDArray[np.float32]:
    """Return a kernel that sums to 1; `sigma` is in grid steps."""
    # Below 0.2 steps, a Gaussian gives neighbours no weight.
    radius = int(np.ceil(3 * sigma)) if sigma > 0.2 else 0
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


class GrowingMaps:
    """The score map of a scan, smoothed with a Gaussian of the same width in mm along all axes.

    Uses normalised convolution: patches without weight (outside the tissue, or in slices not added
    yet) are ignored, so the tissue's borders are not pulled down. Each slice is smoothed in its
    plane once, when it is added, and across slices on request. The work grows linearly with the
    number of slices.

    Parameters
    ----------
    shape : (int, int, int)
        (slices, h, w).
    spacing_mm : sequence of float
        Distance between patches along (slices, rows, cols).
    sigma_mm : float
        Standard deviation of the Gaussian; 0 turns smoothing off.
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
        """Add slices: the weight of each patch, and the map, both (B, h, w)."""
        from scipy.ndimage import correlate1d

        def within(values: NDArray[np.float32]) -> NDArray[np.float32]:
            for axis, kernel in enumerate(self._within, start=1):
                values = correlate1d(values, kernel, axis=axis, mode="constant")
            return values

        self._top[indices] = within(maps * weights)
        self._bottom[indices] = within(weights)
        self.known[indices] = True

    def smoothed(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return the map of the given slices, smoothed over all slices added so far.

        Parameters
        ----------
        indices : sequence of int
            Slice numbers, B of them.

        Returns
        -------
        ndarray of float32, (B, h, w)
            The smoothed map; 0 where nothing nearby has weight.
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
