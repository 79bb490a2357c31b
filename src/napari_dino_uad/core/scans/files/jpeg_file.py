"""JPEG files, decoded by Pillow, which refuses one that is cut short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.files.integrity import damaged

__all__ = ["JPEG_MAGIC", "read_jpeg"]

JPEG_MAGIC = b"\xff\xd8\xff"

_ORIENTATION = 0x0112
_UPRIGHT = 1
# Pillow's names of grey and of red, green and blue.
_MODES = ("L", "RGB")


def read_jpeg(path: Path) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Decode a JPEG picture.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    values : ndarray of uint8, (rows, cols) or (rows, cols, 3)
        Upright: turned as its camera asks for.
    notices : tuple of str
        That it was turned.

    Raises
    ------
    InputError
        If it is cut short or damaged, has other colours than red, green and blue, or does not fit
        into memory.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("JPEG",)) as picture:
            check_reading(path.name, picture.size, len(picture.getbands()))
            if picture.mode not in _MODES:
                raise InputError(
                    f"{path.name} has colours of the kind {picture.mode}, but grey or red, green "
                    "and blue are expected; convert it."
                )
            turned = picture.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
            values = np.asarray(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    # Pillow raises any of these for a damaged file.
    except (OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError) as error:
        raise damaged(path.name) from error
    notice = f"{path.name} is shown upright, as its camera recorded; masks must be upright too."
    return values, (notice,) if turned else ()
