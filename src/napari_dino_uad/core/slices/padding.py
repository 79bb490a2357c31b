"""Padding: what was added around a scan when it was rotated, registered or framed.

Dark background falls below the foreground threshold by itself. Padding may have any value, such as
the white corners of registered OCT, and would then count as the brightest tissue. Unlike tissue,
it has no noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["find_padding"]

# A few equal pixels in a corner may be coincidence or saturated tissue.
_LEAST_PIXELS = 64


def find_padding(array: NDArray[np.float32], above: float) -> NDArray[np.bool_] | None:
    """Find padding in slices: regions of exactly one value that reach a corner.

    Parameters
    ----------
    array : ndarray of float32, (slices, rows, cols)
        Voxel values.
    above : float
        Padding at or below this value is treated as dark background and not searched for.

    Returns
    -------
    ndarray of bool, (slices, rows, cols), or None
        Mask of padding; None if there is none, as in nearly all scans.
    """
    from scipy.ndimage import label

    found: NDArray[np.bool_] | None = None
    for number, image in enumerate(array):
        values = {
            float(block[0, 0])
            for block in (image[:2, :2], image[:2, -2:], image[-2:, :2], image[-2:, -2:])
            if block[0, 0] > above and (block == block[0, 0]).all()
        }
        for value in values:
            regions, _ = label(image == value)
            corners = regions[[0, 0, -1, -1], [0, -1, 0, -1]]
            sizes = np.bincount(regions.ravel())
            wide = {corner for corner in corners if corner and sizes[corner] >= _LEAST_PIXELS}
            if wide:
                found = np.zeros(array.shape, dtype=bool) if found is None else found
                found[number] |= np.isin(regions, list(wide))
    return found
