"""DICOM segmentations: segments as label values with their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import broken, number, quiet_pydicom, text, value
from napari_dino_uad.core.scans.dicom.frame import Frame
from napari_dino_uad.core.scans.dicom.grouping import axes_of, places_along
from napari_dino_uad.core.scans.dicom.series import Series
from napari_dino_uad.core.scans.dicom.values import each_frame
from napari_dino_uad.core.scans.geometry import Volume
from napari_dino_uad.core.scans.stack import stack_slices, steps_between, volume_of_stack

__all__ = ["read_segments", "segments_of"]

# Rounding of positions, in mm.
_SAME_PLACE = 1e-2


def read_segments(series: Series, name: str, path: Path | None = None) -> Volume:
    """Read a segmentation as labels.

    Parameters
    ----------
    series : Series
        Of frames that belong to segments, sorted by position.
    name, path
        As `series_volume` takes them.

    Returns
    -------
    Volume
        Each voxel holds the number of its segment, 0 where there is none. Slices without a frame
        are empty, as the standard says.

    Raises
    ------
    InputError
        If its frames have no positions, or their distances are uneven.
    """
    frames = list(series.frames)
    if any(frame.place is None for frame in frames) or frames[0].spacing is None:
        raise InputError(
            f"Expected a segmentation whose frames have positions and pixel spacing, got "
            f"{series.label} without; export it with its geometry."
        )
    names, kind, most = segments_of(Path(frames[0].header.file))
    index, origins = _grid(frames, series.label)
    labels, overlaps = _labels(frames, index, len(origins), most if kind == "FRACTIONAL" else 0)
    row_mm, col_mm = frames[0].spacing
    thickness = frames[0].thickness or 1.0
    stack = stack_slices(
        labels,
        origins,
        axes_of(frames[0]),
        (col_mm, row_mm),
        series.label,
        thickness,
        labels=True,
    )
    notices = list(series.notices)
    if names:
        listed = ", ".join(f"{number} {label}" for number, label in names[:20])
        notices.append(f"A segmentation, opened as labels: {listed}")
    if kind == "FRACTIONAL":
        notices.append("The segmentation is fractional: a segment is where its share is above half")
    if overlaps:
        notices.append(f"Segments overlap in {overlaps} voxels, which have the higher number")
    volume = volume_of_stack(
        replace(stack, notices=()),
        name,
        path,
        modality=series.modality or None,
        allow_constant=True,
        notices=tuple(notices),
    )
    return replace(volume, label_names=names, series=series)


def segments_of(file: Path) -> tuple[tuple[tuple[int, str], ...], str, float]:
    """Return the names of segments, the kind of segmentation and its largest value."""
    from pydicom import dcmread

    tags = ["SegmentSequence", "SegmentationType", "MaximumFractionalValue"]
    try:
        with quiet_pydicom():
            dataset = dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
            found = [
                (int(number(item, "SegmentNumber") or 0), text(item, "SegmentLabel"))
                for item in value(dataset, "SegmentSequence") or ()
            ]
            most = number(dataset, "MaximumFractionalValue") or 255.0
            return tuple(found), text(dataset, "SegmentationType"), most
    except broken():
        return (), "", 255.0


def _grid(frames: Sequence[Frame], label: str) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find the slice of each frame on the even grid through all of them."""
    along = places_along(frames)
    places = np.array([frame.place for frame in frames])
    order = np.argsort(along, kind="stable")
    fresh = np.r_[True, np.diff(along[order]) > _SAME_PLACE]
    distinct = order[fresh]
    if len(distinct) == 1:
        return np.zeros(len(frames), dtype=np.intp), places[distinct]
    rising = along[distinct] - along[distinct[0]]
    # Frames are left out where a segment is empty, so the header's own distance comes first.
    gaps = np.diff(rising)
    step = frames[0].between or 0.0
    if not step or np.abs(gaps - np.round(gaps / step) * step).max() > 0.05 * step:
        step = float(gaps.min())
    steps = np.round(rising / step)
    if steps[-1] > 10_000 or np.abs(rising - steps * step).max() > 0.1 * step:
        steps, step, is_even = steps_between(rising)
        if not is_even:
            raise InputError(
                f"Expected a segmentation of evenly spaced slices, got {label} with distances of "
                f"{gaps.min():.2f} to {gaps.max():.2f} mm; export it on the grid of its scan."
            )
    count = int(steps[-1])
    first, last = places[distinct[0]], places[distinct[-1]]
    origins = first + np.arange(count + 1)[:, None] * (last - first) / count
    slices = np.empty(len(frames), dtype=np.intp)
    slices[order] = steps.astype(np.intp)[np.cumsum(fresh) - 1]
    return slices, origins


def _labels(
    frames: Sequence[Frame], index: NDArray[np.intp], count: int, most: float
) -> tuple[NDArray[np.float32], int]:
    """Write each frame's segment into its slice; count the voxels of several segments."""
    labels = np.zeros((count, *frames[0].shape), dtype=np.float32)
    overlaps = 0
    order = sorted(range(len(frames)), key=lambda one: frames[one].segment)
    for one, pixels in each_frame([frames[at] for at in order]):
        at = order[one]
        inside = pixels > most / 2
        part = labels[index[at]]
        overlaps += int((part[inside] > 0).sum())
        part[inside] = frames[at].segment
    return labels, overlaps
