"""Reading one DICOM series: its frames become a volume, a picture or labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_grid, check_reading
from napari_dino_uad.core.scans.dicom.frame import LABEL_MAP, Frame
from napari_dino_uad.core.scans.dicom.grouping import axes_of, places_along
from napari_dino_uad.core.scans.dicom.segments import read_segments, segments_of
from napari_dino_uad.core.scans.dicom.series import Series
from napari_dino_uad.core.scans.dicom.values import read_frames
from napari_dino_uad.core.scans.geometry import Volume
from napari_dino_uad.core.scans.lossy import lossy_notice
from napari_dino_uad.core.scans.stack import stack_slices, volume_of_stack

__all__ = ["series_volume"]

_SAME_PLACE = 1e-3


def series_volume(
    series: Series,
    name: str,
    path: Path | None = None,
    *,
    allow_constant: bool = False,
    labels: bool = False,
) -> Volume:
    """Read the frames of a series and lay them on canonical axes.

    Parameters
    ----------
    series : Series
        As `series_of_frames` gives it.
    name : str
        Name of the case.
    path : Path, optional
        What the user opened.
    allow_constant : bool
        Whether an image of one value throughout is welcome.
    labels : bool
        Whether the values are labels, as in `read_volume`.

    Raises
    ------
    InputError
        If its frames are damaged, in colour, without places, or at the same place.
    """
    if series.refusal:
        raise InputError(series.refusal)
    frames, notices = list(series.frames), list(series.notices)
    rows, cols = frames[0].shape
    check_reading(series.label, (cols, rows, len(frames)), frames[0].header.bits / 8)
    if any(frame.segment for frame in frames):
        return read_segments(series, name, path)
    slices = read_frames(frames)
    if series.repeated:
        frames, slices, dropped = _without_copies(series, frames, slices)
        notices.append(f"Copies of slices were left out: {dropped}")
    first = frames[0]
    kind = next((frame.header.lossy for frame in frames if frame.header.lossy), "")
    if kind and not labels:
        notices.append(lossy_notice("The pixels are", kind))
    window = frames[len(frames) // 2].header.window
    placed = all(frame.place is not None for frame in frames)
    row_mm, col_mm = first.spacing or (1.0, 1.0)
    if first.spacing is None:
        notices.append("The header has no pixel spacing: sizes are in pixels, not in mm")
    if not placed and len(frames) > 1:
        notices.append(
            "The slices have no positions: sorted by number, their distance is unknown, sizes are "
            "in pixels"
        )
    if placed and first.axes is None:
        notices.append(
            "The header has no usable orientation: the slices are taken as axial, and sides are "
            "not certain"
        )
    known = first.spacing is not None and (placed or len(frames) == 1)
    origins = _origins(frames, placed)
    check_grid(series.label, (col_mm, row_mm), [float(np.abs(origins).max())], known=known)
    stack = stack_slices(
        slices,
        origins,
        axes_of(first),
        (col_mm, row_mm),
        series.label,
        first.thickness or 1.0,
        labels=labels or first.header.sop_class == LABEL_MAP,
    )
    volume = volume_of_stack(
        stack,
        name,
        path,
        modality=series.modality or None,
        window=window,
        allow_constant=allow_constant,
        spacing_known=known,
        labels=labels,
        notices=tuple(notices),
    )
    volume = replace(volume, series=replace(series, frames=tuple(frames)))
    if first.header.sop_class == LABEL_MAP:
        names, _, _ = segments_of(Path(first.header.file))
        return replace(volume, label_names=names)
    return volume


def _origins(frames: list[Frame], placed: bool) -> NDArray[np.float64]:
    """Return the positions, one step apart along the normal where there are none."""
    if placed:
        return np.array([frame.place for frame in frames])
    return np.arange(len(frames))[:, None] * axes_of(frames[0])[:, 2]


def _without_copies(
    series: Series, frames: list[Frame], slices: NDArray[np.float32]
) -> tuple[list[Frame], NDArray[np.float32], int]:
    """Leave out slices that equal another one of their place; refuse those that differ."""
    keep = [0]
    along = places_along(frames)
    for index in range(1, len(frames)):
        if along[index] - along[keep[-1]] >= _SAME_PLACE:
            keep.append(index)
        elif not np.array_equal(slices[index], slices[keep[-1]]):
            raise InputError(
                f"The DICOM series {series.label} shows places several times (time points or "
                "repetitions), but one volume is expected; export one of them to its own folder."
            )
    return [frames[index] for index in keep], slices[keep], len(frames) - len(keep)
