"""Padding: what was added around a scan when it was turned, registered or framed.

Background that is dark falls below the foreground threshold by itself. Padding may have any value,
such as the white corners of registered OCT, and would then be the brightest tissue of all. What
tells it from tissue is that it has no noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["find_padding"]

# A few equal pixels in a corner may be chance, or saturated tissue.
_LEAST_PIXELS = 64


def find_padding(array: NDArray[np.float32], above: float) -> NDArray[np.bool_] | None:
    """Find the padding of slices: regions of exactly one value that reach a corner.

    Parameters
    ----------
    array : ndarray of float32, (slices, rows, cols)
        Voxel values.
    above : float
        Padding of this value or less is dark background like any other, and not looked for.

    Returns
    -------
    ndarray of bool, (slices, rows, cols), or None
        None where there is none, as in nearly all scans.
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
