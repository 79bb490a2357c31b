"""Histograms of each case's scores, for intervals by resampling cases and for comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.evaluation.pool import CasePixels, opened
from napari_dino_uad.core.evaluation.settings import CONVENTIONS
from napari_dino_uad.core.metrics import PRO_LIMIT, Counts

__all__ = ["HistogramSet", "Histograms", "histogram_set", "interval", "resamples"]

#: Bins of the histograms; with the edges of `_edges` pooled figures differ by less than 0.001 from
#: the exact ones.
BINS = 2048
_LEVEL = 0.95


@dataclass(frozen=True)
class Histograms:
    """Counts of scores of each case under one convention.

    Attributes
    ----------
    edges : ndarray of float32, (bins - 1,)
        Inner edges; a score belongs to the bin above an edge if it is greater than the edge.
    healthy, lesion : ndarray of int64, (cases, bins)
        Pixels in each bin.
    shares : ndarray of float64, (cases, bins)
        Sum of the shares of lesion pixels in their regions.
    regions : ndarray of int64, (cases,)
    """

    edges: NDArray[np.float32]
    healthy: NDArray[np.int64]
    lesion: NDArray[np.int64]
    shares: NDArray[np.float64]
    regions: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        cases: Sequence[Any],
        convention: str,
        counts: Counts,
        thresholds: Mapping[float, float],
    ) -> Histograms:
        """Count the scores of cases.

        Parameters
        ----------
        cases : sequence of CasePixels or Path
            As in `count_pixels`.
        convention : {"tissue", "all"}
        counts : Counts
            Of all these cases; the edges are chosen by it.
        thresholds : mapping of float to float
            By nominal rate; all of them are edges, so that figures at them are exact.
        """
        edges = _edges(counts, list(thresholds.values()))
        size = len(edges) + 1
        healthy, lesion, shares, regions = [], [], [], []
        for case in opened(cases):
            low = np.zeros(size, dtype=np.int64)
            low[0] = case.background_of(convention)
            healthy.append(low + _binned(case.take("healthy", convention), edges))
            scores = case.take("lesion", convention)
            lesion.append(_binned(scores, edges))
            shares.append(_binned(scores, edges, case.take("shares", convention)))
            regions.append(case.region_count(convention))
        return cls(edges, np.array(healthy), np.array(lesion), np.array(shares), np.array(regions))

    def of_cases(self, places: Sequence[int]) -> Histograms:
        """Return the histograms of some cases, in another order."""
        return Histograms(
            self.edges,
            self.healthy[places],
            self.lesion[places],
            self.shares[places],
            self.regions[places],
        )

    def metrics(
        self, weights: NDArray[np.int64], thresholds: Mapping[float, float]
    ) -> dict[str, NDArray[np.float64]]:
        """Compute pooled metrics with weighted cases.

        Parameters
        ----------
        weights : ndarray of int64, (repeats, cases)
            How often each case counts.
        thresholds : mapping of float to float
            As in `of`.

        Returns
        -------
        dict of str to ndarray, (repeats,)
            Names as in `Counts.metrics`, those at rates as ``dice_at_fpr_0.05``; NaN where a sample
            has no lesion or no healthy pixel.
        """
        # Falling thresholds: the k-th column counts what lies above the k-th edge from the top.
        lesion, healthy, shares = (
            np.cumsum((weights @ counts)[:, ::-1], axis=1)
            for counts in (self.lesion, self.healthy, self.shares)
        )
        regions = weights @ self.regions
        positives, negatives = lesion[:, -1:], healthy[:, -1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            recall, rate = lesion / positives, healthy / negatives
            overlap = shares / regions[:, None]
            step = np.diff(lesion, axis=1, prepend=0)
            # Ties within a bin count by half, as if they were spread evenly.
            middle = (lesion - step / 2) / (
                lesion - step / 2 + healthy - np.diff(healthy, axis=1, prepend=0) / 2
            )
            found = {
                "auroc": _area(rate, recall),
                "average_precision": np.nansum(step * middle, axis=1) / positives[:, 0],
                "aupro": _area_to(rate, overlap, PRO_LIMIT),
                "max_dice": (2 * lesion / (lesion + healthy + positives)).max(axis=1),
            }
            for name, level in thresholds.items():
                place = len(self.edges) - 1 - int(np.searchsorted(self.edges, np.float32(level)))
                hits, false = lesion[:, place], healthy[:, place]
                found[f"dice_at_fpr_{name:g}"] = 2 * hits / (hits + false + positives[:, 0])
                found[f"pro_at_fpr_{name:g}"] = overlap[:, place]
                found[f"realised_fpr_{name:g}"] = rate[:, place]
        empty = (positives[:, 0] == 0) | (negatives[:, 0] == 0)
        return {name: np.where(empty, np.nan, value) for name, value in found.items()}


#: The histograms of both conventions.
HistogramSet = dict[str, Histograms]


def _edges(counts: Counts, thresholds: list[float]) -> NDArray[np.float32]:
    """Choose edges: even in the number of lesion pixels, and in that of healthy ones, as powers."""
    known = counts.values[np.isfinite(counts.values)]
    if not known.size:
        return np.unique(np.array(thresholds or [0.0], dtype=np.float32))
    spent = np.cumsum(counts.lesion)
    by_lesion = counts.values[
        np.searchsorted(spent, np.linspace(0, spent[-1] - 1, BINS // 2), side="right")
    ]
    rate = 1 - counts.below / max(1, counts.healthy)
    wanted = np.geomspace(1e-7, 1, BINS // 2 - len(thresholds))
    by_rate = counts.values[np.clip(np.searchsorted(-rate, -wanted), 0, len(counts.values) - 1)]
    edges = np.concatenate([by_lesion, by_rate, np.array(thresholds, dtype=np.float32)])
    return np.unique(edges[np.isfinite(edges)])


def _binned(
    scores: NDArray[np.float32],
    edges: NDArray[np.float32],
    weights: NDArray[np.floating] | None = None,
) -> NDArray[Any]:
    places = np.searchsorted(edges, scores, side="left")
    return np.bincount(places, weights, minlength=len(edges) + 1)


def _area(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under lines that begin at 0, along the last axis."""
    x, y = (np.concatenate([np.zeros((len(line), 1)), line], axis=1) for line in (x, y))
    return np.asarray((np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1]) / 2).sum(axis=1))


