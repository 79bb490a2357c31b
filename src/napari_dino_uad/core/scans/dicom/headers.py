"""The header of one DICOM file: what reading its frames needs, and nothing of its pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import broken, number, numbers, text
from napari_dino_uad.core.scans.formats import DICOM_SUFFIXES
from napari_dino_uad.core.scans.lossy import dicom_loss

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Header", "NoImageError", "is_dicom", "read_header"]

# Only these are parsed: private headers and icons would take most of the time.
_TAGS = [
    *(0x00020010, 0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080020, 0x00080031),
    *(0x00080032, 0x00080060, 0x0008103E, 0x00180050, 0x00180081, 0x00180086, 0x00180088),
    *(0x00181060, 0x00189087, 0x00189089, 0x00200010, 0x0020000D, 0x0020000E, 0x00200012),
    *(0x00200013, 0x00200032, 0x00200037, 0x00200100, 0x00201041, 0x00209222, 0x00280002),
    *(0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280034, 0x00280100),
    *(0x00280101, 0x00280103, 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00289110),
    *(
        0x00540010,
        0x00540020,
        0x00540030,
        0x00540050,
        0x00540070,
        0x00540022,
        0x00540080,
        0x00620001,
        0x00620002,
        0x0062000E,
        0x3004000C,
        0x3004000E,
    ),
    *(0x52009229, 0x52009230, 0x00181164, 0x00182010, 0x00280009, 0x00283000, 0x00282110),
    # Private: mosaics and b-values of Siemens, grids of UIH, b-values of GE and Philips.
    *(0x0019100A, 0x0019100C, 0x00291010, 0x00291020, 0x00431039, 0x20011003, 0x00651009),
    *(0x00651050, 0x00651051),
]

_PIXEL_TYPES = {0x7FE00008: "f4", 0x7FE00009: "f8", 0x7FE00010: ""}


class NoImageError(InputError):
    """A sound DICOM file of another kind, such as a report."""


@dataclass(frozen=True)
class Header:
    """What the header of one file says of its pixels and of the series it belongs to.

    Attributes
    ----------
    file : str
        Path of the file.
    uid, sop_class, sop_uid : str
        UIDs of the series, the kind of object and the object.
    modality, description, date : str
        From the header; the date as year-month-day.
    image_type : tuple of str
    number : float
        Instance number, 0 where there is none.
    rows, cols, frames : int
    samples : int
        1 for grey, 3 for colour.
    photometric : str
    bits, bits_stored : int
    signed : bool
    syntax : str
        UID of the transfer syntax.
    offset : int
        Where the element of the pixel data begins, in bytes.
    pixel_type : str
        "f4" or "f8" of floating pixel data; empty for integers.
    window : tuple of float or None
        (centre, width).
    lossy : str
        Kind of compression that lost detail; empty for none.
    """

    file: str
    uid: str
    sop_class: str
    sop_uid: str
    modality: str
    description: str
    date: str
    image_type: tuple[str, ...]
    number: float
    rows: int
    cols: int
    frames: int
    samples: int
    photometric: str
    bits: int
    bits_stored: int
    signed: bool
    syntax: str
    offset: int
    pixel_type: str
    window: tuple[float, float] | None
    lossy: str = ""

    @property
    def is_colour(self) -> bool:
        """Whether a pixel is a colour or the index of one."""
        return self.samples > 1 or self.photometric == "PALETTE COLOR"


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its suffix or, without one, by its content."""
    if path.name.lower().endswith(DICOM_SUFFIXES):
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path) -> tuple[Header, Dataset]:
    """Read the header of a file that holds an image.

    Parameters
    ----------
    path : Path
        A DICOM file. Call it inside `quiet_pydicom`.

    Returns
    -------
    header : Header
    dataset : pydicom.Dataset
        The elements that say where frames lie.

    Raises
    ------
    InputError
        If the file is damaged or holds no image.
    """
    from pydicom import dcmread

    try:
        with path.open("rb") as file:
            dataset = dcmread(file, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
            if not syntax:
                big, explicit = (
                    not dataset.original_encoding[1],
                    not dataset.original_encoding[0],
                )
                syntax = f"1.2.840.10008.1.2{'.2' if big else '.1' if explicit else ''}"
            offset = file.tell()
            tag = file.read(4)
        if not number(dataset, "Rows") or not number(dataset, "Columns"):
            raise _no_image(path, dataset)
        return _header(path, dataset, syntax, offset, tag), dataset
    except broken() as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path.name} is damaged, but a whole DICOM file is expected; export it again."
        ) from error


def _header(path: Path, dataset: Dataset, syntax: str, offset: int, tag: bytes) -> Header:
    pixel_type = ""
    if syntax != "1.2.840.10008.1.2.1.99":
        order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
        group, element = struct.unpack(order + "HH", tag.ljust(4, b"\0"))
        if group << 16 | element not in _PIXEL_TYPES:
            raise _no_image(path, dataset)
        pixel_type = _PIXEL_TYPES[group << 16 | element]
    date = text(dataset, "StudyDate")
    if len(date) == 8 and date.isdigit():
        date = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    bits = int(number(dataset, "BitsAllocated") or 16)
    return Header(
        file=str(path),
        uid=text(dataset, "SeriesInstanceUID"),
        sop_class=text(dataset, "SOPClassUID"),
        sop_uid=text(dataset, "SOPInstanceUID"),
        modality=text(dataset, "Modality"),
        description=text(dataset, "SeriesDescription"),
        date=date,
        image_type=tuple(text(dataset, "ImageType").split("\\")),
        number=number(dataset, "InstanceNumber") or 0.0,
        rows=int(number(dataset, "Rows") or 0),
        cols=int(number(dataset, "Columns") or 0),
        frames=max(1, int(number(dataset, "NumberOfFrames") or 1)),
        samples=int(number(dataset, "SamplesPerPixel") or 1),
        photometric=text(dataset, "PhotometricInterpretation"),
        bits=bits,
        bits_stored=min(bits, int(number(dataset, "BitsStored") or bits)),
        signed=bool(number(dataset, "PixelRepresentation")),
        syntax=syntax,
        offset=offset,
        pixel_type=pixel_type,
        window=_window(dataset),
        lossy=dicom_loss(syntax, text(dataset, "LossyImageCompression")),
    )


def _no_image(path: Path, dataset: Dataset) -> InputError:
    from pydicom.uid import UID

    uid = UID(text(dataset, "SOPClassUID"))
    # What is no UID is damage, of any length.
    kind = uid.name if uid.is_valid else ""
    if not kind and not dataset.file_meta:
        return InputError(
            f"{path.name} cannot be read as an image; expected a whole DICOM file, got other "
            "content; choose another file."
        )
    # An image without pixels was cut off.
    error = InputError if "Image Storage" in kind or not kind else NoImageError
    return error(
        f"{path.name} holds no image{f' ({kind})' if kind else ''}, but a DICOM image is "
        "expected; choose another file."
    )


def _window(dataset: Dataset) -> tuple[float, float] | None:
    centre, width = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    return (centre[0], width[0]) if centre and width and width[0] > 0 else None
