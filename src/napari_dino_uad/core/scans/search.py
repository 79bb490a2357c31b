"""Find the scans in files and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.reading import is_dicom, series_uid
from napari_dino_uad.core.scans.files.image_format import is_folder, regular_file
from napari_dino_uad.core.scans.files.tiff_file import check_tiff
from napari_dino_uad.core.scans.formats import DICOM_SUFFIXES, VOLUME_SUFFIXES, stack_files

__all__ = ["find_scans"]


def find_scans(paths: Sequence[Path | str], pattern: str | None = None) -> list[Path]:
    """Find the scans in files and folders.

    Parameters
    ----------
    paths : sequence of path
        A file is a scan. A folder is searched: a folder of DICOM files, or of 2D PNG or TIFF
        slices if no pattern is given, is one scan.
    pattern : str, optional
        Names of scan files, such as ``*_flair.nii.gz``.

    Returns
    -------
    list of Path
        Sorted, without duplicates.

    Raises
    ------
    InputError
        If a path is missing or nothing is found.
    """
    out: list[Path] = []
    for path in map(Path, paths):
        if not is_folder(path):
            out.append(regular_file(path))
        elif pattern is not None:
            out += sorted(file for file in path.rglob(pattern) if file.name[0] != ".")
        else:
            out += _scans_in(path)
    found = list(dict.fromkeys(out))
    if not found:
        what = f"matching {pattern!r}" if pattern else "(NIfTI, NRRD, MHA, DICOM, PNG or TIFF)"
        raise InputError(
            f"No scan {what} was found in {', '.join(map(str, paths))}; check the folder and the "
            "names."
        )
    return found


def _scans_in(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
    # A pipe or a broken link with the name of a scan is reported when it is read.
    files = [entry for entry in entries if not entry.is_dir()]
    scans = [
        file
        for file in files
        if file.name.lower().endswith(VOLUME_SUFFIXES)
        and not file.name.lower().endswith(DICOM_SUFFIXES)
    ]
    if not scans and any(file.is_file() and is_dicom(file) for file in files):
        return [folder]
    if not scans:
        images = stack_files(folder)
        scans = images if images and _is_paged(images[0]) else [folder] if images else []
    folders = [entry for entry in entries if entry.is_dir()]
    below = [scan for part in folders for scan in _scans_in(part)]
    # A series split over folders is one scan.
    if not scans and 1 < len(below) == len(folders) and below == folders:
        uids = {series_uid(part) for part in folders}
        if len(uids) == 1 and uids != {""}:
            return [folder]
    return scans + below


def _is_paged(file: Path) -> bool:
    """Return whether a TIFF file has several pages and is therefore a volume."""
    import SimpleITK as sitk

    try:
        check_tiff(regular_file(file), file.name)
    except InputError:
        # Reading it says why.
        return False
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return bool(reader.GetDimension() > 2 and reader.GetSize()[2] > 1)
