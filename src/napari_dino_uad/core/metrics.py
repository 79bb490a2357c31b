"""Metrics of anomaly scores against a ground truth, from exact counts.

Between two neighbouring scores of lesion pixels neither recall nor the share of found regions
changes. So the counts at the distinct lesion scores determine every metric over all thresholds, and
healthy pixels, which are many, need not be in memory together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOWEST", "PRO_LIMIT", "Counts", "dice", "pixel_metrics"]

#: Score of pixels that are never marked.
LOWEST = np.float32(-np.inf)

#: False-positive rate up to which AUPRO integrates, as in the MVTec benchmark (P. Bergmann et al.,
#: "The MVTec Anomaly Detection Dataset", IJCV 2021).
PRO_LIMIT = 0.3

# Healthy scores that are sorted at a time.
_CHUNK = 4_000_000


def dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|); 1 if both are empty."""
    return _dice(int((truth & predicted).sum()), int(truth.sum()), int(predicted.sum()))


def _dice(hits: int, truth: int, predicted: int) -> float:
    return 1.0 if truth + predicted == 0 else 2.0 * hits / (truth + predicted)


@dataclass(frozen=True)
class Counts:
    """Pixels at and below every distinct score of a lesion pixel.

    Attributes
    ----------
    values : ndarray of float32, (L,)
        Distinct scores of lesion pixels, ascending.
    lesion : ndarray of int64, (L,)
        Lesion pixels with each score.
    shares : ndarray of float64, (L,)
        Sum of the shares that these pixels have in their regions: 1 / size of the region each.
    below, equal : ndarray of int64, (L,)
        Healthy pixels with a lower score, and with the same.
    healthy : int
        Healthy pixels.
    regions : int
        Connected regions of lesion pixels.
    above : dict of float to int
        Healthy pixels above each threshold asked for.
    """

    values: NDArray[np.float32]
    lesion: NDArray[np.int64]
    shares: NDArray[np.float64]
    below: NDArray[np.int64]
    equal: NDArray[np.int64]
    healthy: int
    regions: int = 0
    above: dict[float, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        lesion: NDArray[np.float32],
        healthy: Iterable[NDArray[np.float32]],
        *,
        shares: NDArray[np.floating] | None = None,
        regions: int = 0,
        background: int = 0,
        thresholds: Iterable[float] = (),
    ) -> Counts:
        """Count.

        Parameters
        ----------
        lesion : ndarray of float32, (N,)
            Scores of lesion pixels.
        healthy : iterable of ndarray of float32
            Scores of healthy pixels, a part at a time.
        shares : ndarray, (N,), optional
            Share of each lesion pixel in its region, for the overlap of regions.
        regions : int
            Number of regions.
        background : int
            Healthy pixels with the score `LOWEST` besides.
        thresholds : iterable of float
            Scores above which healthy pixels are counted.
        """
        values, inverse, counts = np.unique(lesion, return_inverse=True, return_counts=True)
        weights = np.zeros(len(lesion)) if shares is None else shares
        below = np.zeros(len(values) + 1, dtype=np.int64)
        up_to = np.zeros(len(values) + 1, dtype=np.int64)
        above = dict.fromkeys(thresholds, 0)
        total = background
        for part in healthy:
            for start in range(0, len(part), _CHUNK):
                # Sorted, a search goes through `values` once instead of jumping.
                scores = np.sort(part[start : start + _CHUNK])
                total += len(scores)
                below += np.bincount(
                    np.searchsorted(values, scores, side="right"), minlength=len(values) + 1
                )
                up_to += np.bincount(
                    np.searchsorted(values, scores, side="left"), minlength=len(values) + 1
                )
                for level in above:
                    above[level] += len(scores) - int(
                        np.searchsorted(scores, np.float32(level), side="right")
                    )
        # `below[k]` are scores in [values[k - 1], values[k]): less than values[k] from k on.
        less, at_most = np.cumsum(below)[:-1], np.cumsum(up_to)[:-1]
        if len(values):
            not_lowest = values > LOWEST
            less = less + background * not_lowest
            at_most = at_most + background
        return cls(
            values,
            counts.astype(np.int64),
            np.bincount(inverse.ravel(), weights, minlength=len(values)).astype(np.float64),
            less,
            at_most - less,
            total,
            regions,
            above,
        )

    @property
    def positives(self) -> int:
        """Number of lesion pixels."""
        return int(self.lesion.sum())

    @property
    def _hits(self) -> NDArray[np.int64]:
        """Lesion pixels at or above each value."""
        return np.cumsum(self.lesion[::-1])[::-1]

    @property
    def _false(self) -> NDArray[np.int64]:
        """Healthy pixels at or above each value."""
        return self.healthy - self.below

    def auroc(self) -> float:
        """Return the area under the ROC curve, ties counted by half."""
        won = self.below + 0.5 * self.equal
        return float((self.lesion * won).sum() / (float(self.positives) * self.healthy))

    def average_precision(self) -> float:
        """Return the mean precision over recall, as scikit-learn defines it."""
        hits = self._hits
        return float((self.lesion * (hits / (hits + self._false))).sum() / self.positives)

    def max_dice(self) -> float:
        """Return the highest Dice coefficient of any threshold."""
        hits = self._hits
        return float((2 * hits / (hits + self._false + self.positives)).max())

    def aupro(self, limit: float = PRO_LIMIT) -> float | None:
        """Return the normalised area under the per-region overlap up to a false-positive rate.

        P. Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.
        """
        from sklearn.metrics import auc

        if not self.regions:
            return None
        rate, overlap = self._pro_line()
        inside = rate <= limit
        end = float(np.interp(limit, rate, overlap))
        rate, overlap = np.append(rate[inside], limit), np.append(overlap[inside], end)
        return float(auc(rate, overlap) / limit)

    def _pro_line(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return false-positive rate and mean overlap along falling thresholds, as a line."""
        overlap = np.cumsum(self.shares[::-1]) / self.regions
        before = np.concatenate([[0.0], overlap[:-1]])
        # Differences of whole numbers: those of rates would not always rise.
        at_least = self._false[::-1] / self.healthy
        more = (self._false - self.equal)[::-1] / self.healthy
        rate = np.stack([more, at_least], axis=1).ravel()
        line = np.stack([before, overlap], axis=1).ravel()
        return np.concatenate([[0.0], rate, [1.0]]), np.concatenate([[0.0], line, [line[-1]]])

    def at(self, threshold: float) -> dict[str, float | None]:
        """Return the metrics of pixels above a threshold that was counted.

        Returns
        -------
        dict
            "dice", "fpr" (None without healthy pixels) and "pro" (None without regions).
        """
        marked = self.values > np.float32(threshold)
        hits, false = int(self.lesion[marked].sum()), self.above[threshold]
        return {
            "dice": _dice(hits, self.positives, hits + false),
            "fpr": false / self.healthy if self.healthy else None,
            "pro": float(self.shares[marked].sum()) / self.regions if self.regions else None,
        }

    def metrics(self, thresholds: Mapping[float, float]) -> dict[str, Any]:
        """Return all metrics.

        Parameters
        ----------
        thresholds : mapping of float to float
            Score threshold for each nominal false-positive rate; all were counted.

        Returns
        -------
        dict
            "auroc", "average_precision", "aupro" and "max_dice" (None if all or no pixels are
            lesion), and "dice_at_fpr", "pro_at_fpr" and "realised_fpr" by nominal rate.
        """
        both = self.positives > 0 and self.healthy > 0
        at = {f"{rate:g}": self.at(level) for rate, level in thresholds.items()}
        return {
            "auroc": self.auroc() if both else None,
            "average_precision": self.average_precision() if both else None,
            "aupro": self.aupro() if both else None,
            "max_dice": self.max_dice() if both else None,
            "dice_at_fpr": {rate: found["dice"] for rate, found in at.items()},
            "pro_at_fpr": {rate: found["pro"] for rate, found in at.items()},
            "realised_fpr": {rate: found["fpr"] for rate, found in at.items()},
        }

    def curves(self, points: int = 1000) -> dict[str, dict[str, list[float]]]:
        """Return the ROC, precision-recall and per-region overlap curves, thinned out.

        Parameters
        ----------
        points : int
            Largest number of points of each.
        """
        if not self.positives or not self.healthy:
            return {}
        hits, false = self._hits, self._false
        recall, rate = hits / self.positives, false / self.healthy
        kept = _spread(rate, recall, points)
        level = _finite(self.values[kept])
        curves: dict[str, dict[str, NDArray[Any]]] = {
            "roc": {"fpr": rate[kept], "tpr": recall[kept], "threshold": level},
            "pr": {
                "recall": recall[kept],
                "precision": (hits / (hits + false))[kept],
                "threshold": level,
            },
        }
        if self.regions:
            overlap = np.cumsum(self.shares[::-1])[::-1] / self.regions
            curves["pro"] = {"fpr": rate[kept], "pro": overlap[kept], "threshold": level}
        return {
            name: {axis: [float(f"{value:.6g}") for value in line] for axis, line in curve.items()}
            for name, curve in curves.items()
        }


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return scores for a file: JSON has no infinity, so the lowest is below the next."""
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, (known.min() if known.size else 0) - 1)


