"""The folder for everything that is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["FOLDER_VARIABLE", "cache_home", "own_folder"]

#: Environment variable: a folder, or "off".
FOLDER_VARIABLE = "NAPARI_DINO_UAD_CACHE"


def cache_home() -> Path | None:
    """Return the folder for everything that is kept between runs, or None if it is "off".

    The environment variable ``NAPARI_DINO_UAD_CACHE`` names it; the default is the system's
    folder for caches.
    """
    place = os.environ.get(FOLDER_VARIABLE, "")
    if place.lower() == "off":
        return None
    if not place:
        import platformdirs

        place = platformdirs.user_cache_dir("napari-dino-uad", appauthor=False)
    return Path(place).expanduser()


def own_folder(path: Path) -> None:
    """Create a folder and those above it that are missing, for their owner alone.

    Raises
    ------
    OSError
        If that is impossible.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    # A file, or a broken link, in its place.
    path.mkdir(exist_ok=True)
