"""The axes of a file: at right angles but for rounding, and the order of the canonical ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["RIGHT_ANGLE", "canonical_axes", "right_axes", "turn"]

#: Largest cosine of axes at right angles that are rounded in headers to two digits.
RIGHT_ANGLE = 0.02

# Cosines that are rounding in double precision, and voxels that such axes may shift a corner by
# before the user should know.
_EXACT = 1e-6
_SHIFTED = 0.5

# Directions of array axes 0, 1, 2 of a single slice, as (world axis S, P or L; sign), by the world
# axis across the slice. Rows run front to back or head to feet, columns right to left or front to
# back, as radiologists display such images.
_SLICE_AXES = {
    0: ((0, 1), (1, 1), (2, 1)),
    1: ((1, 1), (0, -1), (2, 1)),
    2: ((2, 1), (0, -1), (1, 1)),
}


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
    if off > RIGHT_ANGLE:
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


def canonical_axes(
    directions: NDArray[np.float64], thin: int | None
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return which axis of the file's array becomes each canonical axis, and with which sign.

    Parameters
    ----------
    directions : ndarray, (3, 3)
        Column j is the direction (S, P, L) of axis j of the file's array.
    thin : int or None
        The axis across a single slice.
    """
    # The assignment that rotates the axes least, even if two of them are nearest to one axis.
    nearest = max(
        permutations(range(3)),
        key=lambda order: sum(abs(directions[world, axis]) for world, axis in enumerate(order)),
    )
    targets = _SLICE_AXES[0 if thin is None else nearest.index(thin)]
    axes = [nearest[world] for world, _ in targets]
    signs = [sign if directions[world, nearest[world]] >= 0 else -sign for world, sign in targets]
    return (axes[0], axes[1], axes[2]), (signs[0], signs[1], signs[2])


def turn(
    array: NDArray[Any], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> NDArray[Any]:
    """View an array with its axes reordered, then some of them reversed."""
    turned = array.transpose(axes)
    return turned[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
