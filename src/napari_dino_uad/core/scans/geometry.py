"""A scan on canonical axes, and the exact way back to the grid of its file.

Arrays and their spacing run (S, P, L): feet to head, front to back, the patient's right to left.
Only this module, `volume.py` and `dicom/` handle SimpleITK's order x, y, z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_grid, check_one_volume
from napari_dino_uad.core.scans.axes import right_axes
from napari_dino_uad.core.scans.files.integrity import clean_values
from napari_dino_uad.core.scans.straight import Straight, is_sheared

if TYPE_CHECKING:
    import SimpleITK as sitk

    from napari_dino_uad.core.scans.dicom.series import Series
    from napari_dino_uad.core.scans.files.nifti_forms import NiftiForms

__all__ = [
    "FileGrid",
    "Volume",
    "from_file_order",
    "to_file_grid",
    "to_file_order",
    "volume_from_array",
    "volume_from_image",
    "volume_from_stored",
    "volume_of_tilted",
]

# Cosine between two axes of a slice that deviate from a right angle by more than rounding.
_RIGHT_ANGLE = 1e-2

# Directions of array axes 0, 1, 2 of a single slice, as (world axis S, P or L; sign), by the world
# axis across the slice. Rows run front to back or head to feet, columns right to left or front to
# back, as radiologists display such images.
_SLICE_AXES = {
    0: ((0, 1), (1, 1), (2, 1)),
    1: ((1, 1), (0, -1), (2, 1)),
    2: ((2, 1), (0, -1), (1, 1)),
}


@dataclass(frozen=True)
class FileGrid:
    """A file's own geometry, and how its array was turned onto canonical axes.

    Attributes
    ----------
    size, spacing, origin, direction : tuple
        From SimpleITK for the three-dimensional image, in its order x, y, z.
    axes : tuple of int
        Axis of the file's array (z, y, x) that became each axis of the canonical one.
    flips : tuple of bool
        Which axes of the canonical array run against the file's.
    dimension : int
        2 for a single image without a third axis.
    missing : tuple of int
        Slices along the file's third axis that were never acquired: the scan's array lacks them,
        and files written for it have them empty.
    straight : Straight or None
        How the file's slices were resampled, where they are tilted. Size, spacing, origin and
        direction are then those of the slices as they are, and the direction is sheared.
    forms : NiftiForms or None
        The geometry as it stands in the header of a NIfTI file; NIfTI files that are written for
        the scan get the same.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    dimension: int = 3
    missing: tuple[int, ...] = ()
    straight: Straight | None = None
    forms: NiftiForms | None = None


@dataclass(frozen=True)
class Volume:
    """A scan on canonical axes.

    Attributes
    ----------
    array : ndarray of float32, (slices, rows, cols)
        Axis 0 runs feet to head, axis 1 front to back, axis 2 the patient's right to left. In a
        single coronal or sagittal slice, axis 0 runs across the slice and rows run head to feet.
    spacing_mm : tuple of float
        Along the three array axes. If `spacing_known` is False, in units of the shorter pixel
        edge.
    origin_mm : tuple of float
        Position (S, P, L) of voxel (0, 0, 0).
    direction : ndarray of float64, (3, 3)
        Column j is the direction (S, P, L) of array axis j: the identity, but for the rotation
        of an oblique scan.
    grid : FileGrid
        The exact way back to the file.
    name : str
        The file's name without its ending.
    path : Path or None
        File or folder of the scan.
    modality : str or None
        DICOM modality, such as "MR" or "CT".
    window : tuple of float or None
        DICOM window (centre, width).
    is_2d : bool
        Whether it is a single slice; the array is then (1, rows, cols).
    spacing_known : bool
        Whether the file has the size of a voxel. PNG and TIFF do not: the resolution in some of
        them is for printing. Sizes are then given in pixels, not in mm or ml.
    notices : tuple of str
        Notes for the user about how it was read, a sentence each.
    label_names : tuple of (int, str)
        Value and name of each segment, if it is a segmentation.
    series : Series or None
        The DICOM series it was read from, with the frames that became its slices.
    """

    array: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]
    grid: FileGrid
    name: str
    path: Path | None = None
    modality: str | None = None
    window: tuple[float, float] | None = None
    is_2d: bool = False
    spacing_known: bool = True
    notices: tuple[str, ...] = ()
    label_names: tuple[tuple[int, str], ...] = ()
    series: Series | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array, (slices, rows, cols)."""
        slices, rows, cols = self.array.shape
        return slices, rows, cols

    @property
    def named_notices(self) -> tuple[str, ...]:
        """The notices, each with the scan's name, for lists of several scans."""
        return tuple(one if self.name in one else f"{self.name}: {one}" for one in self.notices)

    def to_ras_mm(self, index: ArrayLike) -> tuple[float, float, float]:
        """Return where a voxel lies, in mm to the patient's right, front and head.

        Parameters
        ----------
        index : array_like of 3 numbers
            Along the array's axes (S, P, L).
        """
        place = np.array(index, dtype=np.float64)
        if self.grid.missing:
            axis = self.grid.axes.index(0)
            place[axis] = _beyond_gaps(place[axis], self.shape[axis], self.grid)
        step = place * np.asarray(self.spacing_mm)
        superior, posterior, left = np.asarray(self.origin_mm) + self.direction @ step
        return -float(left), -float(posterior), float(superior)


