"""Images and arrays become volumes on canonical axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_grid
from napari_dino_uad.core.scans.axes import RIGHT_ANGLE, canonical_axes, right_axes, turn
from napari_dino_uad.core.scans.files.colours import luminance
from napari_dino_uad.core.scans.files.integrity import clean_values
from napari_dino_uad.core.scans.geometry import FileGrid, Volume

__all__ = [
    "volume_from_array",
    "volume_from_stored",
    "volume_of_tilted",
]


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
    if abs(axes[:, 0] @ axes[:, 1]) > RIGHT_ANGLE or abs(axes[:, 2] @ normal) < RIGHT_ANGLE:
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
    stack = stack_slices(
        slices,
        origins,
        square,
        (spacing[0], spacing[1]),
        name,
        spacing[2],
        labels=keywords.get("labels", False),
    )
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
    labels: bool = False,
    colour: NDArray[np.uint8] | None = None,
) -> Volume:
    """Bring an array as files store it onto canonical axes.

    Parameters
    ----------
    stored : ndarray, (z, y, x)
        Of one value per voxel.
    spacing, origin, direction : sequence of float
        Of 3, 3 and 9 numbers, in SimpleITK's order x, y, z.
    name : str
        Name of the case.
    path, modality, window, spacing_known
        As in `Volume`.
    allow_constant : bool
        Whether an image with a single value, such as an empty mask, is accepted.
    dimension : int
        2 for a single image without a third axis.
    owned : bool
        Whether nobody else holds the array, which then need not be copied.
    labels : bool
        Whether the values are labels, as in `read_volume`.
    colour : ndarray of uint8, (1, y, x, 3), optional
        Of a picture in colour.

    Returns
    -------
    Volume
        NaN and infinity became the lowest finite value of the scan.

    Raises
    ------
    InputError
        If it has damaged axes, no finite value, a huge one, or no contrast.
    """
    check_grid(name, spacing, origin, known=spacing_known)
    # Rows and columns of the matrix run x, y, z; turned round in both they run S, P, L.
    directions, notices = right_axes(
        np.reshape(direction, (3, 3))[::-1, ::-1], stored.shape, tuple(spacing)[::-1], name
    )
    thin = [axis for axis in range(3) if stored.shape[axis] == 1]
    is_2d = dimension == 2 or len(thin) == 1
    axes, signs = canonical_axes(directions, thin[0] if is_2d else None)
    flips = (signs[0] < 0, signs[1] < 0, signs[2] < 0)
    array, unfit = clean_values(
        turn(stored, axes, flips), name, allow_constant, owned=owned, labels=labels
    )
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
        colour=None if colour is None else _turned_colour(colour, axes, flips),
    )


def _turned_colour(
    colour: NDArray[np.uint8], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> NDArray[np.uint8]:
    channels = [turn(colour[..., channel], axes, flips) for channel in range(3)]
    return np.stack(channels, axis=-1)


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
    colour: bool = False,
) -> Volume:
    """Create a volume from an array whose axes run (S, P, L), such as a layer of the viewer.

    Parameters
    ----------
    array : array_like, (slices, rows, cols) or (rows, cols)
        Grey values; with `colour` (rows, cols, 3), 8 bits each of red, green and blue.
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
    colour : bool
        Whether it is a picture in colour.

    Raises
    ------
    InputError
        If the array is not 2D or 3D, complex, or has no contrast, or a spacing is not above 0.
    """
    values = np.asarray(array)
    colours = None
    if colour:
        if values.ndim != 3 or values.shape[-1] not in (3, 4) or values.dtype != np.uint8:
            raise InputError(
                f"{name}: expected one picture in colours of 8 bits, got {values.dtype} of "
                f"{' x '.join(map(str, values.shape))}; convert it."
            )
        colours = np.ascontiguousarray(values[np.newaxis, ..., :3])
        values = luminance(colours)[0]
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
        colour=colours,
    )
