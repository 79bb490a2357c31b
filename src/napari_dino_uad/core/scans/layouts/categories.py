"""Data sets with a folder for each category, and one for each class of images in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from napari_dino_uad.core.scans.formats import stack_files

__all__ = ["categories_of", "images_of"]


def categories_of(
    folder: Path, is_category: Callable[[Path], bool], deepest: int
) -> Iterator[Path]:
    """Find the categories that a folder is, lies in, or has.

    Parameters
    ----------
    folder : Path
    is_category : callable
        Says whether a folder is one.
    deepest : int
        How many folders above this one may be the category.
    """
    for place in (folder, *list(folder.parents)[:deepest]):
        if is_category(place):
            yield place
            return
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and is_category(entry):
            yield entry


def images_of(classes: Iterable[Path], folder: Path) -> Iterator[Path]:
    """List the images of folders of classes, as far as they lie in a folder.

    Parameters
    ----------
    classes : iterable of Path
        Folders of images; those that are not there have none.
    folder : Path
        What was asked for: a folder above the classes, or one of them.
    """
    for place in classes:
        asked = place.is_relative_to(folder) or folder.is_relative_to(place)
        if asked and place.is_dir():
            yield from stack_files(place)
