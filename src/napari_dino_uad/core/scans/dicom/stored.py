"""The stored values of DICOM frames, as they stand in the file or decoded."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import broken, quiet_pydicom
from napari_dino_uad.core.scans.dicom.headers import Header
from napari_dino_uad.core.scans.dicom.pixels import check_dicom
from napari_dino_uad.core.scans.files.image_files import as_grey

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["DEFLATED", "NATIVE", "stored_values"]

# Implicit, explicit and big endian: pixels stand in the file as they are.
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_BIG_ENDIAN = "1.2.840.10008.1.2.2"

DEFLATED = "1.2.840.10008.1.2.1.99"

# An object of these frames decodes without the header of what it was.
_PLAIN_OBJECT = "1.2.840.10008.5.1.4.1.1.7.3"
_PIXEL_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)


def stored_values(header: Header, indices: Sequence[int]) -> Iterable[NDArray[Any]]:
    """Return the stored values of frames of one file, each (rows, cols)."""
    if header.is_colour:
        return _colours(header, indices)
    if header.syntax in NATIVE and (header.pixel_type or header.bits in (1, 8, 16, 32)):
        return _native(header, indices)
    whole = _decoded(header)
    return [whole[index] for index in indices]


def _native(header: Header, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    size = header.rows * header.cols
    bits = {"f4": 32, "f8": 64}.get(header.pixel_type, header.bits)
    with Path(header.file).open("rb") as file:
        file.seek(header.offset)
        # Behind the tag an explicit element has its type, two empty bytes and its length.
        head = file.read(12)
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        start = header.offset + (12 if explicit else 8)
        order = ">" if header.syntax == _BIG_ENDIAN else "<"
        [length] = struct.unpack(
            f"{order}I", head[start - header.offset - 4 : start - header.offset]
        )
        expected = (header.frames * size * bits + 7) // 8
        # An odd number of bytes is padded to an even one.
        if length not in (expected, expected + expected % 2):
            raise _damaged(header)
        if os.fstat(file.fileno()).st_size != start + length:
            # More elements, which are rare here, or a file that was cut or grew.
            check_dicom(Path(header.file), Path(header.file).name)
        for index in indices:
            first, last = index * size * bits, (index + 1) * size * bits
            file.seek(start + first // 8)
            data = file.read((last + 7) // 8 - first // 8)
            if len(data) < (last + 7) // 8 - first // 8:
                raise _damaged(header)
            if bits == 1:
                pixels = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
                pixels = pixels[first % 8 : first % 8 + size]
            else:
                pixels = _typed(data, header)
            yield pixels.reshape(header.rows, header.cols)


def _typed(data: bytes, header: Header) -> NDArray[Any]:
    order = ">" if header.syntax == _BIG_ENDIAN else "<"
    if header.pixel_type:
        return np.frombuffer(data, order + header.pixel_type)
    kind = "i" if header.signed else "u"
    pixels = np.frombuffer(data, f"{order}{kind}{header.bits // 8}")
    unused = header.bits - header.bits_stored
    if unused:
        # Bits above those of the image may hold an overlay.
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
        pixels = (pixels << unused) >> unused
    return pixels


def _decoded(header: Header) -> NDArray[Any]:
    """Decode all frames of a compressed file, stored values (frames, rows, cols)."""
    import SimpleITK as sitk
    from pydicom.pixels.utils import pixel_array

    try:
        with quiet_pydicom(), tempfile.TemporaryDirectory(prefix="napari-dino-uad-") as folder:
            plain = Path(folder) / "frames.dcm"
            _write_plain(header, plain)
            try:
                whole = sitk.GetArrayFromImage(
                    sitk.ReadImage(os.fspath(plain), imageIO="GDCMImageIO")
                )
            except RuntimeError:
                # GDCM lacks some kinds, such as run lengths of an odd number of pixels.
                whole = pixel_array(plain, raw=True)
    except InputError:
        raise
    except broken() as error:
        raise _damaged(header) from error
    whole = whole.reshape(-1, *whole.shape[-2:])
    if whole.shape != (header.frames, header.rows, header.cols):
        raise _damaged(header)
    return whole


def _write_plain(header: Header, target: Path) -> None:
    """Write a file's pixels alone: GDCM then returns what is stored, neither scaled nor placed."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    source = dcmread(header.file, force=True)
    plain: Dataset = Dataset()
    for key in _PIXEL_TAGS:
        if key in source:
            plain[key] = source[key]
    if "PixelData" not in plain:
        raise _damaged(header)
    plain.PhotometricInterpretation = "MONOCHROME2"
    plain.NumberOfFrames = header.frames
    plain.SOPClassUID, plain.SOPInstanceUID = _PLAIN_OBJECT, generate_uid()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = UID(header.syntax)
    plain.save_as(target, enforce_file_format=True)


def _colours(header: Header, indices: Sequence[int]) -> list[NDArray[Any]]:
    """Read a picture stored in colour; `as_grey` refuses it where it is not grey."""
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(header.file, imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise _damaged(header) from error
    grey = sitk.GetArrayFromImage(as_grey(image, Path(header.file).name))
    grey = grey.reshape(-1, *grey.shape[-2:])
    return [grey[index] for index in indices]


def _damaged(header: Header) -> InputError:
    return InputError(
        f"{Path(header.file).name} is truncated or damaged: whole DICOM pixels of a known kind are "
        "expected; export it again, uncompressed."
    )
