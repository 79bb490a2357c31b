"""From patch scores to the map of a scan."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad import Case, detect, drain, fit
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.score_map import (
    MapSettings,
    ScanLevel,
    ScoreScale,
    refine_maps,
    scan_level,
)
from napari_dino_uad.core.maps.smoothing import GrowingMaps
from napari_dino_uad.core.scans.volume import volume_from_array

RNG = np.random.default_rng(0)


def test_scores_become_healthy_deviations():
    scores = RNG.normal(7, 2, (3, 20, 20)).astype(np.float32)
    combined = ScoreScale(7, 2).combine(scores, None)
    assert combined.mean() == pytest.approx(0, abs=0.1)
    assert combined.std() == pytest.approx(1, abs=0.1)
    mirror = RNG.normal(3, 0.5, (3, 20, 20)).astype(np.float32)
    both = ScoreScale(7, 2, 3, 0.5, 0.25).combine(scores, mirror)
    np.testing.assert_allclose(both, combined + 0.25 * (mirror - 3) / 0.5, rtol=1e-5, atol=1e-5)


def smooth_maps(maps, weights, spacing_mm, sigma_mm):
    grown = GrowingMaps(maps.shape, spacing_mm, sigma_mm)
    grown.add(range(len(maps)), weights, maps)
    return grown.smoothed(range(len(maps)))


def test_smoothing_is_in_mm_on_every_axis():
    maps = np.zeros((21, 31, 31), np.float32)
    maps[10, 15, 15] = 1
    smooth = smooth_maps(maps, np.ones_like(maps), (6.0, 2.0, 3.0), 6.0)
    offsets = np.indices(maps.shape).reshape(3, -1) - np.array([[10], [15], [15]])
    weights = smooth.ravel() / smooth.sum()
    deviations = np.sqrt((weights * offsets**2).sum(1)) * (6.0, 2.0, 3.0)
    np.testing.assert_allclose(deviations, 6.0, rtol=0.06)


def test_what_has_no_weight_takes_no_part():
    maps = np.full((5, 9, 9), 2.0, np.float32)
    weights = np.ones_like(maps)
    maps[:, :, 5:], weights[:, :, 5:] = 100.0, 0.0
    smooth = smooth_maps(maps, weights, (1.0, 1.0, 1.0), 1.5)
    np.testing.assert_allclose(smooth[:, :, :7], 2.0, rtol=1e-5)


def test_level_of_a_short_scan_is_its_median():
    maps = np.arange(15 * 5 * 5, dtype=np.float32).reshape(15, 5, 5)
    tissue = np.zeros(maps.shape, bool)
    tissue[1] = True
    found = scan_level(maps, tissue, MapSettings(), False)
    assert found == ScanLevel(float(np.median(maps[1])))
    assert scan_level(maps, tissue, MapSettings(centring=False), False) == ScanLevel()
    assert scan_level(maps, np.zeros_like(tissue), MapSettings(), False) == ScanLevel()


def test_scans_of_other_levels_and_spreads_become_alike():
    maps = RNG.normal(size=(16, 20, 20)).astype(np.float32)
    tissue = np.ones(maps.shape, bool)
    settings = MapSettings(level=85, spread=1.0)
    expected = scan_level(maps, tissue, settings, False).apply(maps)
    assert (expected > 0).mean() == pytest.approx(0.15, abs=0.001)
    shifted = 3 * maps + 7
    np.testing.assert_allclose(
        scan_level(shifted, tissue, settings, False).apply(shifted), expected, atol=1e-4
    )
    # Part of the spread of a scan is its own: a noisy scanner is only partly the reason.
    found = scan_level(maps, tissue, MapSettings(level=85, spread=0.25), False)
    low, high = np.percentile(maps, [25, 75])
    assert found.divisor == pytest.approx((high - low) ** 0.25, rel=1e-5)


@pytest.mark.parametrize(("compared", "share"), [(True, 0.1), (False, 0.15)])
def test_the_level_is_higher_where_brightness_is_compared(compared, share):
    maps = RNG.normal(size=(16, 20, 20)).astype(np.float32)
    own = scan_level(maps, np.ones(maps.shape, bool), MapSettings(), compared)
    assert (own.apply(maps) > 0).mean() == pytest.approx(share, abs=0.001)


def test_a_large_lesion_does_not_become_the_level_of_its_scan():
    maps = RNG.normal(size=(20, 20, 20)).astype(np.float32)
    tissue = np.ones(maps.shape, bool)
    healthy = scan_level(maps, tissue, MapSettings(), True)
    # The limit is beyond what healthy tissue reaches.
    assert healthy == scan_level(maps, tissue, MapSettings(level_limit=0), True)
    maps[:3] += 8
    ill = scan_level(maps, tissue, MapSettings(), True)
    low, median = np.percentile(maps, [25, 50])
    assert ill.level == pytest.approx(median + 3 * (median - low), rel=1e-5)
    assert ill.level < healthy.level + 2
    assert scan_level(maps, tissue, MapSettings(level_limit=0), True).level > healthy.level + 5
    # A percentile that was asked for is taken as it is.
    asked = scan_level(maps, tissue, MapSettings(level=90), True)
    assert asked == scan_level(maps, tissue, MapSettings(level_limit=0), True)
    # Only where brightness is compared.
    alone = scan_level(maps, tissue, MapSettings(), False)
    assert alone == scan_level(maps, tissue, MapSettings(level_limit=0), False)


def test_a_lesion_of_a_tenth_moves_the_level_little():
    maps = RNG.normal(size=(20, 20, 20)).astype(np.float32)
    tissue = np.ones(maps.shape, bool)
    healthy = scan_level(maps, tissue, MapSettings(), False)
    maps[:2] += 8
    ill = scan_level(maps, tissue, MapSettings(), False)
    assert ill.level - healthy.level < 0.6
    assert ill.divisor == pytest.approx(healthy.divisor, rel=0.1)


def _guided_reference(p, i, w, radius):
    """The guided filter of one slice by loops over windows."""
    rows, cols = p.shape
    slope, offset = np.zeros_like(p), np.zeros_like(p)

    def window(y, x):
        return np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]

    for y in range(rows):
        for x in range(cols):
            part = window(y, x)
            weight = w[part] / w[part].sum()
            mean_i, mean_p = (weight * i[part]).sum(), (weight * p[part]).sum()
            cov = (weight * i[part] * p[part]).sum() - mean_i * mean_p
            var = (weight * i[part] ** 2).sum() - mean_i**2
            slope[y, x] = cov / (var + 1e-3)
            offset[y, x] = mean_p - slope[y, x] * mean_i
    out = np.zeros_like(p)
    for y in range(rows):
        for x in range(cols):
            part = window(y, x)
            weight = w[part] / w[part].sum()
            out[y, x] = (weight * slope[part]).sum() * i[y, x] + (weight * offset[part]).sum()
    return out


def test_refinement_is_the_guided_filter():
    p = RNG.normal(size=(2, 14, 17)).astype(np.float32)
    i = RNG.uniform(size=(2, 14, 17)).astype(np.float32)
    w = RNG.uniform(size=(2, 14, 17)) > 0.3
    found = refine_maps(p, i, w, (1.0, 1.0), 3.0)
    for one in range(2):
        expected = _guided_reference(p[one], i[one], w[one].astype(float), 3)
        np.testing.assert_allclose(found[one], expected, atol=2e-4)


def test_refined_edges_follow_the_anatomy():
    rows = np.arange(64)
    intensities = np.where(rows < 30, 0.2, 0.8)[None, :, None].repeat(64, 2).astype(np.float32)
    blurred = (1 / (1 + np.exp(-(rows - 30) / 5.0)))[None, :, None].repeat(64, 2)
    refined = refine_maps(
        blurred.astype(np.float32), intensities, np.ones((1, 64, 64), bool), (1.0, 1.0), 12.0
    )
    step = refined[0, 30, 32] - refined[0, 29, 32]
    assert step > 5 * (blurred[0, 30, 32] - blurred[0, 29, 32])
    np.testing.assert_array_equal(
        refine_maps(blurred, intensities, np.ones((1, 64, 64), bool), (1.0, 1.0), 0.0), blurred
    )


@pytest.mark.backbone
def test_centring_takes_a_scanners_shift_away(healthy):
    cases = [Case(head.volume) for head in healthy]
    settings = {"components": 40, "epochs": 2, "max_patches": 10_000}
    head = healthy[0].volume
    noisy = head.array + RNG.normal(0, 0.03 * head.array.max(), head.shape).astype(np.float32)
    noisy = volume_from_array(np.clip(noisy, 0, None), head.spacing_mm, head.origin_mm, "noisy")
    levels = {}
    for centring in (True, False):
        maps = MapSettings(centring=centring, detail_mm=0)
        anomaly = drain(detect(noisy, drain(fit(cases, settings=settings, maps=maps))))
        tissue = anomaly.scores[anomaly.foreground]
        levels[centring] = abs(float(np.percentile(tissue, 90)))
    assert levels[True] < 0.1 < levels[False]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"smoothing_mm": -1}, "smoothing must be 0 to 1000 mm, got -1"),
        ({"detail_mm": float("nan")}, "detail radius must be 0 to 1000 mm"),
        ({"symmetry": -0.5}, "weight of symmetry must be 0 to 1000"),
        ({"lesions": "red"}, "one of either, bright, dark, none, got 'red'"),
        ({"level": 100}, "percentile between 0 and 100, got 100"),
        ({"spread": 2}, "power of the spread must be 0 to 1, got 2"),
        ({"level_limit": -1}, "limit of a scan's level must be 0 to 1000, got -1"),
    ],
)
def test_impossible_settings(values, match):
    with pytest.raises(InputError, match=match):
        MapSettings(**values)
