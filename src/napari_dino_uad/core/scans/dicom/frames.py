"""The frames of DICOM objects: where each lies, how it is scaled and what tells it apart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import first_item, number, numbers, text, value
from napari_dino_uad.core.scans.dicom.headers import Header, read_header
from napari_dino_uad.core.scans.dicom.lookup import Lookup, lookup_of
from napari_dino_uad.core.scans.dicom.tiles import tiled_frames, tiles_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["LABEL_MAP", "Frame", "frames_of"]

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
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

# The same of enhanced objects, as (its name, sequence, element).
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


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a file.

    Attributes
    ----------
    header : Header
        Of its file.
    index : int
        Its number in the file, from 0.
    place : tuple of float or None
        Position x, y, z of its first pixel, in mm.
    axes : tuple of float or None
        Directions in which columns and rows count up, six numbers.
    spacing : tuple of float or None
        Distance of rows and of columns in mm.
    thickness : float or None
        Distance of slices as the header says, or their thickness, in mm.
    between : float or None
        Distance of slices as the header says, in mm.
    slope, intercept : float
        From stored values to the scan's.
    stack : str
        Stack ID of an enhanced object.
    keys : tuple of (str, str)
        What tells it apart from others of the same place, as (name, value).
    number : float
        By which frames without positions are sorted.
    segment : int
        Number of the segment it belongs to, 0 where it is no segmentation.
    tile : tuple of int or None
        First row, first column, rows and columns of its part of a mosaic.
    refusal : str
        Why it cannot be read; empty where it can.
    lookup : Lookup or None
        Table from stored values to the scan's, in place of slope and intercept.
    """

    header: Header
    index: int
    place: tuple[float, ...] | None
    axes: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    between: float | None = None
    slope: float = 1.0
    intercept: float = 0.0
    stack: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    number: float = 0.0
    segment: int = 0
    tile: tuple[int, int, int, int] | None = None
    refusal: str = ""
    lookup: Lookup | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.tile[2:] if self.tile else (self.header.rows, self.header.cols)


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
        if len(groups) < header.frames:
            raise InputError(
                f"{path.name} is damaged: its header places {len(groups)} frames, but "
                f"{header.frames} are expected; export it again."
            )
        return _enhanced(header, dataset, list(groups))
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
    slope, intercept = _rescale(dataset, (1.0, 0.0))
    if header.sop_class == _DOSE:
        slope, intercept = number(dataset, "DoseGridScaling") or 1.0, 0.0
    where = first_item(dataset, "DetectorInformationSequence")
    lookup = lookup_of(header, dataset)
    return Frame(
        header=header,
        index=0,
        place=_place(dataset) or (_place(where) if where is not None else None),
        axes=_axes(dataset) or (_axes(where) if where is not None else None),
        spacing=_spacing(dataset),
        thickness=_thickness(dataset),
        between=_between(dataset),
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
        heights = [index * frame.thickness for index in range(header.frames)]
    if heights is None or len(heights) != header.frames:
        if text(dataset, "FrameIncrementPointer") or frame.place is None:
            why = "without positions, so they are time points or single pictures, not slices"
        else:
            why = "with one position for all of them"
        name = Path(header.file).name
        return (
            replace(
                frame,
                refusal=f"{name} holds {header.frames} frames {why}, but a volume or a single "
                "picture is expected; export the frame to look at to its own file.",
            ),
        )
    across = np.cross(frame.axes[:3], frame.axes[3:])  # type: ignore[index]  # placed above
    return tuple(
        replace(frame, index=index, place=tuple(np.add(frame.place, across * height).tolist()))  # type: ignore[arg-type]  # placed above
        for index, height in enumerate(heights)
    )


def _enhanced(header: Header, dataset: Dataset, groups: list[Any]) -> tuple[Frame, ...]:
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    found = {name: first_item(shared or {}, name) for name in _GROUPS}
    top = _rescale(dataset, (1.0, 0.0))
    dimensions = [
        (index, int(pointer), _name(pointer))
        for index, item in enumerate(value(dataset, "DimensionIndexSequence") or ())
        if (pointer := value(item, "DimensionIndexPointer")) is not None
    ]
    dimensions = [one for one in dimensions if one[1] not in _PLACES]
    return tuple(
        _functional(header, index, group, found, top, dimensions)
        for index, group in enumerate(groups[: header.frames])
    )


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
    rescale = _rescale(find("PixelValueTransformationSequence"), top)
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
    axes = _axes(find("PlaneOrientationSequence"))
    segment = 0
    if header.sop_class == _SEGMENTATION:
        segment = int(number(find("SegmentIdentificationSequence"), "ReferencedSegmentNumber") or 1)
        keys = {}
    return Frame(
        header=header,
        index=index,
        place=_place(find("PlanePositionSequence")),
        axes=axes,
        spacing=_spacing(measures),
        thickness=_thickness(measures),
        between=_between(measures),
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


def _rescale(item: Any, otherwise: tuple[float, float]) -> tuple[float, float]:
    slope, intercept = number(item, "RescaleSlope"), number(item, "RescaleIntercept")
    if slope is None and intercept is None:
        return otherwise
    return (1.0 if slope is None else slope) or 1.0, intercept or 0.0


def _place(item: Any) -> tuple[float, ...] | None:
    place = numbers(item, "ImagePositionPatient")
    return place if len(place) == 3 else None


def _axes(item: Any) -> tuple[float, ...] | None:
    """Return two directions of length 1, None where the header has none at a right angle."""
    axes = np.array(numbers(item, "ImageOrientationPatient"))
    if axes.size != 6:
        return None
    lengths = np.linalg.norm(axes.reshape(2, 3), axis=1)
    if lengths.min() < 0.5 or abs(axes[:3] @ axes[3:]) > 0.01 * lengths.prod():
        return None
    return tuple((axes.reshape(2, 3) / lengths[:, None]).ravel().tolist())


def _spacing(item: Any) -> tuple[float, float] | None:
    spacing = numbers(item, "PixelSpacing")
    return (spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None


def _thickness(item: Any) -> float | None:
    return _between(item) or abs(number(item, "SliceThickness") or 0.0) or None


def _between(item: Any) -> float | None:
    # Some vendors write the distance of slices with a sign.
    return abs(number(item, "SpacingBetweenSlices") or 0.0) or None
