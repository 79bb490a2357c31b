"""Metrics of anomaly scores against a ground truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dice", "pixel_metrics"]


def dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|); 1 if both are empty."""
    total = int(truth.sum()) + int(predicted.sum())
    return 1.0 if total == 0 else 2.0 * int((truth & predicted).sum()) / total


def _over_thresholds(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> dict[str, float]:
    """Return the metrics over all thresholds; sorts millions of pixels once, not for each."""
    from sklearn.metrics import auc, roc_curve

    false_rate, recall, _ = roc_curve(truth, scores, drop_intermediate=False)
    lesion = int(truth.sum())
    hits = recall[1:] * lesion
    found = hits + false_rate[1:] * (truth.size - lesion)
    return {
        "auroc": float(auc(false_rate, recall)),
        "average_precision": float((np.diff(recall) * hits / found).sum()),
        "max_dice": float((2 * hits / (found + lesion)).max()),
    }


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
    out: dict[str, object] = {"auroc": None, "average_precision": None, "max_dice": None}
    if truth.any() and not truth.all():
        out |= _over_thresholds(truth, scores)
    healthy = scores[~truth]
    out["dice_at_fpr"] = {
        f"{rate:g}": dice(truth, scores > level) for rate, level in thresholds.items()
    }
    out["realised_fpr"] = {
        f"{rate:g}": float((healthy > level).mean()) if healthy.size else None
        for rate, level in thresholds.items()
    }
    return out
