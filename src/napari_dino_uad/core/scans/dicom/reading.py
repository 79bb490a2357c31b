"""DICOM folders: which series they hold, sorted by position, and reading one of them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.dicom.pixels import check_dicom, holds_pixels
from napari_dino_uad.core.scans.files.image_format import regular_file
from napari_dino_uad.core.scans.files.integrity import damaged
from napari_dino_uad.core.scans.formats import DICOM_SUFFIXES, IMAGE_SUFFIXES, VOLUME_SUFFIXES

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "Series",
    "is_dicom",
    "list_series",
    "modality_and_window",
    "read_series_image",
    "series_of_files",
]

_LOG = logging.getLogger(__name__)

# What tells apart the several images of one place within a series, as (tag, its name).
_REPEATS = (
    ("0018|0086", "echo"),
    ("0018|0081", "echo time"),
    ("0020|0100", "time point"),
    ("0018|9087", "b value"),
    ("0020|0012", "acquisition"),
    ("0008|0008", "image type"),
    ("0018|1060", "trigger time"),
)

# Gaps that differ by less than this share are rounding in the headers.
_EVEN = 0.05


@dataclass(frozen=True)
class Series:
    """One DICOM series of a folder.

    Attributes
    ----------
    uid : str
        From the header; where one series holds several stacks (directions, echoes), those after
        the first have a number behind.
    description, modality : str
        From the header.
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
        Number of slices that lie where another one does; such a series cannot be read.
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

    @property
    def label(self) -> str:
        """The description, or the UID where there is none."""
        return self.description or self.uid


@dataclass(frozen=True)
class _Slice:
    """What the header of one file says; `place` is mm along the slice normal, if it is known."""

    file: str
    tags: dict[str, str]
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: NDArray[np.float64]
    normal: NDArray[np.float64]
    axes: tuple[float, ...]
    place: float | None

    def tag(self, key: str) -> str:
        return self.tags.get(key, "")


def is_dicom(path: Path) -> bool:
    """Say whether a file is DICOM by its ending or, where it has none, by its content."""
    if path.name.lower().endswith(DICOM_SUFFIXES):
        return True
    return _has_magic(path)


def _has_magic(path: Path) -> bool:
    """Say whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def list_series(folder: Path | str) -> list[Series]:
    """List the DICOM series of a folder, largest first.

    A series whose files lie in several directions or show each place several times (echoes, time
    points) is listed as several.

    Parameters
    ----------
    folder : path
        A folder with DICOM files, or, if it holds no scan itself, with folders of them.

    Returns
    -------
    list of Series
        Empty where there is no DICOM image.
    """
    folder = Path(folder)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    found = _dicom_files(files)
    if not found and not any(
        file.name.lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)) for file in files
    ):
        found = _dicom_files(sorted(file for file in folder.rglob("*") if file.is_file()))
    return series_of_files(found)


def _dicom_files(candidates: list[Path]) -> list[Path]:
    return [
        file
        for file in candidates
        if file.name[0] != "." and file.name.upper() != "DICOMDIR" and is_dicom(file)
    ]


def series_of_files(files: Sequence[Path]) -> list[Series]:
    """Group DICOM files into series, as `list_series` does."""
    groups: dict[tuple[Any, ...], list[_Slice]] = defaultdict(list)
    unread = []
    for file in files:
        one = _header(file)
        if one is None:
            unread.append(file.name)
        else:
            own = one.file if len(one.size) > 2 and one.size[2] > 1 else ""
            key = (one.tag("0020|000e"), one.size[:2], tuple(np.round(one.axes, 2)), own)
            groups[key].append(one)
    if unread:
        _LOG.warning(
            "%d DICOM files hold no image or are damaged and were left out: %s",
            len(unread),
            ", ".join(unread[:5]),
        )
    found = [_series(stack, label) for group in groups.values() for stack, label in _stacks(group)]
    seen: dict[str, int] = defaultdict(int)
    out = []
    for entry in sorted(found, key=lambda entry: -entry.slices):
        seen[entry.uid] += 1
        number = seen[entry.uid]
        out.append(entry if number == 1 else replace(entry, uid=f"{entry.uid}#{number}"))
    return out


def _header(file: Path) -> _Slice | None:
    """Read a file's header, or return None where it holds no image.

    Raises
    ------
    InputError
        If its header is whole, but its pixels are not.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        if not holds_pixels(file, file.name):
            return None
    except InputError:
        return None
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if _has_magic(file):
            # Left out, a slice would be missing from the scan.
            raise damaged(file.name) from error
        return None
    tags = {key: _text(reader.GetMetaData(key)) for key in reader.GetMetaDataKeys()}
    origin = np.asarray(reader.GetOrigin(), dtype=np.float64)
    axes = reader.GetDirection()
    if len(axes) != 9:
        normal, origin = np.array([0.0, 0.0, 1.0]), np.zeros(3)
    else:
        normal = np.reshape(axes, (3, 3))[:, 2]
    return _Slice(
        file=str(file),
        tags=tags,
        size=reader.GetSize(),
        spacing=reader.GetSpacing(),
        origin=origin,
        normal=normal,
        axes=axes,
        place=float(normal @ origin) if tags.get("0020|0032") else None,
    )


def _text(value: str) -> str:
    # Letters of another alphabet come as bytes that Python could not decode.
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \0")


