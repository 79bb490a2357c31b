"""The DICOM series a scan was read from: its headers, its planes, and arrays on its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import broken, quiet_pydicom
from napari_dino_uad.core.scans.dicom.grouping import axes_of
from napari_dino_uad.core.scans.file_order import to_file_grid

if TYPE_CHECKING:
    import SimpleITK as sitk
    from pydicom.dataset import Dataset

    from napari_dino_uad.core.scans.dicom.frame import Frame
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["Source", "on_frames", "read_source", "why_no_dicom"]

# What every DICOM object must have, though it may be empty. Old or anonymised files lack some.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip

# A frame farther from its slice of the grid than this share of a step is not that slice.
_OFF = 0.02


@dataclass(frozen=True)
class Source:
    """A DICOM series as highdicom needs it.

    Attributes
    ----------
    images : list of Dataset
        Headers of the files, without pixels: one for each frame, or a single one of many frames.
    frames : tuple of Frame
        Sorted by position.
    """

    images: list[Dataset]
    frames: tuple[Frame, ...]

    def planes(self) -> dict[str, Any]:
        """Return position, orientation and size of the frames' pixels, for highdicom."""
        import highdicom as hd

        first = self.frames[0]
        system = hd.CoordinateSystemNames.PATIENT
        row_mm, col_mm = first.spacing or (1.0, 1.0)
        between = _between_slices(self.frames)
        return {
            "plane_positions": [
                hd.PlanePositionSequence(system, _short(frame.place)) for frame in self.frames
            ],
            "plane_orientation": hd.PlaneOrientationSequence(system, _short(first.axes)),
            "pixel_measures": hd.PixelMeasuresSequence(
                pixel_spacing=_short((row_mm, col_mm)),
                slice_thickness=_short((_thickness(self.frames),))[0],
                spacing_between_slices=None if between is None else _short((between,))[0],
            ),
        }


def why_no_dicom(volume: Volume | None) -> str:
    """Return why results of a scan cannot be written as DICOM; empty if they can."""
    series = None if volume is None else volume.series
    if series is None:
        return "DICOM results need a scan that was opened from a DICOM series."
    if any(frame.place is None or frame.axes is None for frame in series.frames):
        return "The slices of this DICOM series have no positions; export NIfTI instead."
    if series.frames[0].spacing is None:
        return "This DICOM series has no pixel spacing; export NIfTI instead."
    if any(frame.tile for frame in series.frames):
        return "DICOM results cannot refer to the tiles of a mosaic; export NIfTI instead."
    files = {frame.header.file for frame in series.frames}
    if len(files) > 1 and any(frame.header.frames > 1 for frame in series.frames):
        return "DICOM results need one multi-frame file, but this series has several."
    if find_spec("highdicom") is None:
        return 'DICOM results need highdicom: run pip install "napari-dino-uad[dicom]".'
    return ""


def read_source(volume: Volume) -> Source:
    """Read the headers of the series that a scan was read from.

    Parameters
    ----------
    volume : Volume
        One that `why_no_dicom` has nothing against.

    Raises
    ------
    InputError
        If there is no such series, or a file of it is missing or damaged.
    """
    why = why_no_dicom(volume)
    if why or volume.series is None:
        raise InputError(why)
    frames = volume.series.frames
    files = list(dict.fromkeys(frame.header.file for frame in frames))
    images = [_read(Path(file), frames) for file in files]
    for image in images:
        # Careless programs give each slice a study of its own.
        for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(image, name, images[0].get(name))
    return Source(images, frames)


def _between_slices(frames: Sequence[Frame]) -> float | None:
    """Return the usual step between slices in mm; None for a single one."""
    gaps = np.diff([_along(frame, frames[0]) for frame in frames])
    return float(np.median(gaps)) if len(gaps) else None


def _thickness(frames: Sequence[Frame]) -> float:
    """Return the thickness of a slice in mm; where no header has it, the step between slices."""
    return frames[0].thickness or _between_slices(frames) or 1.0


