"""From the scores of patches to the map of a scan: one unit, smoothed, and centred on the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["SYMMETRY_WEIGHT", "MapSettings", "ScoreScale", "scan_level"]

#: Weight of the comparison of left and right where the cohort is symmetric.
SYMMETRY_WEIGHT = 0.5

# Patches that the level of a scan is taken from at most: its error is then far below a pixel's
# noise, and it can be taken again at every batch.
_LEVEL_PATCHES = 50_000


@dataclass(frozen=True)
class MapSettings:
    """How patch scores become the map of a scan. Saved with the model.

    Attributes
    ----------
    smoothing_mm : float
        Standard deviation of the Gaussian that smooths the map, in mm along all axes.
    symmetry : float or None
        Weight of the distance between a patch and its mirror image, in healthy standard
        deviations beside the model's score. 0 leaves it out; None lets the healthy cohort
        decide whether it is symmetric.
    centring : bool
        Whether the scan's own median score is taken from its scores. Scanners and people shift
        the scores of a whole scan; a lesion those of a part.
    """

    smoothing_mm: float = 7.5
    symmetry: float | None = None
    centring: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing_mm < np.inf:
            raise InputError(f"The smoothing is 0 mm or more, but {self.smoothing_mm} came.")
        if self.symmetry is not None and not 0 <= self.symmetry < np.inf:
            raise InputError(f"The weight of symmetry is 0 or more, but {self.symmetry} came.")


@dataclass(frozen=True)
class ScoreScale:
    """Healthy scores of patches, which give scores of every model one unit.

    Attributes
    ----------
    mean, deviation : float
        Of the model's scores on healthy patches.
    mirror_mean, mirror_deviation : float
        Of the distances of healthy patches to their mirror image.
    symmetry : float
        Weight of those distances.
    """

    mean: float
    deviation: float
    mirror_mean: float = 0.0
    mirror_deviation: float = 1.0
    symmetry: float = 0.0

    def combine(
        self, scores: NDArray[np.float32], mirror: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Express scores in healthy standard deviations and add the weighted asymmetry.

        Parameters
        ----------
        scores : ndarray of float32, (B, h, w)
            Of the model.
        mirror : ndarray of float32, (B, h, w), or None
            From `mirror_distance`; None where it has no weight.

        Returns
        -------
        ndarray of float32, (B, h, w)
        """
        out = (scores - self.mean) / self.deviation
        if mirror is not None:
            out += self.symmetry * ((mirror - self.mirror_mean) / self.mirror_deviation)
        return np.asarray(out, dtype=np.float32)


def scan_level(
    maps: NDArray[np.float32], tissue: NDArray[np.bool_], known: NDArray[np.bool_]
) -> float:
    """Return the median score of a scan's tissue; infinity where there is none.

    Parameters
    ----------
    maps : ndarray of float32, (slices, h, w)
        Smoothed scores.
    tissue : ndarray of bool, (slices, h, w)
        Which patches are tissue.
    known : ndarray of bool, (slices,)
        Which slices are scored.
    """
    values = maps[tissue & known[:, None, None]]
    values = values[:: max(1, len(values) // _LEVEL_PATCHES)]
    return float(np.median(values)) if len(values) else np.inf
