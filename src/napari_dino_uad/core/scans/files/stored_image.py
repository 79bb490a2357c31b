"""What a decoder hands on: voxels as the file stores them, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.files.nifti_forms import NiftiForms

__all__ = ["MM_OF_UNITS", "StoredImage", "choose_volume", "grey_values"]

#: Millimetres of one unit of length, by the names that headers and programs give it.
MM_OF_UNITS = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-6),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
}


@dataclass(frozen=True)
class StoredImage:
    """An image in the order of its file.

    Attributes
    ----------
    values : ndarray, (z, y, x)
        One real number per voxel; of a picture in colour its luminance.
    spacing, origin, direction : tuple of float
        Of 3, 3 and 9 numbers, in SimpleITK's order x, y, z; in mm.
    dimension : int
        2 for a single image without a third axis.
    spacing_known : bool
        Whether the file has the size of a voxel.
    notices : tuple of str
        What the user should know of how it was read, a sentence each.
    forms : NiftiForms or None
        The geometry as it stands in the header of a NIfTI file.
    modality : str or None
        DICOM modality, where the header has it.
    window : tuple of float or None
        DICOM window (centre, width), where the header has it.
    colour : ndarray of uint8, (1, y, x, 3), or None
        Of a single picture in colour.
    lossy : str
        Kind of compression that lost detail, such as "JPEG"; empty for none.
    """

    values: NDArray[Any]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    dimension: int = 3
    spacing_known: bool = True
    notices: tuple[str, ...] = ()
    forms: NiftiForms | None = None
    modality: str | None = None
    window: tuple[float, float] | None = None
    colour: NDArray[np.uint8] | None = None
    lossy: str = ""


def choose_volume(name: str, count: int, volume: int | None) -> tuple[int, tuple[str, ...]]:
    """Choose one of the volumes of a file.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    count : int
        How many volumes it has.
    volume : int or None
        Which one, counted from 1; None for the first.

    Returns
    -------
    index : int
        Counted from 0.
    notices : tuple of str
        That there are others, where none was chosen.

    Raises
    ------
    InputError
        If there is no such volume.
    """
    if volume is None:
        other = f"{name} has {count} volumes; volume 1 is read, choose another one if needed."
        return 0, (other,) if count > 1 else ()
    if not 1 <= volume <= count:
        have = f"volumes 1 to {count}" if count > 1 else "a single volume"
        raise InputError(f"{name} has {have}, got volume {volume}; choose one that is there.")
    return volume - 1, ()


def grey_values(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Take one channel of a grey image that is stored in colour; refuse real colour.

    Parameters
    ----------
    values : ndarray, (..., channels)
        The last axis holds the values of one voxel.
    name : str
        Of the file, for messages.

    Raises
    ------
    InputError
        If the image is in colour, or has a vector in every voxel.
    """
    count = values.shape[-1]
    if count == 1:
        return values[..., 0]
    # Grey with opacity has two channels, colour three or, with opacity, four.
    grey = values.dtype == np.uint8 and count <= 4
    colours: Sequence[NDArray[Any]] = (
        [values[..., channel] for channel in range(1 if count == 2 else 3)] if grey else []
    )
    if not grey or not all(np.array_equal(colours[0], colour) for colour in colours[1:]):
        raise InputError(
            f"{name} has {count} values in every voxel (a colour image or a vector field), but "
            "one grey value is expected; convert it to greyscale first."
        )
    return colours[0]