def _beyond_gaps(index: float, slices: int, grid: FileGrid) -> float:
    """Return the place of a slice, in steps of the even grid that has the missing ones too."""
    whole = slices + len(grid.missing)
    present = np.setdiff1d(np.arange(whole), grid.missing)
    if grid.flips[grid.axes.index(0)]:
        present = whole - 1 - present[::-1]
    inside = float(np.interp(index, np.arange(slices), present))
    return inside + min(index, 0.0) + max(index - (slices - 1), 0.0)


def volume_from_image(
    image: sitk.Image,
    name: str,
    path: Path | None = None,
    modality: str | None = None,
    window: tuple[float, float] | None = None,
    *,
    allow_constant: bool = False,
    spacing_known: bool = True,
) -> Volume:
    """Bring a SimpleITK image of one value per voxel onto canonical axes.

    Parameters
    ----------
    image : SimpleITK.Image
        Of 2 or 3 dimensions, or 4 with a single volume.
    name : str
        Name of the case.
    path, modality, window, spacing_known
        As in `Volume`.
    allow_constant : bool
        Whether an image with a single value, such as an empty mask, is accepted.

    Returns
    -------
    Volume
        NaN and infinity became the lowest finite value of the scan.

    Raises
    ------
    InputError
        If it has four dimensions, damaged axes, no finite value, a huge one, or no contrast.
    """
    import SimpleITK as sitk

    dimension = image.GetDimension()
    image = _in_three_dimensions(image, name, spacing_known)
    if spacing_known and is_sheared(image.GetDirection()):
        return volume_of_tilted(
            sitk.GetArrayFromImage(image),
            image.GetSpacing(),
            image.GetOrigin(),
            image.GetDirection(),
            name,
            path,
            modality=modality,
            window=window,
            allow_constant=allow_constant,
        )
    return volume_from_stored(
        sitk.GetArrayViewFromImage(image),
        image.GetSpacing(),
        image.GetOrigin(),
        image.GetDirection(),
        name,
        path,
        modality,
        window,
        dimension=2 if dimension == 2 else 3,
        allow_constant=allow_constant,
        spacing_known=spacing_known,
    )


def volume_of_tilted(
    stored: NDArray[Any],
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    name: str,
    path: Path | None = None,
    **keywords: Any,
) -> Volume:
    """Straighten an image whose third axis leans; refuse other axes off a right angle.

    Parameters
    ----------
    stored, spacing, origin, direction, name, path, **keywords
        As `volume_from_stored` takes them.

    Raises
    ------
    InputError
        If rows and columns are not at right angles, or as `volume_from_stored` does.
    """
    from napari_dino_uad.core.scans.stack import stack_slices, volume_of_stack

    axes = np.reshape(direction, (3, 3))
    normal = np.cross(axes[:, 0], axes[:, 1])
    if abs(axes[:, 0] @ axes[:, 1]) > _RIGHT_ANGLE or abs(axes[:, 2] @ normal) < _RIGHT_ANGLE:
        raise InputError(
            f"{name} has axes that are not at right angles, as its header says; resample it to a "
            "regular grid first."
        )
    slices = stored.astype(np.float32, copy=False)
    step = axes[:, 2] * spacing[2]
    origins = np.asarray(origin) + np.arange(len(slices))[:, None] * step
    if axes[:, 2] @ normal < 0:
        slices, origins = slices[::-1], origins[::-1]
    square = np.stack([axes[:, 0], axes[:, 1], normal], axis=1)
    stack = stack_slices(slices, origins, square, (spacing[0], spacing[1]), name, spacing[2])
    return volume_of_stack(stack, name, path, **keywords)


