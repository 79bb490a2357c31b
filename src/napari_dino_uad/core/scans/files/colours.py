"""Single pictures in colour: fundus, dermatoscopy, pathology."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.files.stored_image import grey_values

__all__ = ["grey_or_colour", "luminance"]

# Luma of red, green and blue, ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# What a channel of 16 bits has for each step of one of 8 bits.
_STEP_16 = 257


def luminance(colour: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the brightness of colours, (..., 3) -> (...), from 0 to 255."""
    return np.asarray(colour @ _LUMA, dtype=np.float32)


def grey_or_colour(
    values: NDArray[Any], name: str
) -> tuple[NDArray[Any], NDArray[np.uint8] | None, tuple[str, ...]]:
    """Separate a picture into its brightness and, if it is no grey one, its colours.

    Parameters
    ----------
    values : ndarray, (..., channels)
        Grey with or without opacity, or red, green and blue with or without opacity.
    name : str
        Of the file, for messages.

    Returns
    -------
    brightness : ndarray, (...)
        The grey value as stored, or the luminance of the colour, float32 from 0 to 255.
    colour : ndarray of uint8, (..., 3), or None
        None if all pixels are grey.
    notices : tuple of str
        That some pixels are transparent.

    Raises
    ------
    InputError
        If the channels are no colours of 8 or 16 bits.
    """
    count = values.shape[-1]
    if count not in (3, 4) or values.dtype not in (np.uint8, np.uint16):
        return grey_values(values, name), None, ()
    colour = values[..., :3]
    if (colour == colour[..., :1]).all():
        return colour[..., 0], None, ()
    clear = count == 4 and bool((values[..., 3] < np.iinfo(values.dtype).max).any())
    notice = f"{name} has transparent pixels; their colours are used as they are stored."
    if colour.dtype == np.uint16:
        colour = (colour + np.uint32(_STEP_16 // 2)) // _STEP_16
    colour = np.ascontiguousarray(colour, dtype=np.uint8)
    return luminance(colour), colour, (notice,) if clear else ()
