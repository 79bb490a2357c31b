"""How much brighter or darker each patch is than the mirrored place, and than its scan's tissue.

A healthy head has the same brightness on both sides, and most readers know whether the lesions of
a sequence are bright or dark. The difference needs no network, and errs differently from one.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BRIGHTNESS_WEIGHTS",
    "LESIONS",
    "Lesions",
    "brightness_term",
    "mirror_difference",
    "mirror_differences",
]

#: What the reader looks for; "none" leaves the brightness out.
Lesions = Literal["either", "bright", "dark", "none"]
LESIONS: tuple[Lesions, ...] = get_args(Lesions)

#: Weight of the term beside the model's score, which is in healthy standard deviations.
BRIGHTNESS_WEIGHTS: dict[Lesions, float] = {"either": 1.6, "bright": 1.2, "dark": 1.2, "none": 0.0}

# Weight of being on the side of the usual brightness that the reader looks for, relative to those
# above. Most healthy tissue that a model finds strange is on the other side.
_SIDE_WEIGHT = 1.8


# Standard deviation in patches of the Gaussian that smooths each slice before it is mirrored: heads
# are slightly tilted, and their halves are no exact mirror images.
_SMOOTHING = 1.0

# Share of tissue around the mirrored place below which there is nothing to compare with.
_LEAST_TISSUE = 0.5

# Smoothed tissue below which a mean over it is noise.
_LEAST_SHARE = 1e-3

# Difference of the model's scores between the two sides, in healthy standard deviations, at which
# the side with the lesion is nearly certain.
_CERTAIN = 0.6


def mirror_difference(
    values: NDArray[np.float32], tissue: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the value of each patch less that of the mirrored place, both smoothed.

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
    return mirror_differences(tissue, values)[0]


def mirror_differences(
    tissue: NDArray[np.bool_], *values: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Return `mirror_difference` of several values of the same slices, in one go.

    The mirror line is the column of the tissue's centroid in each slice.
    """
    weight = tissue.astype(np.float32)
    smooth = _smoothed(np.stack([weight, *(one * weight for one in values)]))
    share, smooth = smooth[0], smooth[1:]
    np.divide(smooth, share, out=smooth, where=share > _LEAST_SHARE)
    smooth *= weight
    out = np.zeros_like(smooth)
    for number, inside in enumerate(weight):
        if not inside.any():
            continue
        mirror = _mirror(inside)
        found = inside @ mirror
        both = (found > _LEAST_TISSUE) & (inside > 0)
        here, opposite = smooth[:, number], smooth[:, number] @ mirror
        out[:, number][:, both] = here[:, both] - opposite[:, both] / found[both]
    return list(out)


def brightness_term(
    brighter: NDArray[np.float32],
    stranger: NDArray[np.float32],
    side: NDArray[np.float32] | None,
    lesions: Lesions,
) -> NDArray[np.float32]:
    """Return what the brightness adds to the score of each patch.

    A bright lesion on the left and a dark one on the right differ in brightness alike; the model's
    scores decide which side is the abnormal one. Who knows that lesions are bright need not look at
    tissue that is darker than most.

    Parameters
    ----------
    brighter : ndarray of float32
        Difference in brightness from the mirrored place, in healthy standard deviations.
    stranger : ndarray of float32
        Difference in the model's score, likewise.
    side : ndarray of float32, optional
        From `UsualBrightness.side`; None leaves it out.
    lesions : {"either", "bright", "dark"}
        What the reader looks for.

    Returns
    -------
    ndarray of float32
        The root of the difference, so that a few very large ones do not outweigh all others,
        signed by the model, and the side.
    """
    term = np.sqrt(np.abs(brighter)) * np.tanh(stranger / np.float32(_CERTAIN))
    if side is not None and lesions in ("bright", "dark"):
        weight = np.float32(_SIDE_WEIGHT if lesions == "bright" else -_SIDE_WEIGHT)
        term += weight * side
    return np.asarray(term)


def _smoothed(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth images along their last two axes."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(
        gaussian_filter(images, _SMOOTHING, mode="constant", truncate=3.0, axes=(-2, -1))
    )


def _mirror(inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the matrix that reads the columns of a slice (h, w) at their mirrored places, (w, w).

    Places lie between columns, and are interpolated linearly; beyond the border there is nothing.
    """
    width = inside.shape[1]
    columns = np.arange(width)
    place = 2 * float((inside.sum(axis=0) * columns).sum() / inside.sum()) - columns
    left = np.floor(place).astype(np.intp)
    share = (place - left).astype(np.float32)
    out = np.zeros((width, width), dtype=np.float32)
    for source, part in ((left, 1 - share), (left + 1, share)):
        known = (source >= 0) & (source < width)
        out[source[known], columns[known]] += part[known]
    return out