def _stacks(group: list[_Slice]) -> list[tuple[list[_Slice], str]]:
    """Part a group in which places repeat into stacks in which none does, if a tag can."""
    places = [one.place for one in group]
    if None in places or not _repeated(group):
        return [(group, "")]
    for key, what in _REPEATS:
        parts: dict[str, list[_Slice]] = defaultdict(list)
        for one in group:
            parts[one.tag(key)].append(one)
        if len(parts) > 1 and not any(_repeated(part) for part in parts.values()):
            return [(part, f"{what} {value}") for value, part in sorted(parts.items())]
    return [(group, "")]


def _repeated(group: list[_Slice]) -> int:
    """Count the slices that lie where another one lies already."""
    places = sorted(one.place for one in group if one.place is not None)
    return int((np.diff(places) < 1e-3).sum())


def _series(group: list[_Slice], label: str) -> Series:
    placed = all(one.place is not None for one in group)
    if placed:
        group = sorted(group, key=lambda one: (one.place or 0.0, one.file))
    else:
        group = sorted(group, key=lambda one: (_number(one.tag("0020|0013")), one.file))
    first = group[0]
    slice_mm = first.spacing[2] if len(first.spacing) > 2 else 1.0
    warning = None
    if len(group) > 1 and not placed:
        slice_mm = 1.0
        warning = "The files hold no positions: sorted by number, 1 mm apart"
    elif len(group) > 1:
        slice_mm, warning = _judge(group)
    date = first.tag("0008|0020")
    if len(date) == 8 and date.isdigit():
        date = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    return Series(
        uid=first.tag("0020|000e") or first.file,
        description=" ".join(part for part in (first.tag("0008|103e"), label) if part),
        modality=first.tag("0008|0060"),
        date=date,
        slices=first.size[2] if len(group) == 1 and len(first.size) > 2 else len(group),
        spacing_mm=(slice_mm, first.spacing[1], first.spacing[0]),
        files=tuple(one.file for one in group),
        warning=warning,
        repeated=_repeated(group),
    )


def _judge(group: list[_Slice]) -> tuple[float, str | None]:
    """Return the usual distance of neighbouring slices in mm, and what is wrong with them."""
    origins = np.stack([one.origin for one in group])
    steps = np.diff(origins, axis=0)
    gaps = steps @ group[0].normal
    usual = float(np.median(gaps))
    if repeated := _repeated(group):
        return usual, f"{repeated} slices lie where another one does"
    if gaps.max() > 1.5 * usual:
        missing = int(np.sum(np.round(gaps / usual) - 1))
        return usual, (
            f"About {missing} slices are missing: a gap of {gaps.max():.1f} mm where "
            f"{usual:.1f} mm are usual"
        )
    if gaps.max() - gaps.min() > _EVEN * usual:
        return usual, f"Unevenly spaced slices: {gaps.min():.2f} to {gaps.max():.2f} mm"
    drift = np.linalg.norm(steps - gaps[:, None] * group[0].normal, axis=1)
    if drift.max() > _EVEN * usual:
        return usual, f"Tilted gantry: slices are shifted by {drift.max():.2f} mm each"
    return usual, None


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def read_series_image(
    series: Series,
) -> tuple[sitk.Image, str | None, tuple[float, float] | None]:
    """Read the slices of a series.

    Parameters
    ----------
    series : Series
        As `list_series` gives it. Its warning goes to the log.

    Returns
    -------
    image : SimpleITK.Image
    modality : str or None
    window : tuple of float or None
        (centre, width) of the slice in the middle.

    Raises
    ------
    InputError
        If slices are damaged, or lie at the same place.
    """
    import SimpleITK as sitk

    if series.warning:
        _LOG.warning("DICOM series %s: %s.", series.label, series.warning)
    if series.repeated:
        raise InputError(
            f"The DICOM series {series.label} shows places several times (time points or "
            "repetitions), but one volume is expected; export one of them to its own folder."
        )
    for file in map(Path, series.files):
        (columns, rows, frames), value_bytes = check_dicom(regular_file(file), file.name)
        check_reading(series.label, (columns, rows, frames * len(series.files)), 2 * value_bytes)
    try:
        if len(series.files) == 1:
            image = sitk.ReadImage(series.files[0], imageIO="GDCMImageIO")
        else:
            reader = sitk.ImageSeriesReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileNames(series.files)
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"The DICOM series {series.label} cannot be read, but whole, undamaged slices are "
            "expected; export it again."
        ) from error
    middle = _header(Path(series.files[len(series.files) // 2]))
    window = _window(middle.tags) if middle else None
    return image, series.modality or None, window


def modality_and_window(image: sitk.Image) -> tuple[str | None, tuple[float, float] | None]:
    """Take DICOM modality and window (centre, width) out of an image; None where it has none."""
    tags = {key: _text(image.GetMetaData(key)) for key in image.GetMetaDataKeys()}
    return tags.get("0008|0060") or None, _window(tags)


def _window(tags: dict[str, str]) -> tuple[float, float] | None:
    try:
        centre = float(tags.get("0028|1050", "").split("\\")[0])
        width = float(tags.get("0028|1051", "").split("\\")[0])
    except ValueError:
        return None
    return (centre, width) if width > 0 else None
