"""Figures over all cases: pooled metrics, intervals, groups, lesions, volumes and whole scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_dino_uad.core.evaluation.histograms import (
    HistogramSet,
    histogram_set,
    interval,
    resamples,
)
from napari_dino_uad.core.evaluation.lesions import summarise_lesions
from napari_dino_uad.core.evaluation.pool import count_pixels
from napari_dino_uad.core.evaluation.scoring import ScoredCase
from napari_dino_uad.core.evaluation.settings import CONVENTIONS, EvaluationSettings
from napari_dino_uad.core.metrics import Counts

__all__ = ["summarise"]

# A bootstrap over fewer cases draws the same few again and again.
_FEWEST_CASES = 5
# Nominal rate, and the range of realised rates in which it counts as held by a scan.
_HELD_RATE, _HELD = 0.05, (0.02, 0.08)


def summarise(
    scored: Sequence[ScoredCase], settings: EvaluationSettings, thresholds: Mapping[float, float]
) -> tuple[dict[str, Any], dict[str, Any], HistogramSet]:
    """Compute the figures over all cases.

    Parameters
    ----------
    scored : sequence of ScoredCase
    settings : EvaluationSettings
    thresholds : mapping of float to float
        Score by nominal rate.

    Returns
    -------
    metrics, curves : dict
        As in `Evaluation`, without what does not come from scores.
    histograms : dict of str to Histograms
    """
    rows = [one.row for one in scored]
    pixels = [one.pixels for one in scored]
    counts = {name: count_pixels(pixels, name, thresholds.values()) for name in CONVENTIONS}
    histograms = histogram_set(pixels, counts, thresholds)
    weights = resamples(len(scored), settings.bootstrap, settings.seed)
    conventions = {}
    for name in CONVENTIONS:
        found = _pooled(counts[name], thresholds)
        if settings.bootstrap and len(scored) >= _FEWEST_CASES:
            drawn = histograms[name].metrics(weights, thresholds)
            found["intervals"] = {metric: interval(values) for metric, values in drawn.items()}
        conventions[name] = found
    metrics = {
        "conventions": conventions,
        "median_realised_fpr": {
            f"{rate:g}": _median([row[f"realised_fpr_{rate:g}"] for row in rows])
            for rate in thresholds
        },
        "scans_held": _held(rows) if _HELD_RATE in thresholds else None,
        "lesions": {
            "rate": settings.finding_rate,
            "rule": settings.rule,
            **summarise_lesions(rows),
        },
        "volumes": _volumes(rows),
        "scans": _scans(rows),
        "groups": {
            column: _groups(column, scored, settings, thresholds) for column in settings.groups
        },
    }
    curves: dict[str, Any] = {name: counts[name].curves() for name in CONVENTIONS}
    curves["froc"] = _froc(scored, settings)
    return metrics, curves, histograms


def _pooled(counts: Counts, thresholds: Mapping[float, float]) -> dict[str, Any]:
    return {
        **counts.metrics(thresholds),
        "pixels": counts.positives + counts.healthy,
        "lesion_pixels": counts.positives,
    }


def _groups(
    column: str,
    scored: Sequence[ScoredCase],
    settings: EvaluationSettings,
    thresholds: Mapping[float, float],
) -> dict[str, Any]:
    """Return the pooled metrics of each group of a column."""
    out = {}
    for value in sorted({one.row[column] for one in scored}):
        members = [one for one in scored if one.row[column] == value]
        out[value] = {
            "cases": len(members),
            "conventions": {
                name: _pooled(
                    count_pixels([one.pixels for one in members], name, thresholds.values()),
                    thresholds,
                )
                for name in CONVENTIONS
            },
            "lesions": {
                "rate": settings.finding_rate,
                **summarise_lesions([one.row for one in members]),
            },
        }
    return out


def _froc(scored: Sequence[ScoredCase], settings: EvaluationSettings) -> dict[str, list[float]]:
    """Return sensitivity for lesions against false findings a scan; empty without lesions."""
    lesions = sum(one.row["lesions"] for one in scored)
    if not lesions or not settings.froc_rates:
        return {}
    table = np.array([one.froc for one in scored]).sum(axis=0)
    order = np.argsort(settings.froc_rates)
    return {
        "false_findings": (table[order, 1] / len(scored)).tolist(),
        "sensitivity": (table[order, 0] / lesions).tolist(),
        "rate": [settings.froc_rates[index] for index in order],
    }


def _volumes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the volume of findings with that of lesions over scans."""
    pairs = [(row["lesion_ml"], row["found_ml"]) for row in rows if row["lesion_ml"] is not None]
    lesion, found = np.array(pairs, dtype=float).reshape(-1, 2).T
    if len(lesion) < 3 or not lesion.std() or not found.std():
        return {"scans": len(lesion), "pearson": None, "spearman": None}
    from scipy.stats import pearsonr, spearmanr

    return {
        "scans": len(lesion),
        "pearson": float(pearsonr(lesion, found).statistic),
        "spearman": float(spearmanr(lesion, found).statistic),
    }


def _scans(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tell scans with lesions from those without; None if all are of one kind."""
    ill = [row["all_lesion_pixels"] > 0 for row in rows]
    out: dict[str, Any] = {"with_lesion": sum(ill), "healthy": len(ill) - sum(ill), "auroc": None}
    if 0 < sum(ill) < len(ill):
        from sklearn.metrics import roc_auc_score

        out["auroc"] = float(roc_auc_score(ill, [row["scan_score"] for row in rows]))
    return out


def _held(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of scans whose realised rate is near the nominal 5 %."""
    found = [row[f"realised_fpr_{_HELD_RATE:g}"] for row in rows]
    known = [rate for rate in found if rate is not None]
    low, high = _HELD
    return sum(low <= rate <= high for rate in known) / len(known) if known else None


def _median(values: list[float | None]) -> float | None:
    """Return the median without None: a case that is all lesion has no false-positive rate."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
