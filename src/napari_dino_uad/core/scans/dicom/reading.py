"""DICOM files, folders and media: which series they hold, and reading one of them.

`elements.py` and `headers.py` read a header, `frames.py`, `enhanced.py` and `tiles.py` find the
frames in it, `series.py` groups frames into volumes, `values.py` reads their values, and `stack.py`
and `segments.py` make a volume of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.elements import broken, quiet_pydicom, text, value
from napari_dino_uad.core.scans.dicom.frame import Frame
from napari_dino_uad.core.scans.dicom.frames import frames_of
from napari_dino_uad.core.scans.dicom.headers import NoImageError, is_dicom
from napari_dino_uad.core.scans.dicom.series import Series, series_of_frames
from napari_dino_uad.core.scans.dicom.stack import series_volume
from napari_dino_uad.core.scans.formats import IMAGE_SUFFIXES, VOLUME_SUFFIXES

__all__ = [
    "Series",
    "is_dicom",
    "list_series",
    "only_series",
    "series_in",
    "series_of_files",
    "series_uid",
    "series_volume",
]

_DICOMDIR = "1.2.840.10008.1.3.10"

# Files looked at to see whether a folder is part of a series.
_PROBES = 20


def list_series(folder: Path | str) -> list[Series]:
    """List the DICOM series of a folder, largest first.

    A series whose files lie in several directions or show each place several times (echoes, time
    points) is listed as several.

    Parameters
    ----------
    folder : path
        A folder with DICOM files, or, if it holds no scan itself, with folders of them. Folders in
        it that hold more of its series belong to them.

    Returns
    -------
    list of Series
        Empty where there is no DICOM image.
    """
    folder = Path(folder)
    entries = sorted(folder.iterdir())
    files = [entry for entry in entries if entry.is_file()]
    found = _dicom_files(files)
    if found:
        parts = [entry for entry in entries if entry.is_dir() and entry.name[0] != "."]
        return series_of_files(found + _rest_of(found, parts))
    if not any(file.name.lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)) for file in files):
        found = _dicom_files(sorted(file for file in folder.rglob("*") if file.is_file()))
    return series_of_files(found)


def _dicom_files(candidates: list[Path]) -> list[Path]:
    return [
        file
        for file in candidates
        if file.name[0] != "." and file.name.upper() != "DICOMDIR" and is_dicom(file)
    ]


def _rest_of(found: list[Path], folders: list[Path]) -> list[Path]:
    """Find the files of folders that hold more of the same series."""
    if not folders:
        return []
    known = {frame.header.uid for frame in _frames(found)[0]}
    return [
        file
        for folder in folders
        if series_uid(folder) in known
        for file in _dicom_files(sorted(file for file in folder.iterdir() if file.is_file()))
        if any(frame.header.uid in known for frame in _frames([file])[0])
    ]


def series_uid(folder: Path) -> str:
    """Return the UID of the first series in a folder; empty where there is none."""
    files = sorted(file for file in folder.iterdir() if file.is_file())[:_PROBES]
    frames, _ = _frames(_dicom_files(files)[:1])
    return frames[0].header.uid if frames else ""


def series_in(path: Path) -> list[Series]:
    """List the series of a DICOM file, of what a DICOMDIR names, or of a folder.

    Parameters
    ----------
    path : Path
        A file or folder that exists.

    Raises
    ------
    InputError
        If a file is damaged or holds no image, or none of the files a DICOMDIR names is there.
    """
    if path.is_dir():
        return list_series(path)
    if path.name.upper() == "DICOMDIR" or _is_directory(path):
        return _series_of_directory(path)
    with quiet_pydicom():
        return series_of_frames(frames_of(path))


def series_of_files(files: Sequence[Path]) -> list[Series]:
    """Group DICOM files into series, as `list_series` does."""
    frames, unread = _frames(files)
    series = series_of_frames(frames)
    if not unread:
        return series
    # Nothing tells which series they were of.
    shown = ", ".join(unread[:5]) + (f" and {len(unread) - 5} more" if len(unread) > 5 else "")
    count = "1 DICOM file is" if len(unread) == 1 else f"{len(unread)} DICOM files are"
    notice = f"{count} damaged and left out: {shown}"
    return [replace(one, notices=(*one.notices, notice)) for one in series]


def _frames(files: Sequence[Path]) -> tuple[list[Frame], list[str]]:
    """Return the frames of files, and the names of files that are damaged."""
    frames: list[Frame] = []
    unread = []
    if not files:
        return [], []
    with quiet_pydicom():
        for file in files:
            try:
                frames += frames_of(file)
            except NoImageError:
                # A report or a plan, which folders of scans may well hold.
                continue
            except (InputError, OSError):
                unread.append(file.name)
    return frames, unread


def _is_directory(path: Path) -> bool:
    """Return whether a file is a DICOMDIR, whatever its name."""
    from pydicom.filereader import read_file_meta_info

    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return False
        with quiet_pydicom():
            return text(read_file_meta_info(path), "MediaStorageSOPClassUID") == _DICOMDIR
    except broken():
        return False


def _series_of_directory(path: Path) -> list[Series]:
    """List the series of the files that a DICOMDIR names; of its folder where it is damaged."""
    from pydicom import dcmread

    try:
        with quiet_pydicom():
            records = value(dcmread(path, force=True), "DirectoryRecordSequence") or ()
            named = [text(record, "ReferencedFileID").split("\\") for record in records]
    except broken():
        named = []
    named = [parts for parts in named if parts != [""]]
    files = [file for parts in named if (file := _below(path.parent, parts)) is not None]
    found = series_of_files(files) if files else list_series(path.parent)
    if not found:
        raise InputError(
            f"Expected the images that {path.name} lists, got none of {len(named)} beside it; copy "
            "the whole medium, with its folders."
        )
    missing = len(named) - len(files)
    if not files or not missing:
        return found
    notice = f"{missing} of {len(named)} images that {path.name} lists are missing beside it"
    return [replace(one, notices=(*one.notices, notice)) for one in found]


def _below(folder: Path, parts: list[str]) -> Path | None:
    """Find a file by the names in a DICOMDIR, which disks may have in small letters.

    A name that leads out of the folder is none.
    """
    if any(part in ("", ".", "..") or "/" in part or ":" in part for part in parts):
        return None
    for names in (parts, [part.lower() for part in parts]):
        if (file := folder.joinpath(*names)).is_file():
            return file
    return None


def only_series(found: list[Series], uid: str | None, where: str) -> Series:
    """Return the series of a UID, or the only one.

    Raises
    ------
    InputError
        If there is none, or several and no UID is given; it lists them.
    """
    chosen = [one for one in found if uid in (None, one.uid)]
    if len(chosen) == 1:
        return chosen[0]
    if not found:
        raise InputError(f"There is no DICOM image in {where}; export the scan again.")
    listed = "; ".join(f"{one.label} ({one.slices_text}, UID {one.uid})" for one in found[:20])
    if len(found) > 20:
        listed += f"; and {len(found) - 20} more"
    if uid is None:
        raise InputError(
            f"One DICOM series is expected, but {where} holds {len(found)}: {listed}; choose one."
        )
    raise InputError(f"There is no DICOM series {uid} in {where}, which holds: {listed}.")
