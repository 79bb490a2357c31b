"""Preprocessing settings, which a fitted model keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.slices.planes import PLANES, Plane

__all__ = ["LATER", "Preprocessing"]

#: Settings that earlier versions did not have, with the values that act as those did.
LATER = {"colour": False, "imagenet": True, "object_mask": False}
# Largest edge of the network's input in pixels: beyond it, not even one slice fits in memory.
_LARGEST_INPUT = 8192


@dataclass(frozen=True)
class Preprocessing:
    """Settings that turn a scan into network input. Saved with the model.

    Attributes
    ----------
    plane : {"axial", "coronal", "sagittal"}
        The plane in which slices are cut.
    input_size : int
        Shorter edge of the network input in pixels, after resampling to square pixels.
    window : tuple of float or None
        Fixed (centre, width), for CT. None scales to `percentile` of the foreground instead.
    percentile : float
        Percentile of the foreground that is scaled to 1 when `window` is None.
    foreground_threshold : float
        Scaled intensity above which a voxel is foreground.
    neighbours : bool
        True puts the previous, the current and the next slice into the three input channels; False
        repeats the current slice.
    colour : bool
        Pictures in colour, whose red, green and blue are the three input channels. `fit` sets it
        by what it is given.
    imagenet : bool
        Whether channels are normalised with the mean and deviation of ImageNet, as all backbones
        were trained; otherwise they stay in [0, 1].
    object_mask : bool
        Whether the foreground is also restricted to the object that the first principal component
        of a slice's embeddings separates from its background.
    """

    plane: Plane = "axial"
    input_size: int = 256
    window: tuple[float, float] | None = None
    percentile: float = 99.5
    foreground_threshold: float = 0.08
    neighbours: bool = True
    colour: bool = False
    imagenet: bool = True
    object_mask: bool = False

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise InputError(
                f"The plane must be one of {', '.join(PLANES)}, got {self.plane!r}; choose one."
            )
        if self.input_size < 64:
            raise InputError(
                f"The input size must be at least 64 pixels, got {self.input_size}; raise it."
            )
        if self.input_size > _LARGEST_INPUT:
            raise InputError(
                f"The input size must be at most {_LARGEST_INPUT} pixels, got {self.input_size}."
            )
        if not 0 < self.percentile <= 100:
            raise InputError(f"The percentile lies in (0, 100], got {self.percentile}.")
        if not 0 <= self.foreground_threshold < 1:
            raise InputError(
                f"The foreground threshold lies in [0, 1), got {self.foreground_threshold}."
            )
        if self.window is not None:
            if not np.isfinite(self.window).all():
                raise InputError(f"The window must be two finite numbers, got {self.window}.")
            if self.window[1] <= 0:
                raise InputError(
                    f"The window width must be above 0, got {self.window[1]}; raise it."
                )
            object.__setattr__(self, "window", (float(self.window[0]), float(self.window[1])))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for a file header."""
        values = dataclasses.asdict(self)
        # Absent where they are as in earlier models and caches, whose settings stay the same.
        return {key: one for key, one in values.items() if key not in LATER or one != LATER[key]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Build the settings from the output of `to_dict`."""
        window = values.get("window")
        return cls(**{**values, "window": None if window is None else tuple(window)})
