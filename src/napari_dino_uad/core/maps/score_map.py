"""The map of a scan from patch scores: a common unit, smoothing, centring, refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.brightness import (
    LESIONS,
    Lesions,
    brightness_term,
    mirror_differences,
)
from napari_dino_uad.core.slices.usual_brightness import UsualBrightness

__all__ = [
    "SYMMETRY_WEIGHT",
    "SYMMETRY_WEIGHT_BESIDE",
    "MapSettings",
    "ScanLevel",
    "ScoreScale",
    "refine_maps",
    "scan_level",
]

#: Weight of the left-right comparison of embeddings if the cohort is symmetric: alone, and beside
#: the comparison of brightness.
SYMMETRY_WEIGHT = 0.5
SYMMETRY_WEIGHT_BESIDE = 0.05

# Variance of scaled intensities below which a window counts as flat, so noise makes no edges.
_FLAT = 1e-3

# Larger than a body: a larger window leaves nothing of a map, and takes hours.
_LARGEST_MM = 1000.0

# Bounds within which scores in single precision stay finite.
_LARGEST_SCORE = 1e12
_LARGEST_WEIGHT = 1e3

# Samples across the radius of a refinement window; more only take time.
_RADIUS_SAMPLES = 5

# Maximum number of patches for the level of a scan; its error is then far below the noise of a
# pixel.
_LEVEL_PATCHES = 50_000

# Scans with fewer slices have the median as their level: a lesion may fill a large part of them.
_LEAST_SLICES = 16

# Percentiles that are the level of a scan, with and without the comparison of brightness.
_LEVEL_COMPARED, _LEVEL_ALONE = 90.0, 85.0

# Farthest that the level lies above the median where brightness is compared, in distances from the
# 25th percentile to the median. Scans of 50 patients without the limit: 2.0 to 3.9, median 2.7.
_LEVEL_LIMIT = 3.0

# Least spread of a scan, in healthy standard deviations.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class MapSettings:
    """Settings that turn patch scores into the map of a scan. Saved with the model.

    Attributes
    ----------
    smoothing_mm : float
        Standard deviation of the Gaussian that smooths the map, in mm along all axes; in pixels of
        the network input if the scan has no spacing.
    detail_mm : float
        Radius of the windows in which the map is fitted to the scan's intensities, so that its
        edges follow the anatomy; same unit as above. 0 turns this off, and the map stays as smooth
        as the patches are large.
    symmetry : float or None
        Weight of the distance between a patch and its mirror image, relative to the model's score,
        both in healthy standard deviations. 0 turns it off. None uses it if the healthy cohort is
        symmetric. Not used in sagittal slices, where left and right are in different slices.
    centring : bool
        Whether to subtract a scan's own level from its scores. Scanners and patients shift the
        scores of the whole scan, a lesion only those of a part.
    lesions : {"either", "bright", "dark", "none"}
        What the reader looks for: tissue that is brighter or darker than the mirrored place gets a
        higher score where the model finds it stranger, too. "bright" and "dark" also prefer tissue
        that is brighter or darker than most of the scan; "none" leaves the brightness out. Only
        where `symmetry` is used, and only if healthy slices are symmetric.
    level : float or None
        Percentile of a scan's tissue scores that is its level; None is 90 where brightness is
        compared, which lowers the scores of healthy tissue beside lesions, and 85 elsewhere.
        Thresholds lie in the upper tail, so an upper percentile makes them hold better for the
        single scan than the median. A lesion of a tenth of the tissue moves it by about half a
        standard deviation of the tissue's scores; see `level_limit`.
    spread : float
        Power of the interquartile range of a scan's tissue scores by which they are divided; 0
        leaves them.
    level_limit : float or None
        Farthest that the level lies above the scan's median, in distances from the 25th percentile
        to the median, which a lesion hardly moves: so a large lesion does not become the level of
        its scan. 0 is no limit; None is 3 where brightness is compared and `level` is None, and no
        limit elsewhere.
    """

    smoothing_mm: float = 5.0
    detail_mm: float = 15.0
    symmetry: float | None = None
    centring: bool = True
    lesions: Lesions = "either"
    level: float | None = None
    spread: float = 0.25
    level_limit: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("smoothing", self.smoothing_mm), ("detail radius", self.detail_mm)):
            if not 0 <= value <= _LARGEST_MM:
                raise InputError(
                    f"The {name} must be 0 to {_LARGEST_MM:g} mm, got {value}; change it."
                )
        if self.symmetry is not None:
            _check_weight("symmetry", self.symmetry)
        if self.lesions not in LESIONS:
            raise InputError(
                f"Lesions must be one of {', '.join(LESIONS)}, got {self.lesions!r}; choose one."
            )
        if self.level is not None and not 0 < self.level < 100:
            raise InputError(
                f"The level of a scan must be a percentile between 0 and 100, got {self.level}; "
                "change it."
            )
        if not 0 <= self.spread <= 1:
            raise InputError(f"The power of the spread must be 0 to 1, got {self.spread}.")
        if self.level_limit is not None and not 0 <= self.level_limit <= _LARGEST_WEIGHT:
            raise InputError(
                f"The limit of a scan's level must be 0 to {_LARGEST_WEIGHT:g}, got "
                f"{self.level_limit}; change it."
            )


@dataclass(frozen=True)
class ScoreScale:
    """Healthy patch scores, which bring the scores of every method to one unit.

    Attributes
    ----------
    mean, deviation : float
        Mean and standard deviation of the model's scores on healthy patches.
    mirror_mean, mirror_deviation : float
        The same for the distances of healthy patches to their mirror image.
    symmetry : float
        Weight of those distances.
    brightness_deviation : float
        Standard deviation of the brightness of healthy patches less that of the mirrored place.
    brightness : float
        Weight of that difference.
    """

    mean: float
    deviation: float
    mirror_mean: float = 0.0
    mirror_deviation: float = 1.0
    symmetry: float = 0.0
    brightness_deviation: float = 1.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mean", "mirror_mean"):
            if not abs(getattr(self, name)) <= _LARGEST_SCORE:
                raise InputError(
                    f"The {name} of healthy scores lies within {_LARGEST_SCORE:g} of 0, got "
                    f"{getattr(self, name)}."
                )
        for name in ("deviation", "mirror_deviation", "brightness_deviation"):
            if not 1 / _LARGEST_SCORE <= getattr(self, name) <= _LARGEST_SCORE:
                raise InputError(
                    f"The {name} of healthy scores lies between {1 / _LARGEST_SCORE:g} and "
                    f"{_LARGEST_SCORE:g}, got {getattr(self, name)}."
                )
        _check_weight("symmetry", self.symmetry)
        _check_weight("brightness", self.brightness)

    def combine(
        self,
        scores: NDArray[np.float32],
        mirror: NDArray[np.float32] | None,
        brightness: NDArray[np.float32] | None = None,
        tissue: NDArray[np.bool_] | None = None,
        lesions: Lesions = "none",
        usual: UsualBrightness | None = None,
    ) -> NDArray[np.float32]:
        """Convert scores to healthy standard deviations and add the weighted asymmetries.

        Parameters
        ----------
        scores : ndarray of float32, (B, h, w)
            Scores of the model.
        mirror : ndarray of float32, (B, h, w), or None
            From `mirror_distance`; None if its weight is 0.
        brightness : ndarray of float32, (B, h, w), optional
            From `PreparedScan.brightness`; None if its weight is 0.
        tissue : ndarray of bool, (B, h, w), optional
            Tissue patches; needed with a brightness.
        lesions : {"either", "bright", "dark", "none"}
            What the reader looks for.
        usual : UsualBrightness, optional
            From `PreparedScan.usual_brightness`; None leaves out the side of it.

        Returns
        -------
        ndarray of float32, (B, h, w)
        """
        out, *added = self.parts(scores, mirror, brightness, tissue, lesions, usual)
        for part in added:
            if part is not None:
                out = out + part
        return np.asarray(out, dtype=np.float32)

    def parts(
        self,
        scores: NDArray[np.float32],
        mirror: NDArray[np.float32] | None,
        brightness: NDArray[np.float32] | None = None,
        tissue: NDArray[np.bool_] | None = None,
        lesions: Lesions = "none",
        usual: UsualBrightness | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Return the summands of `combine`, with the same arguments.

        Returns
        -------
        tuple of (ndarray, ndarray or None, ndarray or None)
            Of the model, the asymmetry of embeddings and the brightness; None for what is left
            out.
        """
        own = np.asarray((scores - self.mean) / self.deviation, dtype=np.float32)
        asymmetry = term = None
        if mirror is not None:
            asymmetry = self.symmetry * ((mirror - self.mirror_mean) / self.mirror_deviation)
        if brightness is not None and tissue is not None and self.brightness > 0:
            difference, stranger = mirror_differences(tissue, brightness, own)
            brighter = difference / np.float32(self.brightness_deviation)
            side = None if usual is None else usual.side(brightness)
            term = self.brightness * brightness_term(brighter, stranger, side, lesions)
        return own, asymmetry, term


