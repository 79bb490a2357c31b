"""Slices that are tilted or unevenly spaced: onto a straight, even grid, and back.

A stack of parallel slices lies at steps along one line. Where that line is not the normal of the
slices (a tilted gantry), or the steps differ, the slices are not those of a straight grid. Values
are then interpolated along the line; within a slice nothing is blurred, unless it leans in both
directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILT", "Straight", "is_sheared", "straight_grid"]

#: A stack leans by a tilt above this angle, in radians, that also shifts it by half a pixel.
TILT = 1e-3

# A column shifted by less than this share of its width stays where it is.
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class Straight:
    """How slices as they are lie on a straight, even grid.

    Attributes
    ----------
    steps : tuple of float
        Places of the slices along their line, in steps of the grid.
    shear : tuple of float
        Shift along the line for each row and each column, in steps of the grid.
    slant : float
        Shift along the columns for each row, in columns.
    start : float
        Place of the grid's first slice, in steps; its columns start at `first_col`.
    size : tuple of int
        Slices, rows and columns of the grid.
    first_col : int
        Column of the grid that is column 0 of the slices, counted from the grid's first.
    reach : float
        Slices farther apart, in steps, have a gap between them, which stays empty.
    """

    steps: tuple[float, ...]
    shear: tuple[float, float]
    slant: float
    start: float
    size: tuple[int, int, int]
    first_col: int
    reach: float = 1.5

    def forth(
        self, slices: NDArray[np.float32], *, nearest: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Bring slices (n, rows, cols) onto the grid.

        Parameters
        ----------
        slices : ndarray of float32, (n, rows, cols)
        nearest : bool
            Whether each voxel gets the value of the nearest one, as labels must.

        Returns
        -------
        values : ndarray of float32, (slices, rows, cols)
            The lowest value where no slice reaches.
        reached : ndarray of bool, (slices,)
            Whether a slice reaches any voxel of each slice of the grid.
        """
        _, rows, cols = slices.shape
        lowest = slices.min()
        out = np.full(self.size, lowest, dtype=np.float32)
        reached = np.zeros(self.size[0], dtype=bool)
        grid_steps = self.start + np.arange(self.size[0])
        places = np.asarray(self.steps)
        for row in range(rows):
            along = grid_steps[:, None] - self._shift(row, cols)
            line, inside = _interpolate(slices[:, row], places, along, self.reach, nearest)
            reached |= inside.any(axis=1)
            slant = self._slant(row)
            slant = float(np.floor(slant + 0.5)) if nearest else slant
            _slanted(out[:, row], np.where(inside, line, lowest), slant)
        return out, reached

    def back(self, values: NDArray[Any]) -> NDArray[Any]:
        """Bring an array on the grid back onto the slices, (n, rows, cols).

        Floating values are interpolated; labels are those of the nearest voxel.
        """
        rows, cols = self.slice_shape
        out = np.empty((len(self.steps), rows, cols), dtype=values.dtype)
        places = np.asarray(self.steps)
        nearest = not np.issubdtype(values.dtype, np.floating)
        for row in range(rows):
            line = np.empty((self.size[0], cols), dtype=values.dtype)
            _straightened(line, values[:, row], self._slant(row), nearest)
            along = places[:, None] + self._shift(row, cols) - self.start
            out[:, row] = _sample(line, along, nearest)
        return out

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Rows and columns of the slices as they are."""
        last = self.slant * (self.size[1] - 1)
        spare = max(0, int(np.ceil(last - _NEGLIGIBLE)))
        return self.size[1], self.size[2] - self.first_col - spare

    def _shift(self, row: int, cols: int) -> NDArray[np.float64]:
        """Return how far a row's pixels lie along the line, in steps; one for all if they agree."""
        across = self.shear[1] * np.arange(cols, dtype=np.float64)
        if abs(across[-1]) < _NEGLIGIBLE:
            across = np.zeros(1)
        return np.asarray(self.shear[0] * row + across[None], dtype=np.float64)

    def _slant(self, row: int) -> float:
        return self.first_col + self.slant * row


def is_sheared(direction: Sequence[float]) -> bool:
    """Return whether the axes of a 3D image are sheared by more than rounding."""
    axes = np.reshape(direction, (3, 3))
    axes = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > TILT)


