"""Metrics, against definitions written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad.core.metrics import dice, pixel_metrics


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
