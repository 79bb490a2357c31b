"""Synthetic pictures of the back of an eye, in colour: a disc, a bright spot and vessels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_dino_uad.core.scans.files.colours import luminance

ROWS, COLUMNS = 120, 160
_GROUND = np.array([190.0, 90.0, 40.0])
#: As bright as the ground: only the colour tells it.
_LESION = np.array([60.0, 156.0, 37.0])


def fundus(seed: int, lesion: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Make a picture (rows, cols, 3) and the mask of its lesion."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:ROWS, :COLUMNS].astype(float)
    eye = (rows - ROWS / 2) ** 2 + (columns - COLUMNS / 2) ** 2 < (0.47 * ROWS) ** 2
    texture = gaussian_filter(random.normal(size=(ROWS, COLUMNS)), 3)
    picture = _GROUND * (1 + 0.6 * texture[..., None])
    place = ROWS / 2 + random.uniform(-6, 6), 0.66 * COLUMNS + random.uniform(-6, 6)
    spot = np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 60)
    picture += spot[..., None] * np.array([50.0, 90.0, 50.0])
    for slope in random.uniform(-0.6, 0.6, 5):
        vessel = np.abs(rows - place[0] - slope * (columns - place[1])) < 1.2
        picture[vessel] *= 0.7
    mask = np.zeros((ROWS, COLUMNS), bool)
    if lesion:
        centre = ROWS / 2 + random.uniform(-15, 15), 0.36 * COLUMNS
        mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 11**2
        shade = luminance(picture.astype(np.float32))[mask] / luminance(_LESION.astype(np.float32))
        picture[mask] = _LESION * shade[:, None]
    picture[~eye] = 0
    return np.clip(np.round(picture), 0, 255).astype(np.uint8), mask & eye
