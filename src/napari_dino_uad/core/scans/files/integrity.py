"""Errors for files that are not whole, and the check of an image's values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["clean_values", "damaged", "wrong_length"]

# Larger values are fill values or damage: their squares overflow single precision.
_LARGEST = 1e18


def damaged(name: str) -> InputError:
    """Return the error to raise for a file that is not whole."""
    return InputError(
        f"{name} cannot be read as an image; expected a whole file, got one that is truncated or "
        "damaged; copy or download it again."
    )


def wrong_length(name: str, expected: int, found: int) -> InputError:
    """Return the error to raise for a file with too few or too many bytes of voxels."""
    return InputError(
        f"{name} is truncated or damaged: {expected} bytes of voxels are expected from its header, "
        f"but it has {found if found <= expected else 'more'}; copy or download it again."
    )


def clean_values(
    array: NDArray[Any],
    name: str,
    allow_constant: bool,
    *,
    owned: bool = False,
    labels: bool = False,
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Copy an image to contiguous float32, with finite values only.

    Parameters
    ----------
    array : ndarray
        Of real numbers.
    name : str
        Name of the case, for messages.
    allow_constant : bool
        Whether an image with a single value, such as an empty mask, is accepted.
    owned : bool
        Whether nothing else uses the array, so that it need not be copied.
    labels : bool
        Whether the values are labels: 0, the background, replaces what is not finite.

    Returns
    -------
    values : ndarray of float32
        NaN and infinity became the lowest finite value, or the background of labels.
    notices : tuple of str
        How many there were, if any.

    Raises
    ------
    InputError
        If no value is finite, one is huge, or all are equal.
    """
    if array.size == 0:
        raise InputError(f"{name} has no voxels; expected an image of at least one slice.")
    with np.errstate(invalid="ignore"):
        lowest, highest = float(array.min()), float(array.max())
    notices: tuple[str, ...] = ()
    if not np.isfinite([lowest, highest]).all():
        finite = np.isfinite(array)
        if not finite.any():
            raise InputError(
                f"{name} holds no finite number, only NaN or infinity; export the scan again."
            )
        lowest, highest = float(array[finite].min()), float(array[finite].max())
        count = array.size - int(np.count_nonzero(finite))
        if labels:
            lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        instead = 0.0 if labels else lowest
        array = np.where(finite, array, array.dtype.type(instead))
        notices = (
            f"{name} has {count:,} voxel{'s' if count > 1 else ''} of NaN or infinity; "
            + (
                "they count as background."
                if labels
                else f"the lowest value, {lowest:.4g}, takes their place."
            ),
        )
    extreme = max(lowest, highest, key=abs)
    if abs(extreme) > _LARGEST:
        raise InputError(
            f"{name} holds the value {extreme:.3g}, but grey values are expected; replace the "
            "fill value by 0 and export the scan again."
        )
    if not allow_constant and lowest == highest:
        raise InputError(
            f"{name} has the value {lowest:g}{' or NaN' if notices else ''} in every voxel, but "
            "an image with contrast is expected; choose another file."
        )
    if owned:
        return np.ascontiguousarray(array, dtype=np.float32), notices
    # The copy is needed even of float32: the view dies with SimpleITK's image.
    return np.array(array, dtype=np.float32, order="C"), notices
