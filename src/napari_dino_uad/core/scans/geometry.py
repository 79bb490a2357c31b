"""A scan on canonical axes, and the exact way back to the grid of its file.

Arrays and their spacing run (S, P, L): feet to head, front to back, the patient's right to left.
`canonical.py` makes volumes of images, and `file_order.py` brings arrays back. Only these two,
`volume.py`, `stack.py` and `dicom/` handle SimpleITK's order x, y, z.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dino_uad.core.scans.straight import Straight

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.dicom.series import Series
    from napari_dino_uad.core.scans.files.nifti_forms import NiftiForms

__all__ = ["FileGrid", "Volume"]


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
    colour : ndarray of uint8, (1, rows, cols, 3), or None
        Red, green and blue of a single picture in colour; `array` is its luminance.
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
    colour: NDArray[np.uint8] | None = None

    @property
    def content(self) -> NDArray[np.float32] | NDArray[np.uint8]:
        """What the file shows: the colours, or the grey values."""
        return self.array if self.colour is None else self.colour

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
