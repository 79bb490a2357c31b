"""Find the cases of a path that is in a layout of its own, and say what a pattern means there."""

from __future__ import annotations

from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.cases import Case
from napari_dino_uad.core.scans.files.image_format import is_folder
from napari_dino_uad.core.scans.layouts.bids import bids_cases, is_bids
from napari_dino_uad.core.scans.layouts.bmad import bmad_images
from napari_dino_uad.core.scans.layouts.mvtec import mvtec_images
from napari_dino_uad.core.scans.layouts.table import is_table, table_cases
from napari_dino_uad.core.scans.layouts.visa import visa_images

__all__ = ["cases_in_layout", "check_pattern"]

_CLASS_FOLDERS = (mvtec_images, visa_images, bmad_images)


def cases_in_layout(path: Path, pattern: str | None, mask_pattern: str | None) -> list[Case] | None:
    """List the cases of a path in a layout that this package knows.

    Parameters
    ----------
    path : Path
        A file or folder.
    pattern, mask_pattern : str or None
        As in `find_cases`.

    Returns
    -------
    list of Case or None
        None if it is an ordinary file or folder, whose scans are found by name.

    Raises
    ------
    InputError
        If a table or a BIDS data set has no such scans.
    """
    if is_table(path):
        if mask_pattern is not None:
            raise InputError(
                f"{path.name} is a table, whose masks stand in its column mask; leave out the mask "
                "pattern."
            )
        return table_cases(path, pattern)
    if not is_folder(path) or _has_star(pattern):
        return None
    if is_bids(path):
        return bids_cases(path, pattern, mask_pattern)
    if pattern is not None:
        return None
    for list_images in _CLASS_FOLDERS:
        images = list_images(path)
        if images:
            return [Case(image, mask, healthy) for image, mask, healthy in images]
    return None


def check_pattern(text: str | None) -> None:
    """Check a pattern for names of files, outside of tables and BIDS data sets.

    Raises
    ------
    InputError
        If it has no single ``*``.
    """
    if text is not None and text.count("*") != 1:
        raise InputError(
            f"A pattern needs one * for the case name, got {text!r}; change it, "
            "and put it in quotes, or the shell replaces the *. Without * it asks "
            "for a kind of scan, such as FLAIR, in a BIDS data set, or for rows, such as "
            "split=train, of a table."
        )


def _has_star(pattern: str | None) -> bool:
    return pattern is not None and "*" in pattern
