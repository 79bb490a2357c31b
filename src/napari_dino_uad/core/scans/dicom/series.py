"""Which volumes the frames of DICOM files make: grouped by what tells them apart, and sorted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.dicom.frames import Frame

__all__ = ["Series", "axes_of", "judge", "places_along", "series_of_frames"]

# Gaps that differ by less than this share are rounding in the headers.
_EVEN = 0.05

# Slices nearer than this, in mm, lie at the same place.
_SAME_PLACE = 1e-3

# Directions that differ by less are rounding in the headers.
_SAME_AXES = 0.01

_MIXED = "The slices of this series have several orientations: each is a volume by itself"

# Pictures of these kinds without positions are no slices of one body.
_PICTURES = ("US", "IVUS", "XA", "RF", "ES", "XC", "GM", "SM", "CR", "DX", "MG", "IO", "PX", "OP")


@dataclass(frozen=True)
class Series:
    """One volume of the DICOM files in a folder or in a file.

    Attributes
    ----------
    uid : str
        From the header; where one series holds several volumes (directions, echoes, time points),
        those after the first have a number behind.
    description, modality : str
        From the header; the description says which of several volumes it is.
    date : str
        Of the study, as year-month-day.
    slices : int
        Number of slices.
    spacing_mm : tuple of float
        Between slices, rows and columns.
    files : tuple of str
        Sorted by position.
    warning : str or None
        What is wrong with it, such as missing slices.
    repeated : int
        Number of slices that lie where another one does.
    refusal : str
        Why it cannot be read; empty where it can.
    notices : tuple of str
        What was done to it already, such as duplicates left out.
    frames : tuple of Frame
        Sorted by position.
    """

    uid: str
    description: str
    modality: str
    date: str
    slices: int
    spacing_mm: tuple[float, float, float]
    files: tuple[str, ...] = field(repr=False, default=())
    warning: str | None = None
    repeated: int = 0
    refusal: str = ""
    notices: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = field(repr=False, default=())

    @property
    def label(self) -> str:
        """The description, or the UID where there is none."""
        return self.description or self.uid


def series_of_frames(frames: Iterable[Frame]) -> list[Series]:
    """Group frames into volumes, largest first.

    Parameters
    ----------
    frames : iterable of Frame
        Of any files.
    """
    groups = _groups(frames)
    planes: dict[str, set[str]] = defaultdict(set)
    directions: dict[str, set[tuple[float, ...] | None]] = defaultdict(set)
    for group, _ in groups:
        planes[group[0].header.uid].add(_plane(group[0]))
        directions[group[0].header.uid].add(group[0].axes)
    found = []
    for group, dropped in groups:
        uid = group[0].header.uid
        plane = _plane(group[0]) if len(planes[uid]) > 1 else ""
        for stack, label in _volumes(group):
            entry = _series(stack, " ".join(filter(None, (plane, label))), dropped)
            if len(directions[uid]) > 1:
                entry = replace(entry, notices=(*entry.notices, _MIXED))
            found.append(entry)
    seen: dict[str, int] = defaultdict(int)
    out = []
    for entry in sorted(found, key=lambda entry: -entry.slices):
        seen[entry.uid] += 1
        number = seen[entry.uid]
        out.append(entry if number == 1 else replace(entry, uid=f"{entry.uid}#{number}"))
    return out


def axes_of(frame: Frame) -> NDArray[np.float64]:
    """Return the directions of columns, rows and slices, as the columns of a matrix."""
    axes = np.array(frame.axes or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    return np.stack([axes[:3], axes[3:], np.cross(axes[:3], axes[3:])], axis=1)


def _plane(frame: Frame) -> str:
    if frame.axes is None:
        return ""
    normal = np.abs(axes_of(frame)[:, 2])
    return ("sagittal", "coronal", "axial")[int(normal.argmax())]


def places_along(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return where frames of one direction lie along their normal, in mm."""
    return np.array([frame.place for frame in frames]) @ axes_of(frames[0])[:, 2]


def _groups(frames: Iterable[Frame]) -> list[tuple[list[Frame], int]]:
    """Part frames by series, size, direction and stack; count the copies left out of each."""
    groups: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    seen: set[tuple[object, ...]] = set()
    copies: dict[str, int] = defaultdict(int)
    known: list[tuple[float, ...]] = []
    for frame in frames:
        header = frame.header
        # Careless programs give all slices one UID, so the place must be the same too.
        same = (header.sop_uid, header.number, frame.index, frame.tile, frame.place)
        if header.sop_uid and same in seen:
            copies[header.uid] += 1
            continue
        seen.add(same)
        alone = header.file if frame.refusal else ""
        if frame.place is None and header.modality in _PICTURES:
            alone = header.file
        spacing = tuple(f"{one:.4g}" for one in frame.spacing or ())
        key = (header.uid, frame.shape, _direction(frame, known), spacing, alone)
        groups[key].append(frame)
    out = []
    for group in groups.values():
        dropped = copies.pop(group[0].header.uid, 0)
        stacks: dict[str, list[Frame]] = defaultdict(list)
        for frame in group:
            stacks[frame.stack].append(frame)
        if any(len(stack) > 1 for stack in stacks.values()):
            out += [(stack, dropped) for stack in stacks.values()]
        else:
            out.append((group, dropped))
    return out


def _direction(frame: Frame, known: list[tuple[float, ...]]) -> int:
    """Return the number of a direction among those that differ by more than rounding."""
    axes = frame.axes or ()
    for number, other in enumerate(known):
        if len(axes) == len(other) and all(
            abs(a - b) < _SAME_AXES for a, b in zip(axes, other, strict=True)
        ):
            return number
    known.append(axes)
    return len(known) - 1