def _area_to(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Return the area as `_area` does, up to a limit of x, divided by the limit."""
    out = np.full(len(x), np.nan)
    for number, (across, up) in enumerate(zip(x, y, strict=True)):
        if np.isfinite(up).all() and np.isfinite(across).all():
            inside = across <= limit
            end = np.interp(limit, np.append(0, across), np.append(0, up))
            line = np.append(across[inside], limit), np.append(up[inside], end)
            out[number] = _area(line[0][None], line[1][None])[0] / limit
    return out


def resamples(cases: int, repeats: int, seed: int) -> NDArray[np.int64]:
    """Draw cases with replacement; return how often each was drawn, (repeats, cases)."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, cases, (repeats, cases))
    counts = np.zeros((repeats, cases), dtype=np.int64)
    for row, indices in zip(counts, drawn, strict=True):
        row += np.bincount(indices, minlength=cases)
    return counts


def interval(values: NDArray[np.float64]) -> list[float] | None:
    """Return the 95 % interval of resampled values by their percentiles; None if none is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    tail = 100 * (1 - _LEVEL) / 2
    return [float(value) for value in np.percentile(known, [tail, 100 - tail])]


def histogram_set(
    cases: Sequence[CasePixels | Any],
    counts: Mapping[str, Counts],
    thresholds: Mapping[float, float],
) -> HistogramSet:
    """Count the scores of cases under both conventions."""
    return {
        convention: Histograms.of(cases, convention, counts[convention], thresholds)
        for convention in CONVENTIONS
    }
