"""What scores mean: the false-positive rate each would have on healthy tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["Calibration"]

# Rates at which the healthy scores' upper quantiles are kept: evenly in the bulk, and
# logarithmically in the tail, where thresholds live.
_RATES = np.unique(np.concatenate([np.linspace(0.02, 1.0, 99), np.geomspace(1e-5, 0.02, 200)]))[
    ::-1
]


@dataclass(frozen=True)
class Calibration:
    """Upper quantiles of the scores of healthy tissue.

    Attributes
    ----------
    rates : ndarray of float64, (M,)
        False-positive rates, decreasing from 1.
    scores : ndarray of float64, (M,)
        The score that a share `rates` of healthy pixels exceeds; increasing.
    pixels : int
        Healthy pixels it rests on; rates below 1 / pixels are not resolved.
    """

    rates: NDArray[np.float64]
    scores: NDArray[np.float64]
    pixels: int

    @classmethod
    def from_scores(cls, healthy: NDArray[np.floating]) -> Calibration:
        """Calibrate on healthy scores.

        Parameters
        ----------
        healthy : ndarray, (N,)
            Scores of healthy foreground pixels.

        Raises
        ------
        InputError
            If there are fewer than 1,000.
        """
        if healthy.size < 1000:
            raise InputError(
                f"At least 1,000 healthy pixels are needed to calibrate, but {healthy.size} "
                "came; hold out more healthy slices."
            )
        rates = _RATES[np.maximum(1.0 / healthy.size, 1e-5) <= _RATES]
        scores = np.quantile(healthy.astype(np.float64), 1 - rates)
        return cls(rates, np.maximum.accumulate(scores), int(healthy.size))

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
                f"A false-positive rate lies in (0, 1], but {false_positive_rate} came."
            )
        return float(np.interp(-np.log(false_positive_rate), -np.log(self.rates), self.scores))

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
