"""The smallest box around a mask, so that no work is spent on the air around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["tight_box"]


def tight_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box that contains a mask.

    Parameters
    ----------
    mask : ndarray of bool
        Mask with any number of axes.
    margin : int
        Elements to add on every side, clipped to the mask's shape.

    Returns
    -------
    tuple of slice
        One slice per axis; empty slices if the mask is empty.
    """
    box = []
    rest = mask
    # Search each axis only within the box of the previous axes.
    for axis, size in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(rest.any(axis=others))
        if not len(found):
            return (slice(0, 0),) * mask.ndim
        box.append(slice(max(0, int(found[0]) - margin), min(size, int(found[-1]) + 1 + margin)))
        rest = mask[tuple(box)]
    return tuple(box)