def _volumes(group: list[Frame]) -> list[tuple[list[Frame], str]]:
    """Part a group in which places repeat into volumes in which none does, if a key can."""
    if any(frame.place is None for frame in group) or any(frame.segment for frame in group):
        return [(group, "")]
    if not _repeated(group):
        return [(group, "")]
    names = list(dict.fromkeys(name for frame in group for name, _ in frame.keys))
    values = [dict(frame.keys) for frame in group]
    names = [name for name in names if len({one.get(name, "") for one in values}) > 1]
    for count in (1, 2, 3):
        for chosen in combinations(names, count):
            parts: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
            for frame, found in zip(group, values, strict=True):
                parts[tuple(found.get(name, "") for name in chosen)].append(frame)
            if not any(_repeated(part) for part in parts.values()):
                return [
                    (
                        parts[key],
                        ", ".join(f"{a} {_shown(b)}" for a, b in zip(chosen, key, strict=True)),
                    )
                    for key in sorted(parts, key=_natural)
                ]
    return _by_number(group)


def _shown(text: str) -> str:
    try:
        return f"{float(text):g}"
    except ValueError:
        return text or "none"


def _natural(key: tuple[str, ...]) -> list[tuple[float, str]]:
    out = []
    for one in key:
        try:
            out.append((float(one), one))
        except ValueError:
            out.append((float("inf"), one))
    return out


def _by_number(group: list[Frame]) -> list[tuple[list[Frame], str]]:
    """Part whole repetitions that nothing but the order of their numbers tells apart."""
    order = sorted(group, key=lambda frame: frame.number)
    if len({frame.number for frame in group}) < len(group):
        return [(group, "")]
    places = np.round(places_along(order) / 0.01)
    count = len(np.unique(places))
    times = len(group) // count
    if times * count != len(group):
        return [(group, "")]
    blocks = places.reshape(times, count)
    if all(len(np.unique(block)) == count for block in blocks):
        ranks = np.repeat(np.arange(times), count)
    elif (np.ptp(places.reshape(count, times), axis=1) == 0).all():
        ranks = np.tile(np.arange(times), count)
    else:
        return [(group, "")]
    return [
        (
            [frame for frame, rank in zip(order, ranks, strict=True) if rank == number],
            f"repetition {number + 1}",
        )
        for number in range(times)
    ]


def _repeated(group: list[Frame]) -> int:
    """Count the slices that lie where another one lies already."""
    return int((np.diff(np.sort(places_along(group))) < _SAME_PLACE).sum())


def _series(group: list[Frame], label: str, copies: int) -> Series:
    placed = all(frame.place is not None for frame in group)
    if placed:
        along = places_along(group)
        order = np.lexsort((np.array([frame.number for frame in group]), np.round(along, 4)))
        group = [group[index] for index in order]
    else:
        group = sorted(group, key=lambda frame: (frame.number, frame.header.file))
    first = group[0]
    header = first.header
    slices, repeated, warning = len(group), 0, None
    slice_mm = first.thickness or 1.0
    segmented = any(frame.segment for frame in group)
    if segmented and placed:
        slices = len(group) - _repeated(group)
    elif len(group) > 1 and not placed:
        slice_mm = 1.0
        warning = "The files hold no positions: sorted by number, the distance of slices is unknown"
    elif len(group) > 1:
        repeated = _repeated(group)
        slice_mm, warning = judge(group)
    if first.spacing is None and warning is None:
        warning = "The header has no pixel spacing: sizes are in pixels"
    row_mm, col_mm = first.spacing or (1.0, 1.0)
    notice = f"{copies} copies of slices of this series were left out" if copies > 1 else ""
    notice = "1 copy of a slice was left out" if copies == 1 else notice
    return Series(
        uid=header.uid or header.file,
        description=" ".join(part for part in (header.description, label) if part),
        modality=header.modality,
        date=header.date,
        slices=header.frames if first.refusal else slices,
        spacing_mm=(slice_mm, row_mm, col_mm),
        files=tuple(dict.fromkeys(frame.header.file for frame in group)),
        warning=first.refusal or warning,
        repeated=repeated,
        refusal=first.refusal,
        notices=(notice,) if notice else (),
        frames=tuple(group),
    )


def judge(group: Sequence[Frame]) -> tuple[float, str | None]:
    """Return the usual distance of neighbouring slices in mm, and what is wrong with them."""
    origins = np.array([frame.place for frame in group])
    normal = axes_of(group[0])[:, 2]
    steps = np.diff(origins, axis=0)
    gaps = steps @ normal
    usual = float(np.median(gaps))
    if repeated := int((gaps < _SAME_PLACE).sum()):
        return usual, f"{repeated} slices lie where another one does"
    if gaps.max() > 1.5 * usual:
        missing = int(np.sum(np.round(gaps / usual) - 1))
        return usual, (
            f"About {missing} slices are missing: a gap of {gaps.max():.1f} mm where "
            f"{usual:.1f} mm are usual"
        )
    if gaps.max() - gaps.min() > _EVEN * usual:
        return usual, f"Unevenly spaced slices: {gaps.min():.2f} to {gaps.max():.2f} mm"
    usual = float(gaps.mean())
    drift = np.linalg.norm(steps - gaps[:, None] * normal, axis=1)
    if drift.max() > _EVEN * usual:
        return usual, (
            f"Tilted gantry: slices are shifted by {drift.max():.2f} mm each (corrected)"
        )
    return usual, None
