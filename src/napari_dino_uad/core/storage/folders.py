"""The folder for everything that is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["FOLDER_VARIABLE", "cache_home"]

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
