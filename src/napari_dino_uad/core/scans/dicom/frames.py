"""The frames of DICOM objects: where each lies, how it is scaled and what tells it apart."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.core.scans.dicom.elements import first_item, number, numbers, text, value
from napari_dino_uad.core.scans.dicom.enhanced import enhanced_frames
from napari_dino_uad.core.scans.dicom.frame import (
    NO_POSITIONS,
    Frame,
    axes_in,
    between_of,
    no_volume,
    place_of,
    rescale_of,
    spacing_of,
    thickness_of,
)
from napari_dino_uad.core.scans.dicom.headers import Header, read_header
from napari_dino_uad.core.scans.dicom.lookup import lookup_of
from napari_dino_uad.core.scans.dicom.tiles import tiles_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["frames_of"]

_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"

# What tells apart the classic images of one place, as (its name, where it stands). Private tags
# hold the b-values of Siemens, GE, Philips and UIH.
_CLASSIC_KEYS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("echo", (0x00180086,)),
    ("echo time", (0x00180081,)),
    ("time point", (0x00200100,)),
    ("b value", (0x00189087, 0x0019100C, 0x20011003, 0x00651009, 0x00431039)),
    ("gradient direction", (0x00189089,)),
    ("acquisition", (0x00200012,)),
    ("image type", (0x00080008,)),
    ("trigger time", (0x00181060,)),
)


# Vectors of nuclear medicine that number the frames by what they differ in.
_VECTORS = (
    ("energy window", "EnergyWindowVector"),
    ("detector", "DetectorVector"),
    ("time slot", "TimeSlotVector"),
    ("phase", "PhaseVector"),
    ("rotation", "RotationVector"),
)


def frames_of(path: Path) -> tuple[Frame, ...]:
    """Read the frames of a file from its header; again only where the file has changed.

    Parameters
    ----------
    path : Path
        A DICOM file. Call it inside `quiet_pydicom`.

    Raises
    ------
    InputError
        If the file is damaged or holds no image.
    """
    state = path.stat()
    return _frames(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _frames(path: Path, changed: int, size: int) -> tuple[Frame, ...]:
    header, dataset = read_header(path)
    groups = value(dataset, "PerFrameFunctionalGroupsSequence")
    if groups:
        return enhanced_frames(header, dataset, list(groups))
    frame = _classic(header, dataset)
    if frame.refusal:
        return (frame,)
    if tiles := tiles_of(header, dataset):
        return _tiled(frame, tiles)
    if header.frames == 1:
        return (frame,)
    return _multi_frame(frame, dataset)


def _classic(header: Header, dataset: Dataset) -> Frame:
    """Return the one frame of a file, or the first of several."""
    slope, intercept = rescale_of(dataset, (1.0, 0.0))
    if header.sop_class == _DOSE:
        slope, intercept = number(dataset, "DoseGridScaling") or 1.0, 0.0
    where = first_item(dataset, "DetectorInformationSequence")
    lookup = lookup_of(header, dataset)
    return Frame(
        header=header,
        index=0,
        place=place_of(dataset) or (place_of(where) if where is not None else None),
        axes=axes_in(dataset) or (axes_in(where) if where is not None else None),
        spacing=spacing_of(dataset),
        thickness=thickness_of(dataset),
        between=between_of(dataset),
        slope=slope,
        intercept=intercept,
        keys=tuple((name, _first(dataset, tags)) for name, tags in _CLASSIC_KEYS),
        number=header.number,
        refusal=lookup if isinstance(lookup, str) else "",
        lookup=None if isinstance(lookup, str) else lookup,
    )


def _first(dataset: Dataset, tags: tuple[int, ...]) -> str:
    for tag in tags:
        if tag in dataset:
            found = text(dataset, tag)
            # GE adds 1e9 to the b-value and gives three more numbers.
            if tag == 0x00431039:
                found = found.split("\\")[0]
                found = str(int(found) % 100_000) if found.isdigit() else found
            return found
    return ""


def _tiled(frame: Frame, tiles: Any) -> tuple[Frame, ...]:
    if isinstance(tiles, str):
        return (replace(frame, refusal=tiles),)
    return tuple(
        replace(frame, tile=part, place=place, number=frame.number * 1e6 + index)
        for index, (part, place) in enumerate(tiles)
    )


def _multi_frame(frame: Frame, dataset: Dataset) -> tuple[Frame, ...]:
    """Place the frames of an object without functional groups, or say that nothing does."""
    header = frame.header
    heights: Any = None
    if header.sop_class == _DOSE and frame.place and frame.axes:
        offsets = numbers(dataset, "GridFrameOffsetVector")
        # Offsets that do not begin at 0 are heights of the patient, for axial grids.
        heights = [one - offsets[0] for one in offsets]
        if offsets and offsets[0] != 0 and frame.axes[0] * frame.axes[4] < 0:
            heights = [-one for one in heights]
    elif "RECON TOMO" in header.image_type and frame.place and frame.axes and frame.thickness:
        # In nuclear medicine alone, the sign of the distance is the way in which slices count.
        step = math.copysign(frame.thickness, number(dataset, "SpacingBetweenSlices") or 1.0)
        order = numbers(dataset, "SliceVector") or range(1, header.frames + 1)
        heights = [(place - 1) * step for place in order]
    if heights is None or len(heights) != header.frames:
        if text(dataset, "FrameIncrementPointer") or frame.place is None:
            why = NO_POSITIONS
        else:
            why = "with one position for all of them"
        return (replace(frame, refusal=no_volume(header, why)),)
    keys = _vector_keys(header, dataset)
    across = np.cross(frame.axes[:3], frame.axes[3:])  # type: ignore[index]  # placed above
    return tuple(
        replace(
            frame,
            index=index,
            place=tuple(np.add(frame.place, across * height).tolist()),  # type: ignore[arg-type]  # placed above
            keys=(*frame.keys, *keys[index]),
        )
        for index, height in enumerate(heights)
    )


def _vector_keys(header: Header, dataset: Dataset) -> list[list[tuple[str, str]]]:
    """Return what tells the frames of a nuclear medicine object apart, beside their slices."""
    keys: list[list[tuple[str, str]]] = [[] for _ in range(header.frames)]
    for name, keyword in _VECTORS:
        values = numbers(dataset, keyword)
        if len(values) == header.frames and len(set(values)) > 1:
            for own, value in zip(keys, values, strict=True):
                own.append((name, f"{value:g}"))
    return keys
