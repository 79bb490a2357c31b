"""The folder for everything kept from run to run."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["FOLDER_VARIABLE", "cache_home"]

#: Environment variable: a folder, or "off".
FOLDER_VARIABLE = "NAPARI_DINO_UAD_CACHE"


def cache_home() -> Path | None:
    """Return the folder for all that is kept from run to run, or None where it is "off".

    The environment variable ``NAPARI_DINO_UAD_CACHE`` names it; without it, it is where the
    system keeps caches.
    """
    place = os.environ.get(FOLDER_VARIABLE, "")
    if place.lower() == "off":
        return None
    if not place:
        import platformdirs

        place = platformdirs.user_cache_dir("napari-dino-uad", appauthor=False)
    return Path(place).expanduser()
