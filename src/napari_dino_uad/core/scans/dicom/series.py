"""Which volumes the frames of DICOM files make: grouped by what tells them apart, and sorted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from napari_dino_uad.core.scans.dicom.frame import Frame
from napari_dino_uad.core.scans.dicom.grouping import (
    SAME_PLACE,
    axes_of,
    count_repeated,
    groups_of,
    places_along,
    volumes_in,
)

__all__ = ["Series", "judge", "series_of_frames"]

# Gaps that differ by less than this share are rounding in the headers.
_EVEN = 0.05

_MIXED = "The slices of this series have several orientations: each is a volume by itself"


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

    @property
    def slices_text(self) -> str:
        """The number of slices, in words."""
        return "1 slice" if self.slices == 1 else f"{self.slices} slices"


def series_of_frames(frames: Iterable[Frame]) -> list[Series]:
    """Group frames into volumes, largest first.

    Parameters
    ----------
    frames : iterable of Frame
        Of any files.
    """
    groups = groups_of(frames)
    planes: dict[str, set[str]] = defaultdict(set)
    directions: dict[str, set[tuple[float, ...] | None]] = defaultdict(set)
    for group, _ in groups:
        planes[group[0].header.uid].add(_plane(group[0]))
        directions[group[0].header.uid].add(group[0].axes)
    found = []
    for group, dropped in groups:
        uid = group[0].header.uid
        plane = _plane(group[0]) if len(planes[uid]) > 1 else ""
        for stack, label in volumes_in(group):
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


def _plane(frame: Frame) -> str:
    if frame.axes is None:
        return ""
    normal = np.abs(axes_of(frame)[:, 2])
    return ("sagittal", "coronal", "axial")[int(normal.argmax())]


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
        slices = len(group) - count_repeated(group)
    elif len(group) > 1 and not placed:
        slice_mm = 1.0
        warning = "The files hold no positions: sorted by number, the distance of slices is unknown"
    elif len(group) > 1:
        repeated = count_repeated(group)
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
    if repeated := int((gaps < SAME_PLACE).sum()):
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
