"""Which format a file is in, by its content first, and whether it is a file at all."""

from __future__ import annotations

import stat
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.jpeg_file import JPEG_MAGIC
from napari_dino_uad.core.scans.files.png_file import PNG_MAGIC
from napari_dino_uad.core.scans.files.tiff_file import TIFF_MAGICS
from napari_dino_uad.core.scans.formats import DICOM_SUFFIXES

__all__ = ["image_format", "is_folder", "regular_file", "unreadable"]

# Endings of scans in two files, a header and its voxels.
_PAIR = (".hdr", ".img")
# Formats by the name of SimpleITK's decoder.
_BY_SUFFIX = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    **dict.fromkeys(DICOM_SUFFIXES, "GDCMImageIO"),
}


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; an impossible path is not."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def regular_file(path: Path) -> Path:
    """Refuse anything but a regular file: reading a pipe, for example, could wait forever.

    Parameters
    ----------
    path : Path
        Path from the user.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    InputError
        If there is no file, it is of another kind, or its name is impossible.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"There is no file or folder {path}; check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no name of a file"
        shown = str(path) if len(str(path)) < 200 else f"{str(path)[:100]}...{str(path)[-50:]}"
        raise InputError(f"{shown!r} cannot be opened: {reason}; check the path.") from error
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{path} is a {_kind(mode)}, but a file with a scan is expected; check the path."
        )
    return path


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def image_format(path: Path) -> str:
    """Return which of SimpleITK's decoders a file is for.

    Parameters
    ----------
    path : Path
        A regular file.

    Raises
    ------
    InputError
        If it is empty or of an unknown format.
    """
    with path.open("rb") as file:
        head = file.read(348)
    if not head:
        raise InputError(f"{path.name} is empty; copy or export the file again.")
    if head.startswith(PNG_MAGIC):
        return "PNGImageIO"
    if head.startswith(JPEG_MAGIC):
        return "JPEGImageIO"
    if head.startswith(TIFF_MAGICS):
        return "TIFFImageIO"
    if head[128:132] == b"DICM":
        return "GDCMImageIO"
    if head.startswith(b"NRRD"):
        return "NrrdImageIO"
    if head[344:347] == b"n+1":
        return "NiftiImageIO"
    name = path.name.lower()
    for suffix, decoder in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return decoder
    # Old DICOM files begin directly with tags of group 8 or 2.
    if head[:2] in (b"\x08\0", b"\x02\0", b"\0\x08", b"\0\x02"):
        return "GDCMImageIO"
    raise unreadable(path)


def unreadable(path: Path) -> InputError:
    """Return the error to raise for a file that no decoder accepts."""
    if path.suffix.lower() in _PAIR or path.name.lower().endswith(".img.gz"):
        return InputError(
            f"{path.name} is one of the two files of a NIfTI or Analyze pair, which are not read; "
            "save the scan as one .nii.gz file."
        )
    beside = ", with its data file beside it" if path.suffix.lower() in (".mhd", ".nhdr") else ""
    return InputError(
        f"{path.name} cannot be read as an image; expected NIfTI, NRRD, MHA, DICOM, PNG, "
        f"JPEG or TIFF, whole and undamaged{beside}."
    )