def _check_weight(name: str, weight: float) -> None:
    if not 0 <= weight <= _LARGEST_WEIGHT:
        raise InputError(
            f"The weight of {name} must be 0 to {_LARGEST_WEIGHT:g}, got {weight}; change it."
        )


@dataclass(frozen=True)
class ScanLevel:
    """The level and the spread of a scan's own scores, which make scans comparable.

    Attributes
    ----------
    level : float
        Subtracted from the scores.
    divisor : float
        Divides what remains.
    """

    level: float = 0.0
    divisor: float = 1.0

    def apply(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores on the common scale."""
        return np.asarray((maps - np.float32(self.level)) / np.float32(self.divisor))

    def undo(self, score: float) -> float:
        """Return what a score was before `apply`."""
        return score * self.divisor + self.level


def scan_level(
    maps: NDArray[np.float32],
    tissue: NDArray[np.bool_],
    settings: MapSettings,
    compared: bool,
    most: int = _LEVEL_PATCHES,
) -> ScanLevel:
    """Measure the level and the spread of a scan's tissue scores.

    Parameters
    ----------
    maps : ndarray of float32, (slices, h, w)
        Smoothed scores.
    tissue : ndarray of bool, (slices, h, w)
        True for tissue patches of the slices scored.
    settings : MapSettings
        Without `centring` the scores stay as they are.
    compared : bool
        Whether the scores include the comparison of brightness.
    most : int
        Approximate number of patches to use.

    Returns
    -------
    ScanLevel
        Of a scan with fewer than 16 slices, the median and no division: a lesion may fill a large
        part of it.
    """
    values = maps[tissue]
    if not settings.centring or not len(values):
        return ScanLevel()
    values = values[:: max(1, len(values) // most)]
    if len(maps) < _LEAST_SLICES:
        return ScanLevel(float(np.median(values)))
    percentile = settings.level
    if percentile is None:
        percentile = _LEVEL_COMPARED if compared else _LEVEL_ALONE
    level, low, median, high = np.percentile(values, [percentile, 25, 50, 75])
    limit = settings.level_limit
    if limit is None:
        # A percentile that was asked for is taken as it is.
        limit = _LEVEL_LIMIT if compared and settings.level is None else 0.0
    if limit > 0:
        level = min(level, median + limit * (median - low))
    spread = max(float(high - low), _LEAST_SPREAD)
    return ScanLevel(float(level), spread**settings.spread)


def refine_maps(
    maps: NDArray[np.float32],
    intensities: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    pixel_mm: Sequence[float],
    radius_mm: float,
) -> NDArray[np.float32]:
    """Make the edges of maps follow the edges in their slices.

    In every window, the map is a linear function of the intensities, fitted by least squares over
    the tissue: the guided filter of K. He, J. Sun and X. Tang, "Guided Image Filtering", IEEE
    TPAMI 35 (2013), Eqs. 5, 6 and 8. The coefficients are computed on a coarser grid and enlarged,
    as in the same authors' fast version (arXiv 1505.00996).

    Parameters
    ----------
    maps : ndarray of float32, (B, rows, cols)
        Scores, resampled to pixels.
    intensities : ndarray of float32, (B, rows, cols)
        The slices, scaled to [0, 1].
    foreground : ndarray of bool, (B, rows, cols)
        Tissue.
    pixel_mm : sequence of float
        Pixel size along rows and columns, in mm.
    radius_mm : float
        Half the edge of a window in mm; 0 returns the maps unchanged.

    Returns
    -------
    ndarray of float32, (B, rows, cols)
    """
    if radius_mm == 0:
        return maps
    from scipy.ndimage import uniform_filter

    steps = [max(1, int(radius_mm / size / _RADIUS_SAMPLES)) for size in pixel_mm]
    edges = [
        2 * round(radius_mm / size / step) + 1 for size, step in zip(pixel_mm, steps, strict=True)
    ]
    p, i, w = (
        np.ascontiguousarray(array[:, :: steps[0], :: steps[1]], dtype=np.float32)
        for array in (maps, intensities, foreground)
    )

    def window_sum(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(uniform_filter(values, (1, *edges), mode="constant"))

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return window_sum(values * w) / share

    share = np.maximum(window_sum(w), np.float32(1e-4))
    mean_i, mean_p = mean(i), mean(p)
    slope = (mean(i * p) - mean_i * mean_p) / (mean(i * i) - mean_i * mean_i + np.float32(_FLAT))
    offset = mean_p - slope * mean_i
    slope, offset = (
        _enlarged(coefficients, maps.shape[1:]) for coefficients in (mean(slope), mean(offset))
    )
    return np.asarray(slope * intensities + offset)


def _enlarged(maps: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Enlarge maps (B, h, w) to (B, *shape), bilinearly."""
    import torch
    import torch.nn.functional as F

    if maps.shape[1:] == shape:
        return maps
    grid = torch.from_numpy(maps)[:, None]
    return np.asarray(
        F.interpolate(grid, size=shape, mode="bilinear", align_corners=False)[:, 0].numpy()
    )
