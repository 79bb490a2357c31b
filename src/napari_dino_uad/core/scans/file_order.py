"""Arrays on canonical axes, brought back to the order and the grid of a scan's file."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.axes import turn
from napari_dino_uad.core.scans.geometry import FileGrid, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["from_file_order", "to_file_grid", "to_file_order"]


def from_file_order(array: NDArray[Any], grid: FileGrid) -> NDArray[Any]:
    """View an array (z, y, x) in the order of a file on the canonical axes of that file."""
    return turn(array, grid.axes, grid.flips)


def to_file_order(array: NDArray[Any], grid: FileGrid) -> NDArray[Any]:
    """View an array on canonical axes in the order of its file, (z, y, x)."""
    # Undo the flips on the canonical axes, then the order of the axes.
    return turn(array, (0, 1, 2), grid.flips).transpose(np.argsort(grid.axes))


def to_file_grid(array: NDArray[Any], like: Volume) -> sitk.Image:
    """Bring an array from canonical axes back to the grid of the file, voxel for voxel.

    Parameters
    ----------
    array : ndarray, (S, P, L)
        On the canonical grid of `like`. The type is kept, except that bool becomes uint8 and
        half precision becomes single, since files have no such types.
    like : Volume
        The scan it belongs to.

    Returns
    -------
    SimpleITK.Image
        Size, spacing, origin and direction are those of the file.

    Raises
    ------
    InputError
        If the shape is not that of `like`.
    """
    if array.shape != like.shape:
        raise InputError(
            f"Expected an array of {' x '.join(map(str, like.shape))}, the grid of {like.name}, "
            f"got {' x '.join(map(str, array.shape))}."
        )
    if array.dtype in (np.bool_, np.float16):
        array = array.astype(np.uint8 if array.dtype == np.bool_ else np.float32)
    grid = like.grid
    stored = _on_slices(to_file_order(array, grid), grid)
    if grid.dimension == 2:
        image = _image_of(stored[0])
        image.SetSpacing(grid.spacing[:2])
        image.SetOrigin(grid.origin[:2])
        image.SetDirection([grid.direction[index] for index in (0, 1, 3, 4)])
        return image
    image = _image_of(stored)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def _image_of(stored: NDArray[Any]) -> sitk.Image:
    """Make an image of an array whose axes may be turned, without another copy of it.

    SimpleITK fills images from contiguous arrays only, and such a copy of the map of a large CT
    takes 0.6 GB.
    """
    import SimpleITK as sitk

    kind = sitk.GetImageFromArray(np.zeros((1,) * stored.ndim, stored.dtype.newbyteorder("=")))
    image = sitk.Image(stored.shape[::-1], kind.GetPixelID())
    # A view of an image that nobody shares yet. SimpleITK marks it as read-only.
    view = sitk.GetArrayViewFromImage(image)
    place = view.__array_interface__["data"][0]
    memory = (ctypes.c_ubyte * view.nbytes).from_address(place)
    inside: NDArray[Any] = np.ndarray(view.shape, view.dtype, memoryview(memory))
    np.copyto(inside, stored)
    return image


def _on_slices(stored: NDArray[Any], grid: FileGrid) -> NDArray[Any]:
    """Bring an array (z, y, x) to the slices of the file: empty where one was never acquired."""
    if not grid.missing and grid.straight is None:
        return stored
    whole = np.zeros((len(stored) + len(grid.missing), *stored.shape[1:]), dtype=stored.dtype)
    whole[np.setdiff1d(np.arange(len(whole)), grid.missing)] = stored
    return whole if grid.straight is None else grid.straight.back(whole)
