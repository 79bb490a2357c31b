"""Metrics of anomaly scores against a ground truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dice", "max_dice", "pixel_metrics"]


def dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|); 1 if both are empty."""
    total = int(truth.sum()) + int(predicted.sum())
    return 1.0 if total == 0 else 2.0 * int((truth & predicted).sum()) / total


def max_dice(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> tuple[float, float]:
    """Return the highest Dice coefficient over all thresholds, and that threshold.

    Parameters
    ----------
    truth : ndarray of bool, (N,)
    scores : ndarray, (N,)
        Higher is more abnormal.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(truth, scores)
    total = precision + recall
    values = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    best = int(values[:-1].argmax())
    return float(values[best]), float(thresholds[best])


def pixel_metrics(
    truth: NDArray[np.bool_],
    scores: NDArray[np.floating],
    thresholds: dict[float, float],
) -> dict[str, object]:
    """Compute the pixel metrics of the two papers.

    Parameters
    ----------
    truth : ndarray of bool, (N,)
        True in lesions.
    scores : ndarray, (N,)
        Anomaly scores.
    thresholds : dict
        Score threshold for each nominal false-positive rate.

    Returns
    -------
    dict
        "auroc", "average_precision" and "max_dice" (None if all or no pixels are lesion), and
        "dice_at_fpr" and "realised_fpr" by nominal rate.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    out: dict[str, object] = {"auroc": None, "average_precision": None, "max_dice": None}
    if truth.any() and not truth.all():
        out["auroc"] = float(roc_auc_score(truth, scores))
        out["average_precision"] = float(average_precision_score(truth, scores))
        out["max_dice"] = max_dice(truth, scores)[0]
    healthy = scores[~truth]
    out["dice_at_fpr"] = {
        f"{rate:g}": dice(truth, scores > level) for rate, level in thresholds.items()
    }
    out["realised_fpr"] = {
        f"{rate:g}": float((healthy > level).mean()) if healthy.size else None
        for rate, level in thresholds.items()
    }
    return out