def _spread(
    rate: NDArray[np.float64], recall: NDArray[np.float64], points: int
) -> NDArray[np.int64]:
    """Choose points of a curve from the highest threshold down, evenly along its length."""
    order = np.arange(len(rate))[::-1]
    if len(order) <= points:
        return order
    # A third of the length each: recall, rate, and the low rates that matter in use.
    line = recall[order] + rate[order] + np.log10(np.maximum(rate[order], 1e-5)) / 5
    wanted = np.linspace(line[0], line[-1], points)
    return order[np.unique(np.clip(np.searchsorted(line, wanted), 0, len(order) - 1))]


def pixel_metrics(
    truth: NDArray[np.bool_],
    scores: NDArray[np.floating],
    thresholds: Mapping[float, float],
) -> dict[str, Any]:
    """Compute the metrics of single pixels, without regions.

    Parameters
    ----------
    truth : ndarray of bool, (N,)
        True in lesions.
    scores : ndarray, (N,)
        Anomaly scores.
    thresholds : mapping of float to float
        Score threshold for each nominal false-positive rate.

    Returns
    -------
    dict
        As in `Counts.metrics`.
    """
    scores = scores.astype(np.float32, copy=False)
    counted = Counts.of(scores[truth], [scores[~truth]], thresholds=thresholds.values())
    return counted.metrics(thresholds)
