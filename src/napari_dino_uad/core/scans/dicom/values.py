"""The values of DICOM frames: decoded, inverted and scaled as each frame's header says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.dicom.frame import Frame
from napari_dino_uad.core.scans.dicom.headers import Header
from napari_dino_uad.core.scans.dicom.pixels import check_dicom
from napari_dino_uad.core.scans.dicom.stored import DEFLATED, NATIVE, stored_values

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["each_frame", "read_frames"]

# Classic CT and PET: GDCM applies slope and intercept of each file.
_SCALED_BY_GDCM = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.128")


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
        if not checked and header.syntax not in NATIVE and not header.pixel_type:
            check_dicom(Path(header.file), Path(header.file).name)
        if len(places) == 1 and (image := _as_gdcm_reads(frames[places[0]], reader)) is not None:
            # A view, which lives as long as its image.
            yield places[0], sitk.GetArrayViewFromImage(image).reshape(header.rows, header.cols)
            continue
        stored = stored_values(header, [frames[place].index for place in places])
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
    compressed = header.syntax not in (*NATIVE, DEFLATED)
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
