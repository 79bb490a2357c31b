"""One frame of a DICOM file, and the elements that say where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_dino_uad.core.scans.axes import RIGHT_ANGLE
from napari_dino_uad.core.scans.dicom.elements import number, numbers
from napari_dino_uad.core.scans.dicom.headers import Header
from napari_dino_uad.core.scans.dicom.lookup import Lookup

__all__ = [
    "LABEL_MAP",
    "NO_POSITIONS",
    "PICTURES",
    "Frame",
    "axes_in",
    "between_of",
    "no_volume",
    "place_of",
    "rescale_of",
    "spacing_of",
    "thickness_of",
]

#: Pictures of these kinds without positions are no slices of one body.
PICTURES = ("US", "IVUS", "XA", "RF", "ES", "XC", "GM", "SM", "CR", "DX", "MG", "IO", "PX", "OP")
#: Why frames without positions are no volume.
NO_POSITIONS = "without positions, so they are time points or single pictures, not slices"

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a file.

    Attributes
    ----------
    header : Header
        Of its file.
    index : int
        Its number in the file, from 0.
    place : tuple of float or None
        Position x, y, z of its first pixel, in mm.
    axes : tuple of float or None
        Directions in which columns and rows count up, six numbers.
    spacing : tuple of float or None
        Distance of rows and of columns in mm.
    thickness : float or None
        Distance of slices as the header says, or their thickness, in mm.
    between : float or None
        Distance of slices as the header says, in mm.
    slope, intercept : float
        From stored values to the scan's.
    stack : str
        Stack ID of an enhanced object.
    keys : tuple of (str, str)
        What tells it apart from others of the same place, as (name, value).
    number : float
        By which frames without positions are sorted.
    segment : int
        Number of the segment it belongs to, 0 where it is no segmentation.
    tile : tuple of int or None
        First row, first column, rows and columns of its part of a mosaic.
    refusal : str
        Why it cannot be read; empty where it can.
    lookup : Lookup or None
        Table from stored values to the scan's, in place of slope and intercept.
    """

    header: Header
    index: int
    place: tuple[float, ...] | None
    axes: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    between: float | None = None
    slope: float = 1.0
    intercept: float = 0.0
    stack: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    number: float = 0.0
    segment: int = 0
    tile: tuple[int, int, int, int] | None = None
    refusal: str = ""
    lookup: Lookup | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.tile[2:] if self.tile else (self.header.rows, self.header.cols)


def no_volume(header: Header, why: str) -> str:
    """Return the refusal of an object whose frames are not the slices of a volume."""
    return (
        f"{Path(header.file).name} holds {header.frames} frames {why}, but a volume or a single "
        "picture is expected; export the frame to look at to its own file."
    )


def rescale_of(item: Any, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Return slope and intercept of an item, or others where it has neither."""
    slope, intercept = number(item, "RescaleSlope"), number(item, "RescaleIntercept")
    if slope is None and intercept is None:
        return otherwise
    return (1.0 if slope is None else slope) or 1.0, intercept or 0.0


def place_of(item: Any) -> tuple[float, ...] | None:
    """Return the position x, y, z of a frame's first pixel, None where the header has none."""
    place = numbers(item, "ImagePositionPatient")
    return place if len(place) == 3 else None


def axes_in(item: Any) -> tuple[float, ...] | None:
    """Return two directions of length 1, None where the header has none at a right angle."""
    axes = np.array(numbers(item, "ImageOrientationPatient"))
    if axes.size != 6:
        return None
    lengths = np.linalg.norm(axes.reshape(2, 3), axis=1)
    if lengths.min() < 0.5 or abs(axes[:3] @ axes[3:]) > RIGHT_ANGLE * lengths.prod():
        return None
    return tuple((axes.reshape(2, 3) / lengths[:, None]).ravel().tolist())


def spacing_of(item: Any) -> tuple[float, float] | None:
    """Return the distance of rows and of columns in mm, None where the header has none."""
    spacing = numbers(item, "PixelSpacing")
    return (spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None


def thickness_of(item: Any) -> float | None:
    """Return the distance of slices, or else their thickness, in mm."""
    return between_of(item) or abs(number(item, "SliceThickness") or 0.0) or None


def between_of(item: Any) -> float | None:
    """Return the distance of slices in mm, None where the header has none."""
    # Some vendors write the distance of slices with a sign.
    return abs(number(item, "SpacingBetweenSlices") or 0.0) or None
