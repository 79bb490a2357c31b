"""Axial, coronal and sagittal views of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Volume

__all__ = [
    "PLANES",
    "Plane",
    "from_plane",
    "plane_axis",
    "plane_index",
    "plane_spacing_mm",
    "to_plane",
]

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
# For each plane, the order of the volume's axes (S, P, L) as (slice, row, column), and whether
# rows run from feet to head and must be flipped to put the head up.
_AXES: dict[Plane, tuple[tuple[int, int, int], bool]] = {
    "axial": ((0, 1, 2), False),
    "coronal": ((1, 0, 2), True),
    "sagittal": ((2, 0, 1), True),
}


def to_plane(array: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """View an (S, P, L) array as (slices, rows, cols) of a plane, head or front up.

    Parameters
    ----------
    array : ndarray, (S, P, L)
        On the volume's canonical axes.
    plane : {"axial", "coronal", "sagittal"}
        The plane to cut.

    Returns
    -------
    ndarray
        A view, (slices, rows, cols).
    """
    axes, flip = _AXES[plane]
    view = array.transpose(axes)
    return view[:, ::-1] if flip else view


def from_plane(array: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """Undo `to_plane`."""
    axes, flip = _AXES[plane]
    view = array[:, ::-1] if flip else array
    return view.transpose(tuple(np.argsort(axes)))


def plane_axis(plane: Plane) -> int:
    """Return the axis of the volume (S, P, L) along which a plane's slices are stacked."""
    return _AXES[plane][0][0]


def plane_index(voxel: Sequence[int], shape: Sequence[int], plane: Plane) -> tuple[int, int, int]:
    """Return where `to_plane` puts a voxel: its slice, row and column.

    Parameters
    ----------
    voxel, shape : sequence of int
        Index of the voxel and shape of the volume, (S, P, L).
    plane : {"axial", "coronal", "sagittal"}
        The plane that is cut.
    """
    axes, flip = _AXES[plane]
    number, row, column = (int(voxel[axis]) for axis in axes)
    return number, int(shape[axes[1]]) - 1 - row if flip else row, column


def plane_spacing_mm(volume: Volume, plane: Plane) -> tuple[float, float, float]:
    """Return the spacing along (slices, rows, cols) of a plane in mm."""
    axes, _ = _AXES[plane]
    spacing = volume.spacing_mm
    return spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]
