"""The frames of enhanced DICOM objects, by their functional groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import first_item, number, numbers, text, value
from napari_dino_uad.core.scans.dicom.frame import (
    NO_POSITIONS,
    PICTURES,
    Frame,
    axes_in,
    between_of,
    no_volume,
    place_of,
    rescale_of,
    spacing_of,
    thickness_of,
)
from napari_dino_uad.core.scans.dicom.headers import Header
from napari_dino_uad.core.scans.dicom.tiles import tiled_frames

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["enhanced_frames"]

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"

# What tells apart the frames of one place, as (its name, sequence, element).
_ENHANCED_KEYS = (
    ("time point", "FrameContentSequence", "TemporalPositionIndex"),
    ("echo time", "MREchoSequence", "EffectiveEchoTime"),
    ("b value", "MRDiffusionSequence", "DiffusionBValue"),
    ("trigger time", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("image type", "MRImageFrameTypeSequence", "FrameType"),
    ("image type", "CTImageFrameTypeSequence", "FrameType"),
    ("image type", "PETFrameTypeSequence", "FrameType"),
    ("image type", "ParametricMapFrameTypeSequence", "FrameType"),
)

# Functional groups that are looked at, in a frame's own and in those shared by all.
_GROUPS = (
    *("FrameContentSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"),
    *("RealWorldValueMappingSequence", "PlaneOrientationSequence", "PlanePositionSequence"),
    *("SegmentIdentificationSequence", *{sequence for _, sequence, _ in _ENHANCED_KEYS}),
)

# Dimensions that say where a frame lies, not which volume it is of.
_PLACES = {0x00209056, 0x00209057, 0x00200032, 0x00209113, 0x00200037, 0x0062000B, 0x0048021A}


def enhanced_frames(header: Header, dataset: Dataset, groups: list[Any]) -> tuple[Frame, ...]:
    """Read the frames of an object.

    Parameters
    ----------
    header : Header
    dataset : pydicom.Dataset
        As `read_header` gives them.
    groups : list of pydicom.Dataset
        The functional groups of each frame. Those beyond the number of frames are of an object
        that this one was cut from.

    Raises
    ------
    InputError
        If frames have no groups.
    """
    if len(groups) < header.frames:
        raise InputError(
            f"{Path(header.file).name} is damaged: its header places {len(groups)} frames, but "
            f"{header.frames} are expected; export it again."
        )
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    found = {name: first_item(shared or {}, name) for name in _GROUPS}
    top = rescale_of(dataset, (1.0, 0.0))
    dimensions = [
        (index, int(pointer), _name(pointer))
        for index, item in enumerate(value(dataset, "DimensionIndexSequence") or ())
        if (pointer := value(item, "DimensionIndexPointer")) is not None
    ]
    dimensions = [one for one in dimensions if one[1] not in _PLACES]
    frames = tuple(
        _functional(header, index, group, found, top, dimensions)
        for index, group in enumerate(groups[: header.frames])
    )
    if len(frames) > 1 and header.modality in PICTURES and frames[0].place is None:
        refusal = no_volume(header, NO_POSITIONS)
        return tuple(replace(frame, refusal=refusal) for frame in frames)
    return frames


def _functional(
    header: Header,
    index: int,
    group: Any,
    shared: dict[str, Any],
    top: tuple[float, float],
    dimensions: list[tuple[int, int, str]],
) -> Frame:
    """Read one frame's functional groups: its own before the shared ones."""

    def find(sequence: str) -> Any:
        own = first_item(group, sequence)
        return (own if own is not None else shared[sequence]) or {}

    content, measures = find("FrameContentSequence"), find("PixelMeasuresSequence")
    rescale = rescale_of(find("PixelValueTransformationSequence"), top)
    if header.sop_class == _PARAMETRIC_MAP and not header.pixel_type and rescale == (1.0, 0.0):
        mapping = find("RealWorldValueMappingSequence")
        slope = number(mapping, "RealWorldValueSlope")
        rescale = (slope or 1.0, number(mapping, "RealWorldValueIntercept") or 0.0)
    keys: dict[str, str] = {}
    for name, sequence, key in _ENHANCED_KEYS:
        if found := text(find(sequence), key):
            keys.setdefault(name, found)
    gradient = first_item(find("MRDiffusionSequence"), "DiffusionGradientDirectionSequence")
    keys["gradient direction"] = text(gradient or {}, "DiffusionGradientOrientation")
    indices = numbers(content, "DimensionIndexValues")
    for place, _, name in dimensions:
        if place < len(indices):
            keys[name] = f"{indices[place]:g}"
    axes = axes_in(find("PlaneOrientationSequence"))
    segment = 0
    if header.sop_class == _SEGMENTATION:
        segment = int(number(find("SegmentIdentificationSequence"), "ReferencedSegmentNumber") or 1)
        keys = {}
    return Frame(
        header=header,
        index=index,
        place=place_of(find("PlanePositionSequence")),
        axes=axes,
        spacing=spacing_of(measures),
        thickness=thickness_of(measures),
        between=between_of(measures),
        slope=rescale[0],
        intercept=rescale[1],
        stack=text(content, "StackID"),
        keys=tuple((name, found) for name, found in keys.items() if found),
        number=header.number * 1e6 + index,
        segment=segment,
        refusal=tiled_frames(header, keys.get("image type", "")),
    )


def _name(pointer: Any) -> str:
    from pydicom.datadict import dictionary_description

    try:
        return dictionary_description(pointer).lower()
    except KeyError:
        return f"dimension {int(pointer):08x}"
