"""Pixels of many cases: counted exactly from files, and resampled by histograms."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad.core.evaluation.histograms import Histograms, interval, resamples
from napari_dino_uad.core.evaluation.pool import CasePixels, count_pixels
from napari_dino_uad.core.metrics import LOWEST, Counts

RATES = {0.05: 1.6, 0.01: 2.3}


def made_up(seed, lesion=400, healthy=20_000):
    """Pixels of a case, some of them in slices with hardly any tissue."""
    rng = np.random.default_rng(seed)
    ill = (rng.normal(size=lesion) + 1 + seed / 10).astype(np.float32)
    ill[:5] = LOWEST
    well = rng.normal(size=healthy).astype(np.float32)
    shares = np.full(lesion, 4 / lesion, dtype=np.float32)
    return CasePixels(
        {"tissue": well, "other": well[:100] - 1},
        {"tissue": ill, "other": ill[-20:]},
        {"tissue": shares, "other": np.full(20, 0.1, np.float32)},
        {"tissue": 4, "other": 2},
        background=30_000,
        slices=9,
    )


@pytest.fixture
def cases():
    return [made_up(seed) for seed in range(6)]


def test_files_give_the_same_counts(cases, tmp_path):
    places = []
    for number, case in enumerate(cases):
        places.append(tmp_path / f"{number}.npz")
        case.save(places[-1])
    for convention in ("tissue", "all"):
        kept = count_pixels(cases, convention, RATES.values()).metrics(RATES)
        assert count_pixels(places, convention, RATES.values()).metrics(RATES) == kept


def test_conventions_count_other_pixels(cases):
    tissue, everywhere = (count_pixels(cases, one, ()) for one in ("tissue", "all"))
    assert tissue.positives == 6 * 400 and tissue.healthy == 6 * 20_000
    assert everywhere.positives == 6 * 420 and everywhere.healthy == 6 * 50_100
    assert (tissue.regions, everywhere.regions) == (24, 36)
    # Background is easy.
    assert everywhere.auroc() > tissue.auroc()


@pytest.mark.parametrize("convention", ["tissue", "all"])
def test_histograms_are_close_to_exact(cases, convention):
    counts = count_pixels(cases, convention, RATES.values())
    exact = counts.metrics(RATES)
    found = Histograms.of(cases, convention, counts, RATES).metrics(np.ones((1, 6), int), RATES)
    for name in ("auroc", "average_precision", "aupro", "max_dice"):
        assert found[name][0] == pytest.approx(exact[name], abs=1e-3)
    for rate in RATES:
        for name in ("dice_at_fpr", "pro_at_fpr", "realised_fpr"):
            assert found[f"{name}_{rate:g}"][0] == pytest.approx(exact[name][f"{rate:g}"])


def test_intervals_hold_the_pooled_figure(cases):
    counts = count_pixels(cases, "tissue", RATES.values())
    histograms = Histograms.of(cases, "tissue", counts, RATES)
    drawn = histograms.metrics(resamples(6, 500, seed=0), RATES)
    low, high = interval(drawn["auroc"])
    assert low < counts.auroc() < high
    again = histograms.metrics(resamples(6, 500, seed=0), RATES)
    np.testing.assert_array_equal(drawn["aupro"], again["aupro"])


def test_healthy_cases_alone_have_no_ranking():
    well = np.arange(10, dtype=np.float32)
    counts = Counts.of(well[:0], [well], thresholds=[7.5])
    metrics = counts.metrics({0.2: 7.5})
    assert metrics["auroc"] is None and metrics["aupro"] is None
    assert metrics["realised_fpr"] == {"0.2": 0.2}
    assert counts.curves() == {}
