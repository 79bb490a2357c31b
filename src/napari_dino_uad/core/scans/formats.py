"""File formats by name, and the order of numbered slices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "MAP_ENDING",
    "VOLUME_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "case_name",
    "natural_key",
    "stack_files",
]

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", *DICOM_SUFFIXES)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
#: How the name of a map ends that a detection wrote, after that of the scan.
MAP_ENDING = "_anomaly.nii.gz"
WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def case_name(path: Path) -> str:
    """Return a file's name without its ending, or a folder's name."""
    lowered = path.name.lower()
    for suffix in sorted((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES), key=len, reverse=True):
        if lowered.endswith(suffix) and not path.is_dir():
            return path.name[: -len(suffix)]
    return path.name


def natural_key(path: Path) -> list[Any]:
    """Sort key by which slice 10 comes after slice 9."""
    return [
        int(part) if index % 2 else part
        for index, part in enumerate(re.split(r"([0-9]+)", path.name))
    ]


def stack_files(folder: Path) -> list[Path]:
    """List the PNG, JPEG and TIFF files of a folder in the order of the numbers in their names.

    A pipe or a broken link counts too: a stack must not be read without one of its slices.
    """
    return sorted(
        (
            file
            for file in folder.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "." and not file.is_dir()
        ),
        key=natural_key,
    )
