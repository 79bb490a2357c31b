"""The values of DICOM frames: decoded, inverted and scaled as each frame's header says."""

from __future__ import annotations

import os
import struct
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import broken, quiet_pydicom
from napari_dino_uad.core.scans.dicom.frame import Frame
from napari_dino_uad.core.scans.dicom.headers import Header
from napari_dino_uad.core.scans.dicom.pixels import check_dicom
from napari_dino_uad.core.scans.files.image_files import as_grey

if TYPE_CHECKING:
    import SimpleITK as sitk
    from pydicom.dataset import Dataset

__all__ = ["each_frame", "read_frames"]

# Implicit, explicit and big endian: pixels stand in the file as they are.
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_DEFLATED = "1.2.840.10008.1.2.1.99"

# Classic CT and PET: GDCM applies slope and intercept of each file.
_SCALED_BY_GDCM = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.128")

# An object of these frames decodes without the header of what it was.
_PLAIN_OBJECT = "1.2.840.10008.5.1.4.1.1.7.3"
_PIXEL_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)


def read_frames(frames: Sequence[Frame]) -> NDArray[np.float32]:
    """Read the values of frames of one size.

    Parameters
    ----------
    frames : sequence of Frame
        In any order, of any number of files; each file is read once.

    Returns
    -------
    ndarray of float32, (frames, rows, cols)
        Each frame by its own slope and intercept.

    Raises
    ------
    InputError
        If pixels are missing, damaged or in colour.
    """
    checked = _is_one_series(frames)
    if checked:
        whole = _as_one_series(frames)
        if whole is not None:
            return whole
    out = np.empty((len(frames), *frames[0].shape), dtype=np.float32)
    for place, pixels in each_frame(frames, checked=checked):
        out[place] = pixels
    return out


def each_frame(
    frames: Sequence[Frame], *, checked: bool = False
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read frames one by one, those of each file together.

    Parameters
    ----------
    frames : sequence of Frame
        In any order, of any number of files.
    checked : bool
        Whether their files are known to be whole.

    Yields
    ------
    place : int
        Of the frame in the sequence.
    pixels : ndarray, (rows, cols)

    Raises
    ------
    InputError
        As `read_frames` does.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    by_file: dict[str, list[int]] = defaultdict(list)
    for place, frame in enumerate(frames):
        by_file[frame.header.file].append(place)
    for places in by_file.values():
        header = frames[places[0]].header
        if not checked and header.syntax not in _NATIVE and not header.pixel_type:
            check_dicom(Path(header.file), Path(header.file).name)
        if len(places) == 1 and (image := _as_gdcm_reads(frames[places[0]], reader)) is not None:
            # A view, which lives as long as its image.
            yield places[0], sitk.GetArrayViewFromImage(image).reshape(header.rows, header.cols)
            continue
        stored = _stored(header, [frames[place].index for place in places])
        for place, pixels in zip(places, stored, strict=True):
            frame = frames[place]
            if frame.tile:
                row, col, rows, cols = frame.tile
                pixels = pixels[row : row + rows, col : col + cols]
            if frame.lookup is not None:
                pixels = frame.lookup.apply(pixels)
                if header.photometric == "MONOCHROME1":
                    pixels = int(frame.lookup.table.max()) - pixels.astype(np.int64)
                yield place, pixels
                continue
            if header.photometric == "MONOCHROME1" and not header.pixel_type:
                pixels = _inverted(pixels, header)
            if (frame.slope, frame.intercept) != (1.0, 0.0):
                pixels = pixels * np.float64(frame.slope) + frame.intercept
            yield place, pixels


def _is_one_series(frames: Sequence[Frame]) -> bool:
    """Return whether GDCM may read compressed slices in one go: all are scaled alike."""
    alike = {
        (one.slope, one.intercept, one.header.bits, one.header.bits_stored, one.header.signed)
        for one in frames
    }
    return len(frames) > 1 and len(alike) == 1 and all(_is_scaled_by_gdcm(one) for one in frames)


def _as_one_series(frames: Sequence[Frame]) -> NDArray[np.float32] | None:
    """Check all files, and let GDCM read them in one go; None where it fails."""
    import SimpleITK as sitk

    for one in frames:
        check_dicom(Path(one.header.file), Path(one.header.file).name)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([one.header.file for one in frames])
    try:
        image = reader.Execute()
    except RuntimeError:
        return None
    values = sitk.GetArrayViewFromImage(image)
    shape = (len(frames), *frames[0].shape)
    return values.astype(np.float32) if values.shape == shape else None


def _is_scaled_by_gdcm(frame: Frame) -> bool:
    """Return whether GDCM decodes and scales a compressed slice as the standard says."""
    header = frame.header
    scaled = (frame.slope, frame.intercept) == (1.0, 0.0) or header.sop_class in _SCALED_BY_GDCM
    plain = header.photometric == "MONOCHROME2" and header.frames == 1 and frame.tile is None
    compressed = header.syntax not in (*_NATIVE, _DEFLATED)
    return compressed and scaled and plain and not frame.segment and frame.lookup is None


def _as_gdcm_reads(frame: Frame, reader: sitk.ImageFileReader) -> sitk.Image | None:
    """Let GDCM read a compressed slice, None where it does not do so by the standard.

    This saves the file of pixels alone that other compressed frames are decoded from.
    """
    header = frame.header
    if not _is_scaled_by_gdcm(frame):
        return None
    reader.SetFileName(header.file)
    try:
        image = reader.Execute()
    except RuntimeError:
        return None
    return image if image.GetNumberOfPixels() == header.rows * header.cols else None


def _inverted(pixels: NDArray[Any], header: Header) -> NDArray[Any]:
    top = -1 if header.signed else 2**header.bits_stored - 1
    return top - pixels.astype(np.int64)


def _stored(header: Header, indices: Sequence[int]) -> Iterable[NDArray[Any]]:
    """Return the stored values of frames of one file, each (rows, cols)."""
    if header.is_colour:
        return _colours(header, indices)
    if header.syntax in _NATIVE and (header.pixel_type or header.bits in (1, 8, 16, 32)):
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
