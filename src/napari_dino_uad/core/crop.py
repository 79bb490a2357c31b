"""The smallest box around what matters, so that no work is spent on the air around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["tight_box"]


def tight_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box that holds all of a mask.

    Parameters
    ----------
    mask : ndarray of bool
        Any number of axes.
    margin : int
        Elements to add on every side, as far as the mask reaches.

    Returns
    -------
    tuple of slice
        One for each axis; empty ones if nothing is in the mask.
    """
    box = []
    rest = mask
    # Each axis is looked at within the box of those before it.
    for axis, size in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(rest.any(axis=others))
        if not len(found):
            return (slice(0, 0),) * mask.ndim
        box.append(slice(max(0, int(found[0]) - margin), min(size, int(found[-1]) + 1 + margin)))
        rest = mask[tuple(box)]
    return tuple(box)
