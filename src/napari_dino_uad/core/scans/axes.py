"""Axes of a file that are at right angles but for rounding in its header."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["right_axes"]

# Cosines of axes that should be at right angles, rounded in headers to two digits.
_LEAST_RIGHT = 0.02

# Cosines that are rounding in double precision, and voxels that such axes may shift a corner by
# before the user should know.
_EXACT = 1e-6
_SHIFTED = 0.5


def right_axes(
    directions: NDArray[np.float64], shape: Sequence[int], spacing: Sequence[float], name: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the nearest axes at right angles, where a header's are rounded.

    Parameters
    ----------
    directions : ndarray, (3, 3)
        Columns are the directions of the axes.
    shape, spacing : sequence of 3 numbers
        Voxels along each axis, and their size in mm.
    name : str
        For messages.

    Raises
    ------
    InputError
        If they do not span space, or are off a right angle by more than rounding.
    """
    if abs(np.linalg.det(directions)) < 1e-6:
        raise InputError(
            f"{name} has axes that do not span space, so its header is damaged; export it again."
        )
    off = np.abs(directions.T @ directions - np.eye(3)).max()
    if off > _LEAST_RIGHT:
        raise InputError(
            f"{name} has axes that are not at right angles, as its header says; resample it to a "
            "regular grid first."
        )
    if off < _EXACT:
        return directions, ()
    left, _, right = np.linalg.svd(directions)
    nearest = left @ right
    extent = np.multiply(shape, spacing)
    moved = float(np.abs((nearest - directions) * extent).sum(axis=1).max())
    if moved <= _SHIFTED * min(spacing):
        return nearest, ()
    angle = np.degrees(np.arcsin(min(1.0, off)))
    return nearest, (
        f"{name} has axes that are {angle:.1f} degrees off a right angle, and is shown at right "
        f"angles; places are up to {moved:.1f} mm off.",
    )
