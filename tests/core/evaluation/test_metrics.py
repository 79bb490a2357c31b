"""Metrics, against definitions written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from napari_dino_uad.core.evaluation.lesions import region_shares
from napari_dino_uad.core.metrics import PRO_LIMIT, Counts, dice, pixel_metrics


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.05
    return truth, (rng.normal(size=3000) + 1.5 * truth).astype(np.float32)


def test_dice():
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert dice(a, b) == pytest.approx(0.5)
    assert dice(a & ~a, b & ~b) == 1


def test_pixel_metrics(sample):
    truth, scores = sample
    ill, well = scores[truth], scores[~truth]
    auroc = (ill[:, None] > well).mean()
    order = np.argsort(-scores)
    hits = truth[order]
    average = (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()
    level = float(np.quantile(well, 0.95))
    metrics = pixel_metrics(truth, scores, {0.05: level})
    assert metrics["auroc"] == pytest.approx(auroc)
    assert metrics["average_precision"] == pytest.approx(average)
    best = max(dice(truth, scores >= level) for level in scores)
    assert metrics["max_dice"] == pytest.approx(best)
    assert metrics["dice_at_fpr"]["0.05"] == pytest.approx(dice(truth, scores > level))
    assert metrics["realised_fpr"]["0.05"] == pytest.approx(0.05, abs=0.001)


def test_tied_scores_count_together():
    truth = np.array([True, False, False, True])
    metrics = pixel_metrics(truth, np.array([2.0, 2.0, 1.0, 1.0], np.float32), {})
    assert metrics["auroc"] == pytest.approx(0.5)
    assert metrics["average_precision"] == pytest.approx(0.5)
    assert metrics["max_dice"] == pytest.approx(2 / 3)


def test_without_lesions_there_is_no_ranking():
    metrics = pixel_metrics(np.zeros(10, bool), np.arange(10.0), {0.1: 8.5})
    assert metrics["auroc"] is None
    assert metrics["average_precision"] is None
    assert metrics["realised_fpr"]["0.1"] == pytest.approx(0.1)


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_counts_agree_with_scikit_learn(decimals):
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(1)
    truth = rng.random(20_000) < 0.03
    scores = (rng.normal(size=20_000) + truth).astype(np.float32)
    if decimals is not None:
        scores = np.round(scores, decimals)
    # In parts, with a background that nothing marks.
    counted = Counts.of(scores[truth], np.array_split(scores[~truth], 7), background=5000)
    everywhere = np.append(truth, np.zeros(5000, bool)), np.append(scores, np.full(5000, -99.0))
    assert counted.auroc() == pytest.approx(roc_auc_score(*everywhere), abs=1e-9)
    assert counted.average_precision() == pytest.approx(
        average_precision_score(*everywhere), abs=1e-9
    )


def overlap_by_thresholds(lesion, scores, limit):
    """Area under the per-region overlap by its definition: every threshold, every region."""
    regions = []
    for number, plane in enumerate(lesion):
        labels, count = label(plane, np.ones((3, 3)))
        regions += [(number, labels == one) for one in range(1, count + 1)]
    rates, overlaps = [0.0], [0.0]
    for level in np.unique(scores)[::-1]:
        marked = scores >= level
        rates.append(marked[~lesion].mean())
        overlaps.append(np.mean([marked[number][region].mean() for number, region in regions]))
    inside = np.array(rates) <= limit
    end = np.interp(limit, rates, overlaps)
    x, y = np.append(np.array(rates)[inside], limit), np.append(np.array(overlaps)[inside], end)
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / limit)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("decimals", [None, 1])
def test_aupro_agrees_with_its_definition(share, decimals):
    """Many single pixels, touching regions, and regions at the same place in other slices."""
    rng = np.random.default_rng(2)
    lesion = rng.random((3, 30, 30)) < share
    lesion[1] |= lesion[0]
    lesion[:, 5:12, 5:14] = True
    scores = (rng.normal(size=lesion.shape) + lesion).astype(np.float32)
    if decimals is not None:
        scores = np.round(scores, decimals)
    shares, regions = region_shares(lesion)
    counted = Counts.of(
        scores[lesion], [scores[~lesion]], shares=shares[lesion], regions=int(regions.sum())
    )
    expected = overlap_by_thresholds(lesion, scores, PRO_LIMIT)
    assert counted.aupro() == pytest.approx(expected, abs=1e-6)


def test_curves_are_thinned_and_rise(sample):
    truth, scores = sample
    curves = Counts.of(scores[truth], [scores[~truth]]).curves(points=40)
    assert set(curves) == {"roc", "pr"}
    rate, recall = curves["roc"]["fpr"], curves["roc"]["tpr"]
    assert len(rate) <= 40
    assert rate == sorted(rate) and recall == sorted(recall)
    assert recall[-1] == 1
