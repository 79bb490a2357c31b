"""Smoothing of maps slice by slice, against the plain convolution of the whole."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_dino_uad.core.maps.smoothing import GrowingMaps


def scores(shape=(12, 16, 14), seed=0):
    chance = np.random.default_rng(seed)
    maps = chance.normal(size=shape).astype(np.float32)
    weights = np.where(chance.uniform(size=shape) > 0.4, 1, 0.05).astype(np.float32)
    return maps, weights


def reference(maps, weights, sigmas):
    options = {"sigma": sigmas, "mode": "constant", "truncate": 3.5}
    return gaussian_filter(maps * weights, **options) / gaussian_filter(weights, **options)


def test_smoothing_is_a_gaussian_in_mm():
    maps, weights = scores()
    grown = GrowingMaps(maps.shape, (2.5, 4.0, 5.0), 5.0)
    for indices in ([5], [4, 6], [3, 7], [2, 8, 1, 9], [0, 10, 11]):
        grown.add(indices, weights[indices], maps[indices])
    found = grown.smoothed(range(12))
    np.testing.assert_allclose(found, reference(maps, weights, (2, 1.25, 1)), atol=2e-3)


def test_what_is_not_known_yet_takes_no_part():
    maps, weights = scores()
    grown = GrowingMaps(maps.shape, (2.5, 4.0, 4.0), 5.0)
    grown.add([5, 6], weights[[5, 6]], maps[[5, 6]])
    known = np.zeros(12, dtype=bool)
    known[[5, 6]] = True
    assert np.array_equal(grown.known, known)
    expected = reference(maps, weights * known[:, None, None], (2, 1.25, 1.25))
    np.testing.assert_allclose(grown.smoothed([5, 6]), expected[[5, 6]], atol=2e-3)


def test_without_a_width_or_a_weight_nothing_is_smoothed():
    maps, weights = scores()
    weights[3] = 0
    for sigma in (0.0, 0.3):
        grown = GrowingMaps(maps.shape, (2.5, 4.0, 4.0), sigma)
        grown.add(list(range(12)), weights, maps)
        found = grown.smoothed(range(12))
        assert not found[3].any()
        np.testing.assert_allclose(np.delete(found, 3, 0), np.delete(maps, 3, 0), rtol=1e-5)
