"""Calibration: the false-positive rate of each score on healthy tissue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.storage.tensor_schema import TensorSpec

if TYPE_CHECKING:
    import torch

__all__ = ["Calibration"]

# Rates at which the upper quantiles of healthy scores are kept: linear in the bulk, logarithmic in
# the tail, where thresholds are.
_RATES = np.unique(np.concatenate([np.linspace(0.02, 1.0, 99), np.geomspace(1e-5, 0.02, 200)]))[
    ::-1
]

# Pixels kept per scan: enough to resolve its rates to a few in a million.
_SCAN_PIXELS = 500_000

# Share of healthy scans outside an interval, on either side.
_OUTSIDE = 0.1

# Share of the threshold's rate at which the minimum size of a finding counts.
_CORE_SHARE = 0.5


@dataclass(frozen=True)
class Calibration:
    """Upper quantiles of the scores of healthy tissue.

    Attributes
    ----------
    rates : ndarray of float64, (M,)
        False-positive rates, decreasing from 1.
    scores : ndarray of float64, (M,)
        The score that a share `rates` of healthy pixels exceeds, as the mean over healthy scans;
        increasing.
    pixels : int
        Number of healthy pixels used; rates below 1 / pixels are not resolved.
    scan_rates : ndarray of float64, (S, M)
        The share of each healthy scan's pixels that exceeds `scores`.
    """

    rates: NDArray[np.float64]
    scores: NDArray[np.float64]
    pixels: int
    scan_rates: NDArray[np.float64]

    @classmethod
    def from_scans(cls, healthy: Sequence[NDArray[np.floating]], least: int = 1000) -> Calibration:
        """Calibrate on the scores of healthy scans, with equal weight for each scan.

        If all pixels were pooled, a large scan would dominate.

        Parameters
        ----------
        healthy : sequence of ndarray, (N,)
            Scores of the healthy foreground pixels of each scan.
        least : int
            Minimum number of pixels.

        Raises
        ------
        InputError
            If there are fewer pixels than `least`.
        """
        pixels = sum(scores.size for scores in healthy)
        if pixels < least:
            raise InputError(
                f"Expected at least {least:,} healthy pixels to calibrate on, got {pixels}; hold "
                "out more healthy slices."
            )
        scans = [
            np.sort(scores[:: max(1, scores.size // _SCAN_PIXELS)]).astype(np.float64)
            for scores in healthy
            if scores.size
        ]
        rates = _resolved_rates(pixels)
        values = np.concatenate(scans)
        shares = np.concatenate(
            [np.full(scan.size, 1 / (scan.size * len(scans))) for scan in scans]
        )
        order = np.argsort(values, kind="stable")
        values = values[order]
        # Share of healthy pixels up to the middle of each value.
        below = np.cumsum(shares[order]) - 0.5 * shares[order]
        scores = np.maximum.accumulate(np.interp(1 - rates, below, values))
        return cls(
            rates,
            scores,
            pixels,
            np.stack([1 - np.searchsorted(scan, scores, "right") / scan.size for scan in scans]),
        )

    def threshold(self, false_positive_rate: float) -> float:
        """Return the score that a share of healthy pixels exceeds.

        Parameters
        ----------
        false_positive_rate : float
            In (0, 1].

        Raises
        ------
        InputError
            If the rate is outside (0, 1].
        """
        if not 0 < false_positive_rate <= 1:
            raise InputError(
                f"A false-positive rate must be in (0, 1], got {false_positive_rate}; change it."
            )
        return float(np.interp(-np.log(false_positive_rate), -np.log(self.rates), self.scores))

    def core_threshold(self, false_positive_rate: float) -> float:
        """Return the score above which a finding at this rate has its minimum size.

        It is that of half the rate: chosen in cross-validation, where it drops half of the false
        findings and hardly any largest lesion of a patient (docs/experiments.md).

        Parameters
        ----------
        false_positive_rate : float
            Of the findings' threshold, in (0, 1].

        Examples
        --------
        >>> calibration = Calibration.from_scans([np.linspace(0, 1, 10_001)])
        >>> round(calibration.threshold(0.1), 2), round(calibration.core_threshold(0.1), 2)
        (0.9, 0.95)
        """
        return self.threshold(_CORE_SHARE * false_positive_rate)

    def interval(self, false_positive_rate: float) -> tuple[float, float]:
        """Return the range of actual rates in four of five healthy scans.

        Parameters
        ----------
        false_positive_rate : float
            The nominal rate, in (0, 1].

        Returns
        -------
        tuple of (float, float)
            The 10th and 90th percentile, over the healthy scans, of the share of their pixels above
            the threshold of the nominal rate.
        """
        nominal, known = -np.log(false_positive_rate), -np.log(self.rates)
        realised = [float(np.interp(nominal, known, scan)) for scan in self.scan_rates]
        low, high = np.quantile(realised, [_OUTSIDE, 1 - _OUTSIDE])
        return float(low), float(high)

    def false_positive_rate(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the share of healthy pixels that exceed each score: its p-value.

        Parameters
        ----------
        scores : array_like
            Any shape.

        Returns
        -------
        ndarray of float64
            Same shape, in [the lowest resolved rate, 1].
        """
        return np.exp(
            np.interp(np.asarray(scores, dtype=np.float64), self.scores, np.log(self.rates))
        )

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """Return the arrays to save."""
        return {"rates": self.rates, "scores": self.scores, "scan_rates": self.scan_rates}

    @staticmethod
    def described(pixels: int) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold, of M rates and S scans.

        Parameters
        ----------
        pixels : int
            Healthy pixels the calibration rests on: they say which rates there are.
        """
        expected = _resolved_rates(pixels)

        def same(rates: torch.Tensor) -> str:
            if rates.shape == expected.shape and np.allclose(rates.numpy(), expected):
                return ""
            return f"does not hold the {len(expected)} rates that {pixels:,} pixels resolve"

        return {
            "rates": TensorSpec(("M",), "float64", above=0, most=1, rule=same),
            "scores": TensorSpec(("M",), "float64", rule=_increasing),
            "scan_rates": TensorSpec(
                ("S", "M"), "float64", least=0, most=1, rule=lambda shares: _increasing(-shares)
            ),
        }


def _resolved_rates(pixels: int) -> NDArray[np.float64]:
    """Return the rates that some pixels resolve, decreasing from 1."""
    return np.asarray(_RATES[np.maximum(1.0 / pixels, 1e-5) <= _RATES])


def _increasing(values: torch.Tensor) -> str:
    """Rule: values nowhere fall along the last axis."""
    return "" if bool((values.diff(dim=-1) >= 0).all()) else "is not in order"