def volume_from_stored(
    stored: NDArray[Any],
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    name: str,
    path: Path | None = None,
    modality: str | None = None,
    window: tuple[float, float] | None = None,
    *,
    dimension: int = 3,
    allow_constant: bool = False,
    spacing_known: bool = True,
    owned: bool = False,
) -> Volume:
    """Bring an array as files store it onto canonical axes.

    Parameters
    ----------
    stored : ndarray, (z, y, x)
        Of one value per voxel.
    spacing, origin, direction : sequence of float
        Of 3, 3 and 9 numbers, in SimpleITK's order x, y, z.
    name, path, modality, window, allow_constant, spacing_known
        As in `volume_from_image`.
    dimension : int
        2 for a single image without a third axis.
    owned : bool
        Whether nobody else holds the array, which then need not be copied.

    Raises
    ------
    InputError
        If it has damaged axes, no finite value, a huge one, or no contrast.
    """
    # Rows and columns of the matrix run x, y, z; turned round in both they run S, P, L.
    directions, notices = right_axes(
        np.reshape(direction, (3, 3))[::-1, ::-1], stored.shape, tuple(spacing)[::-1], name
    )
    thin = [axis for axis in range(3) if stored.shape[axis] == 1]
    is_2d = dimension == 2 or len(thin) == 1
    axes, signs = _canonical_axes(directions, thin[0] if is_2d else None)
    flips = (signs[0] < 0, signs[1] < 0, signs[2] < 0)
    array, unfit = clean_values(_turn(stored, axes, flips), name, allow_constant, owned=owned)
    return Volume(
        array=array,
        spacing_mm=_canonical_spacing(spacing, axes, spacing_known),
        origin_mm=_canonical_origin(origin, spacing, directions, stored.shape, axes, flips),
        direction=directions[:, list(axes)] * np.asarray(signs, dtype=np.float64),
        grid=FileGrid(
            stored.shape[::-1],
            tuple(spacing),
            tuple(origin),
            tuple(direction),
            axes,
            flips,
            dimension,
        ),
        name=name,
        path=path,
        modality=modality,
        window=window,
        is_2d=is_2d,
        spacing_known=spacing_known,
        notices=(*notices, *unfit),
    )


def _in_three_dimensions(image: sitk.Image, name: str, spacing_known: bool) -> sitk.Image:
    """Return the single volume of an image of 2, 3 or 4 dimensions, with its grid checked."""
    import SimpleITK as sitk

    dimension = image.GetDimension()
    check_one_volume(name, image.GetSize())
    check_grid(name, image.GetSpacing()[:3], image.GetOrigin()[:3], known=spacing_known)
    if dimension == 4:
        return image[:, :, :, 0]
    if dimension == 2:
        return sitk.JoinSeries(image)
    if dimension != 3:
        raise InputError(
            f"{name} has {dimension} dimensions, but 2 or 3 are expected; save one volume of it "
            "to its own file."
        )
    return image


def _canonical_spacing(
    spacing: Sequence[float], axes: tuple[int, int, int], known: bool
) -> tuple[float, float, float]:
    """Return the spacing along the canonical axes; if unknown, relative to the finer in-plane."""
    steps = np.asarray(tuple(spacing)[::-1])[list(axes)]
    if not known:
        steps = steps / steps[1:].min()
        steps[0] = 1.0
    return _three(steps)


def _canonical_origin(
    origin: Sequence[float],
    spacing: Sequence[float],
    directions: NDArray[np.float64],
    shape: tuple[int, ...],
    axes: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
) -> tuple[float, float, float]:
    """Return the position of the first voxel once the flipped axes are reversed."""
    first = np.asarray(tuple(origin)[::-1])
    for axis, flip in zip(axes, flips, strict=True):
        if flip:
            step = spacing[2 - axis]
            first = first + directions[:, axis] * step * (shape[axis] - 1)
    return _three(first)


