"""The result of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.histograms import HistogramSet

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model over a cohort.

    Attributes
    ----------
    metrics : dict
        Pooled metrics by convention, counts and seconds; the content of `metrics.json`.
    cases : list of dict
        One row for each case; the content of `cases.csv`.
    failed : dict of str to str
        Scans without metrics and the reason, one sentence each. They are rows of `cases.csv` too.
    curves : dict
        ROC, precision-recall and per-region overlap curves by convention, and "froc"; the content
        of `curves.json`.
    failures : list of dict
        Rows of `Failure.row`, the worst first; the content of `failures.csv`.
    histograms : dict of str to Histograms
        Scores of each case by convention; the content of `histograms.safetensors`.
    """

    metrics: dict[str, Any]
    cases: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    histograms: HistogramSet = field(default_factory=dict)