def straight_grid(
    steps: NDArray[np.float64], shear: tuple[float, float], slant: float, rows: int, cols: int
) -> Straight:
    """Lay the smallest straight grid around tilted or uneven slices.

    Parameters
    ----------
    steps : ndarray, (slices,)
        Rising places along their line, in steps of the grid.
    shear, slant
        As in `Straight`.
    rows, cols : int
        Of a slice.
    """
    corners = [shear[0] * row + shear[1] * col for row in (0, rows - 1) for col in (0, cols - 1)]
    start = float(steps[0] + min(corners))
    length = float(steps[-1] + max(corners)) - start
    last = slant * (rows - 1)
    first_col = max(0, int(np.ceil(-last - _NEGLIGIBLE)))
    spare = max(0, int(np.ceil(last - _NEGLIGIBLE)))
    return Straight(
        steps=tuple(float(one) for one in steps),
        shear=shear,
        slant=slant,
        start=start,
        size=(int(length + 0.5 + _NEGLIGIBLE) + 1, rows, cols + first_col + spare),
        first_col=first_col,
    )


def _interpolate(
    lines: NDArray[np.float32],
    places: NDArray[np.float64],
    along: NDArray[np.float64],
    reach: float,
    nearest: bool,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Interpolate between slices at rising places; beyond half a step of one lies nothing.

    Parameters
    ----------
    lines : ndarray, (slices, cols)
    places : ndarray, (slices,)
    along : ndarray, (n, cols) or (n, 1)
        Where values are sought.
    reach : float
        Of neighbours between which values are interpolated.
    nearest : bool
        Whether the value of the nearer one is taken instead.

    Returns
    -------
    values, inside : ndarray, (n, cols)
    """
    lower = np.clip(np.searchsorted(places, along + 1e-9) - 1, 0, max(0, len(places) - 2))
    upper = np.minimum(lower + 1, len(places) - 1)
    width = places[upper] - places[lower]
    share = (along - places[lower]) / np.where(width > 0, width, 1.0)
    gap = width > reach
    near = np.minimum(np.abs(along - places[lower]), np.abs(along - places[upper]))
    inside = np.where(gap | (share < 0) | (share > 1), near <= 0.5 + _NEGLIGIBLE, True)
    share = np.clip(np.where(gap | nearest, np.round(share), share), 0, 1).astype(np.float32)
    if along.shape[1] == 1:
        values = lines[lower[:, 0]] * (1 - share) + lines[upper[:, 0]] * share
    else:
        values = np.take_along_axis(lines, lower, 0) * (1 - share)
        values += np.take_along_axis(lines, upper, 0) * share
    return values.astype(np.float32, copy=False), np.broadcast_to(inside, values.shape)


def _sample(lines: NDArray[Any], along: NDArray[np.float64], nearest: bool) -> NDArray[Any]:
    """Take values (n, cols) at places given in steps from the first of evenly spaced lines."""
    along = np.broadcast_to(np.clip(along, 0, len(lines) - 1), (len(along), lines.shape[1]))
    if nearest:
        return np.take_along_axis(lines, np.floor(along + 0.5 - 1e-9).astype(np.intp), 0)
    lower = np.floor(along + 1e-9).astype(np.intp)
    upper = np.minimum(lower + 1, len(lines) - 1)
    share = np.clip(along - lower, 0, 1)
    return np.take_along_axis(lines, lower, 0) * (1 - share) + (
        np.take_along_axis(lines, upper, 0) * share
    )


def _slanted(target: NDArray[np.float32], line: NDArray[np.float32], shift: float) -> None:
    """Write a row's columns into a wider row, moved to the right by a shift in columns."""
    cols = line.shape[1]
    whole = int(np.floor(shift + _NEGLIGIBLE))
    share = shift - whole
    if share < _NEGLIGIBLE:
        target[:, whole : whole + cols] = line
        return
    target[:, whole : whole + cols] = line
    inner = line[:, 1:] * (1 - share) + line[:, :-1] * share
    target[:, whole + 1 : whole + cols] = inner


def _straightened(target: NDArray[Any], line: NDArray[Any], shift: float, nearest: bool) -> None:
    """Undo `_slanted`."""
    cols = target.shape[1]
    whole = int(np.floor(shift + _NEGLIGIBLE))
    share = shift - whole
    if share < _NEGLIGIBLE or nearest:
        whole = min(int(np.floor(shift + 0.5)), line.shape[1] - cols)
        target[:] = line[:, whole : whole + cols]
        return
    right = np.minimum(np.arange(cols) + whole + 1, line.shape[1] - 1)
    target[:] = line[:, whole : whole + cols] * (1 - share) + line[:, right] * share