def _canonical_axes(
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


def _turn(
    array: NDArray[Any], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> NDArray[Any]:
    """View an array with its axes reordered, then some of them reversed."""
    turned = array.transpose(axes)
    return turned[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def _three(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def volume_from_array(
    array: ArrayLike,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    name: str = "image",
    *,
    direction: ArrayLike | None = None,
    allow_constant: bool = False,
    spacing_known: bool = True,
) -> Volume:
    """Create a volume from an array whose axes run (S, P, L), such as a layer of the viewer.

    Parameters
    ----------
    array : array_like, (slices, rows, cols) or (rows, cols)
        Grey values.
    spacing_mm, origin_mm : sequence of 3 floats
        Along the three axes.
    name : str
        Name of the case.
    direction : array_like, (3, 3), optional
        Column j is the direction (S, P, L) of array axis j; default the identity.
    allow_constant : bool
        Whether an image with a single value, such as an empty mask, is accepted.
    spacing_known : bool
        As in `Volume`.

    Raises
    ------
    InputError
        If the array is not 2D or 3D, complex, or has no contrast, or a spacing is not above 0.
    """
    values = np.asarray(array)
    if values.ndim not in (2, 3):
        raise InputError(f"{name} has {values.ndim} dimensions, but 2 or 3 are expected.")
    if np.iscomplexobj(values):
        raise InputError(f"{name} holds complex numbers, but grey values are expected.")
    if not all(np.isfinite(value) and value > 0 for value in spacing_mm):
        raise InputError(
            f"The spacing of {name} must be above 0 mm along every axis, got "
            f"{', '.join(f'{value:g}' for value in spacing_mm)}; correct it."
        )
    flat = values.ndim == 2
    stored = values[np.newaxis] if flat else values
    clean, notices = clean_values(stored, name, allow_constant)
    turned = np.eye(3) if direction is None else np.array(direction, dtype=np.float64)
    spacing, origin = _three(spacing_mm), _three(origin_mm)
    slices, rows, cols = clean.shape
    return Volume(
        array=clean,
        spacing_mm=spacing,
        origin_mm=origin,
        direction=turned,
        grid=FileGrid(
            (cols, rows, slices),
            spacing[::-1],
            origin[::-1],
            tuple(turned[::-1, ::-1].ravel().tolist()),
            dimension=2 if flat else 3,
        ),
        name=name,
        is_2d=slices == 1,
        spacing_known=spacing_known,
        notices=notices,
    )


def from_file_order(array: NDArray[Any], grid: FileGrid) -> NDArray[Any]:
    """View an array (z, y, x) in the order of a file on the canonical axes of that file."""
    return _turn(array, grid.axes, grid.flips)


def to_file_order(array: NDArray[Any], grid: FileGrid) -> NDArray[Any]:
    """View an array on canonical axes in the order of its file, (z, y, x)."""
    # Undo the flips on the canonical axes, then the order of the axes.
    return _turn(array, (0, 1, 2), grid.flips).transpose(np.argsort(grid.axes))


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
    import SimpleITK as sitk

    if array.shape != like.shape:
        raise InputError(
            f"Expected an array of {' x '.join(map(str, like.shape))}, the grid of {like.name}, "
            f"got {' x '.join(map(str, array.shape))}."
        )
    if array.dtype in (np.bool_, np.float16):
        array = array.astype(np.uint8 if array.dtype == np.bool_ else np.float32)
    grid = like.grid
    stored = _on_slices(to_file_order(array, grid), grid)
    stored = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    if grid.dimension == 2:
        image = sitk.GetImageFromArray(stored[0])
        image.SetSpacing(grid.spacing[:2])
        image.SetOrigin(grid.origin[:2])
        image.SetDirection([grid.direction[index] for index in (0, 1, 3, 4)])
        return image
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def _on_slices(stored: NDArray[Any], grid: FileGrid) -> NDArray[Any]:
    """Bring an array (z, y, x) to the slices of the file: empty where one was never acquired."""
    if not grid.missing and grid.straight is None:
        return stored
    whole = np.zeros((len(stored) + len(grid.missing), *stored.shape[1:]), dtype=stored.dtype)
    whole[np.setdiff1d(np.arange(len(whole)), grid.missing)] = stored
    return whole if grid.straight is None else grid.straight.back(whole)
