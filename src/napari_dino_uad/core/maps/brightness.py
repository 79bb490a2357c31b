"""How much brighter or darker each patch is than the mirrored place of its slice.

A healthy head has the same brightness on both sides, and most readers know whether the lesions of
a sequence are bright or dark. The difference needs no network, and errs differently from one.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BRIGHTNESS_WEIGHTS",
    "LESIONS",
    "Lesions",
    "brightness_term",
    "mirror_difference",
]

#: What the reader looks for; "none" leaves the brightness out.
Lesions = Literal["either", "bright", "dark", "none"]
LESIONS: tuple[Lesions, ...] = get_args(Lesions)

#: Weight of the term beside the model's score, both in healthy standard deviations.
BRIGHTNESS_WEIGHTS: dict[Lesions, float] = {"either": 1.2, "bright": 0.6, "dark": 0.6, "none": 0.0}

# Standard deviation in patches of the Gaussian that smooths each slice before it is mirrored: heads
# are slightly tilted, and their halves are no exact mirror images.
_SMOOTHING = 1.0

# Share of tissue around the mirrored place below which there is nothing to compare with.
_LEAST_TISSUE = 0.5

# Difference of the model's scores between the two sides, in healthy standard deviations, at which
# the side with the lesion is nearly certain.
_CERTAIN = 0.6


def mirror_difference(
    values: NDArray[np.float32], tissue: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the value of each patch less that of the mirrored place, both smoothed.

    The mirror line is the column of the tissue's centroid in each slice.

    Parameters
    ----------
    values : ndarray of float32, (B, h, w)
        Brightness or scores of slices whose columns run from left to right.
    tissue : ndarray of bool, (B, h, w)
        True for tissue patches.

    Returns
    -------
    ndarray of float32, (B, h, w)
        0 if either side has no tissue.
    """
    weight = tissue.astype(np.float32)
    smooth, share = _smoothed(values * weight), _smoothed(weight)
    np.divide(smooth, share, out=smooth, where=share > 1e-3)
    smooth *= weight
    out = np.zeros_like(smooth)
    columns = np.arange(tissue.shape[2])
    for image, inside, difference in zip(smooth, weight, out, strict=True):
        patches = inside.sum()
        if patches == 0:
            continue
        place = 2 * float((inside.sum(axis=0) * columns).sum() / patches) - columns
        opposite, found = _at(image, place), _at(inside, place)
        both = (found > _LEAST_TISSUE) & (inside > 0)
        difference[both] = image[both] - opposite[both] / found[both]
    return out


def brightness_term(
    brighter: NDArray[np.float32], stranger: NDArray[np.float32], lesions: Lesions
) -> NDArray[np.float32]:
    """Return what the brightness adds to the score of each patch.

    A bright lesion on the left and a dark one on the right differ in brightness alike; the model's
    scores decide which side is the abnormal one. Knowing what lesions look like decides it too.

    Parameters
    ----------
    brighter : ndarray of float32
        Difference in brightness from the mirrored place, in healthy standard deviations.
    stranger : ndarray of float32
        Difference in the model's score, likewise.
    lesions : {"either", "bright", "dark"}
        What the reader looks for.

    Returns
    -------
    ndarray of float32
        In healthy standard deviations of brightness.
    """
    term = np.abs(brighter) * np.tanh(stranger / np.float32(_CERTAIN))
    if lesions == "bright":
        term += brighter
    elif lesions == "dark":
        term -= brighter
    return np.asarray(term)


def _smoothed(images: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    sigma = (0, _SMOOTHING, _SMOOTHING)
    return np.asarray(gaussian_filter(images, sigma, mode="constant", truncate=3.0))


def _at(image: NDArray[Any], place: NDArray[Any]) -> NDArray[np.float32]:
    """Return the columns of an image (h, w) at fractional places (w,); 0 beyond the border."""
    left = np.floor(place).astype(np.intp)
    share = (place - left).astype(np.float32)
    padded = np.pad(image, ((0, 0), (1, 1)))
    last = padded.shape[1] - 1
    return np.asarray(
        padded[:, np.clip(left + 1, 0, last)] * (1 - share)
        + padded[:, np.clip(left + 2, 0, last)] * share
    )
