"""Which DICOM frames belong together: by what tells them apart, until no place repeats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.dicom.frame import PICTURES, Frame
from napari_dino_uad.core.scans.stack import steps_between

__all__ = ["SAME_PLACE", "axes_of", "count_repeated", "groups_of", "places_along", "volumes_in"]

# Slices nearer than this, in mm, lie at the same place.
SAME_PLACE = 1e-3

# Directions that differ by less are rounding in the headers.
_SAME_AXES = 0.01

# Keys by which volumes have another contrast or moment, so that they are never one.
_CONTRASTS = ("echo", "echo time", "time point", "b value", "gradient direction")


def axes_of(frame: Frame) -> NDArray[np.float64]:
    """Return the directions of columns, rows and slices, as the columns of a matrix."""
    axes = np.array(frame.axes or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    return np.stack([axes[:3], axes[3:], np.cross(axes[:3], axes[3:])], axis=1)


def places_along(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return where frames of one direction lie along their normal, in mm."""
    return np.array([frame.place for frame in frames]) @ axes_of(frames[0])[:, 2]


def groups_of(frames: Iterable[Frame]) -> list[tuple[list[Frame], int]]:
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
        if frame.place is None and header.modality in PICTURES:
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


def volumes_in(group: list[Frame]) -> list[tuple[list[Frame], str]]:
    """Part a group into the volumes that its keys tell apart.

    Where places repeat, any key will do by which none does. Volumes of several contrasts may also
    lie between or above each other: motion correction moves them, and so does rounding.
    """
    if any(frame.place is None for frame in group) or any(frame.segment for frame in group):
        return [(group, "")]
    names = list(dict.fromkeys(name for frame in group for name, _ in frame.keys))
    values = [dict(frame.keys) for frame in group]
    names = [name for name in names if len({one.get(name, "") for one in values}) > 1]
    if not count_repeated(group):
        contrasts = tuple(name for name in names if name in _CONTRASTS)
        parts = _parted(group, contrasts)
        return _named(parts, contrasts) if _are_volumes(parts) else [(group, "")]
    for count in (1, 2, 3):
        for chosen in combinations(names, count):
            parts = _parted(group, chosen)
            if not any(count_repeated(part) for part in parts.values()):
                return _named(parts, chosen)
    return _by_number(group)


_Parts = dict[tuple[str, ...], list[Frame]]


def _parted(group: list[Frame], names: Sequence[str]) -> _Parts:
    """Part frames by the values of some keys."""
    parts: _Parts = defaultdict(list)
    for frame in group:
        found = dict(frame.keys)
        parts[tuple(found.get(name, "") for name in names)].append(frame)
    return parts


def _named(parts: _Parts, names: Sequence[str]) -> list[tuple[list[Frame], str]]:
    return [
        (parts[key], ", ".join(f"{a} {_shown(b)}" for a, b in zip(names, key, strict=True)))
        for key in sorted(parts, key=_natural)
    ]


def _are_volumes(parts: _Parts) -> bool:
    """Return whether each of several parts is a stack of even steps, with as many slices."""
    counts = {len(part) for part in parts.values()}
    if len(parts) < 2 or len(counts) > 1 or min(counts) < 2:
        return False
    places = [np.sort(places_along(part)) for part in parts.values()]
    return all(steps_between(along - along[0])[2] for along in places)


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


def count_repeated(group: list[Frame]) -> int:
    """Count the slices that lie where another one lies already."""
    return int((np.diff(np.sort(places_along(group))) < SAME_PLACE).sum())