def _read(file: Path, frames: Sequence[Frame]) -> Dataset:
    """Read a header, and add what it lacks but the standard asks for."""
    first = frames[0]
    from pydicom import dcmread
    from pydicom.uid import generate_uid

    try:
        with quiet_pydicom():
            image = dcmread(file, stop_before_pixels=True)
    except broken() as error:
        raise InputError(
            f"The DICOM file {file.name} of this scan cannot be read any more; put it back and "
            "export again."
        ) from error
    for name in _MAY_BE_EMPTY:
        if name not in image:
            setattr(image, name, "")
    if not image.get("FrameOfReferenceUID"):
        image.FrameOfReferenceUID = generate_uid(entropy_srcs=[first.header.uid])
    if "PerFrameFunctionalGroupsSequence" in image:
        _share_orientation(image, first)
    else:
        # Slices of one series may differ in the last digit.
        image.ImageOrientationPatient = list(_short(first.axes))
        if not image.get("SliceThickness"):
            # highdicom reads it, and some scanners leave it out.
            image.SliceThickness = _short((_thickness(frames),))[0]
    return image


def _share_orientation(image: Dataset, first: Frame) -> None:
    """State the orientation and pixel size once for all frames: highdicom looks for them there."""
    from pydicom.dataset import Dataset

    shared = image.get("SharedFunctionalGroupsSequence") or [Dataset()]
    own = image.PerFrameFunctionalGroupsSequence[first.index]
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if name not in shared[0] and name in own:
            setattr(shared[0], name, own[name].value)
    image.SharedFunctionalGroupsSequence = shared


def on_frames(array: NDArray[Any], volume: Volume, frames: Sequence[Frame]) -> NDArray[Any]:
    """Bring an array from the canonical grid onto the frames of the scan's series.

    Slices of the file's grid are taken as they are. Frames that lie between them, as those of
    unevenly spaced slices do, are interpolated; labels are those of the nearest voxel.

    Parameters
    ----------
    array : ndarray, (S, P, L)
        Labels of an integer type, or floating values.
    volume : Volume
        The scan.
    frames : sequence of Frame
        Of the scan's series, sorted by position.

    Returns
    -------
    ndarray, (frames, rows, cols)
    """
    import SimpleITK as sitk

    image = to_file_grid(array, volume)
    stored = sitk.GetArrayViewFromImage(image)
    origin, spacing = np.array(image.GetOrigin()), image.GetSpacing()
    line = np.reshape(image.GetDirection(), (3, 3))[:, 2]
    out = np.empty((len(frames), *frames[0].shape), dtype=array.dtype)
    for number, frame in enumerate(frames):
        offset = np.array(frame.place) - origin
        step = round(float(offset @ line) / spacing[2])
        astray = np.linalg.norm(offset - step * spacing[2] * line)
        fits = 0 <= step < len(stored) and out.shape[1:] == stored.shape[1:]
        if fits and astray <= _OFF * spacing[2]:
            out[number] = stored[step]
        else:
            out[number] = _between(image, frame)
    return out


def _between(image: sitk.Image, frame: Frame) -> NDArray[Any]:
    """Sample an image in the plane of a frame, (rows, cols)."""
    import SimpleITK as sitk

    rows, cols = frame.shape
    row_mm, col_mm = frame.spacing or (1.0, 1.0)
    plane = sitk.ResampleImageFilter()
    plane.SetSize((cols, rows, 1))
    plane.SetOutputSpacing((col_mm, row_mm, 1.0))
    plane.SetOutputOrigin(frame.place)
    plane.SetOutputDirection(axes_of(frame).ravel().tolist())
    floating = image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64)
    plane.SetInterpolator(sitk.sitkLinear if floating else sitk.sitkNearestNeighbor)
    # Frames at the ends may lie half a step outside.
    plane.UseNearestNeighborExtrapolatorOn()
    return np.asarray(sitk.GetArrayFromImage(plane.Execute(image))[0])


def _along(frame: Frame, first: Frame) -> float:
    return float(np.array(frame.place) @ axes_of(first)[:, 2])


def _short(values: Sequence[float] | None) -> tuple[float, ...]:
    """Return values that fit the 16 characters of a decimal string."""
    return tuple(float(f"{value:.8g}") + 0.0 for value in values or ())
