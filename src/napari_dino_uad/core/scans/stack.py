"""Slices where they lie, made a volume: as they are, or on a straight, even grid.

Slices at even steps along their normal are a volume as they are; slices missing among them leave a
gap. A stack that is tilted or unevenly spaced is resampled (`straight.py`). In all cases what is
written for the volume returns to the places of the slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.straight import TILT, Straight, straight_grid

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.geometry import Volume

__all__ = ["Stack", "stack_slices", "steps_between", "volume_of_stack"]

# Spacing, origin and direction, in SimpleITK's order x, y, z.
Geometry = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]

# Steps that differ by less than this share are rounding in the headers.
_EVEN = 0.05


@dataclass(frozen=True)
class Stack:
    """Slices on a grid that SimpleITK can hold, and the way back to where they lie.

    Attributes
    ----------
    slices : ndarray of float32, (slices, rows, cols)
        Sorted along their normal.
    geometry : tuple of (spacing, origin, direction)
        Of the slices, in SimpleITK's order x, y, z.
    missing : tuple of int
        Slices of the even grid that are absent, counted along the whole grid.
    straight : Straight or None
        How the slices were resampled, where results can return onto them.
    file_geometry : tuple of (spacing, origin, direction) or None
        Of the slices as they are, where they were resampled.
    notices : tuple of str
        What was done.
    """

    slices: NDArray[np.float32]
    geometry: Geometry
    missing: tuple[int, ...] = ()
    straight: Straight | None = None
    file_geometry: Geometry | None = None
    notices: tuple[str, ...] = ()


# Places of a grid for each slice that is there; beyond that, positions are wrong.
_MOST_GAPS = 5


def stack_slices(
    slices: NDArray[np.float32],
    origins: NDArray[np.float64],
    axes: NDArray[np.float64],
    spacing: tuple[float, float],
    name: str,
    thickness: float = 1.0,
    *,
    labels: bool = False,
) -> Stack:
    """Lay parallel slices on an even grid.

    Parameters
    ----------
    slices : ndarray of float32, (slices, rows, cols)
    origins : ndarray, (slices, 3)
        Position x, y, z of each slice's first pixel in mm, rising along their normal.
    axes : ndarray, (3, 3)
        Columns are the directions of columns, rows and normal.
    spacing : tuple of float
        Distance of columns and of rows in mm.
    name : str
        For messages.
    thickness : float
        Of a single slice.
    labels : bool
        Whether the values are labels, which are not interpolated.

    Raises
    ------
    InputError
        If the slices do not lie along one line, or their distances differ too much for a grid.
    """
    if len(slices) == 1:
        return Stack(slices, _geometry((*spacing, thickness), origins[0], axes))
    span = origins[-1] - origins[0]
    drift = np.linalg.norm(span - (span @ axes[:, 2]) * axes[:, 2])
    tilt = math.atan2(drift, float(span @ axes[:, 2]))
    is_tilted = tilt > TILT and drift > min(spacing) / 2
    line = span / np.linalg.norm(span) if is_tilted else axes[:, 2]
    along = (origins - origins[0]) @ line
    astray = np.linalg.norm(origins - origins[0] - along[:, None] * line, axis=1).max()
    if astray > max(spacing):
        raise InputError(
            f"Expected parallel slices along one line, got slices of {name} up to {astray:.1f} mm "
            "beside it; export a reformatted series."
        )
    steps, step_mm, is_even = steps_between(along)
    whole = round(float(steps[-1])) + 1
    if whole > _MOST_GAPS * len(slices) + 100:
        raise InputError(
            f"Expected slices at about even distances, got {len(slices)} slices of {name} over "
            f"{along[-1]:.0f} mm with a usual step of {step_mm:.3g} mm; check their positions, or "
            "export the parts to their own folders."
        )
    if not is_tilted and is_even:
        missing = tuple(sorted(set(range(whole)) - set(steps.round().astype(int).tolist())))
        geometry = _geometry((*spacing, step_mm), origins[0], axes)
        return Stack(slices, geometry, missing, notices=_gap_notices(along, step_mm))
    laid = _resampled(slices, origins[0], axes, spacing, (line, steps, step_mm), name, labels)
    notices = []
    if is_tilted:
        notices.append(
            f"Gantry tilt of {math.degrees(tilt):.1f} degrees: resampled onto a straight grid"
        )
    if not is_even:
        gaps = np.diff(along)
        notices.append(
            f"Unevenly spaced slices ({gaps.min():.2f} to {gaps.max():.2f} mm): resampled to "
            f"{step_mm:.2f} mm; results are written on this even grid"
        )
        return replace(laid, straight=None, notices=(*notices, *_gap_notices(along, step_mm)))
    back = replace(laid.straight, steps=tuple(float(one) for one in range(whole)))  # type: ignore[type-var]  # set above
    return replace(
        laid,
        straight=back,
        file_geometry=_geometry(
            (*spacing, step_mm), origins[0], np.column_stack([axes[:, :2], line])
        ),
        notices=(*notices, *_gap_notices(along, step_mm)),
    )


def steps_between(along: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, bool]:
    """Count places in steps of an even grid.

    Parameters
    ----------
    along : ndarray, (slices,)
        Rising places in mm, the first 0.

    Returns
    -------
    steps : ndarray, (slices,)
        Whole numbers where the places are even, but for slices missing.
    step_mm : float
        The step of the grid.
    is_even : bool
    """
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    counts = np.round(gaps / usual)
    if counts.min() >= 1:
        steps = np.concatenate([[0.0], np.cumsum(counts)])
        step_mm = float(along[-1] / steps[-1])
        # Gaps may be off by rounding, and rounding must not add up.
        off = np.abs(gaps - counts * step_mm)
        if off.max() <= _EVEN * step_mm and np.abs(along - steps * step_mm).max() <= step_mm / 10:
            return steps, step_mm, True
    return along / usual, usual, False


def _gap_notices(along: NDArray[np.float64], step_mm: float) -> tuple[str, ...]:
    gaps = np.diff(along)
    wide = np.flatnonzero(gaps > 1.5 * step_mm)
    if not len(wide):
        return ()
    missing = int(np.sum(np.round(gaps[wide] / step_mm) - 1))
    shown = ", ".join(f"{gaps[one]:.1f} mm after slice {one + 1}" for one in wide[:5])
    more = f" and {len(wide) - 5} more" if len(wide) > 5 else ""
    return (
        f"{missing} slice{'s are' if missing > 1 else ' is'} missing, and the gap stays empty: "
        f"{shown}{more}; {step_mm:.1f} mm are usual",
    )


def _resampled(
    slices: NDArray[np.float32],
    origin: NDArray[np.float64],
    axes: NDArray[np.float64],
    spacing: tuple[float, float],
    course: tuple[NDArray[np.float64], NDArray[np.float64], float],
    name: str,
    labels: bool,
) -> Stack:
    """Resample slices onto axes at right angles, the third along the line of the slices."""
    line, steps, step_mm = course
    right = axes[:, 0] - (axes[:, 0] @ line) * line
    down = axes[:, 1] - (axes[:, 1] @ line) * line
    col_mm = spacing[0] * float(np.linalg.norm(right))
    right = right / np.linalg.norm(right)
    slant = spacing[1] * float(down @ right) / col_mm
    down = down - (down @ right) * right
    row_mm = spacing[1] * float(np.linalg.norm(down))
    down = down / np.linalg.norm(down)
    shear = (
        spacing[1] * float(axes[:, 1] @ line) / step_mm,
        spacing[0] * float(axes[:, 0] @ line) / step_mm,
    )
    way = straight_grid(steps, shear, slant, *slices.shape[1:])
    if way.size[0] > 10 * len(slices) + 1000:
        raise InputError(
            f"Expected slices at about even distances, got {name} with a step of {step_mm:.2f} mm "
            f"over {steps[-1] * step_mm:.0f} mm; export the parts to their own folders."
        )
    values, reached = way.forth(slices, nearest=labels)
    corner = origin + way.start * step_mm * line - way.first_col * col_mm * right
    geometry = _geometry((col_mm, row_mm, step_mm), corner, np.stack([right, down, line], axis=1))
    return Stack(values[reached], geometry, tuple(np.flatnonzero(~reached).tolist()), way)


def _geometry(
    spacing: Sequence[float], origin: NDArray[np.float64], axes: NDArray[np.float64]
) -> Geometry:
    return (
        tuple(float(one) for one in spacing),
        tuple(origin.tolist()),
        tuple(axes.ravel().tolist()),
    )


def volume_of_stack(stack: Stack, name: str, path: Path | None = None, **keywords: Any) -> Volume:
    """Make a volume of a stack, with the way back to the slices where they lie.

    Parameters
    ----------
    stack : Stack
    name, path, **keywords
        As `volume_from_stored` takes them.

    Raises
    ------
    InputError
        As `volume_from_stored` does.
    """
    from napari_dino_uad.core.scans.canonical import volume_from_stored

    notices = (*keywords.pop("notices", ()), *stack.notices)
    volume = volume_from_stored(stack.slices, *stack.geometry, name, path, owned=True, **keywords)
    grid = replace(volume.grid, missing=stack.missing, straight=stack.straight)
    if stack.straight is not None and stack.file_geometry is not None:
        spacing, first, direction = stack.file_geometry
        rows, cols = stack.straight.slice_shape
        grid = replace(
            grid,
            size=(cols, rows, len(stack.straight.steps)),
            origin=first,
            spacing=spacing,
            direction=direction,
        )
    elif stack.missing:
        grid = replace(grid, size=(*grid.size[:2], grid.size[2] + len(stack.missing)))
    origin = np.asarray(volume.origin_mm)
    axis = grid.axes.index(0)
    if grid.flips[axis]:
        # Its first slice is the grid's last, behind the gaps.
        origin = origin - volume.direction[:, axis] * volume.spacing_mm[axis] * len(stack.missing)
    return replace(
        volume,
        grid=grid,
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        notices=(*notices, *volume.notices),
    )
