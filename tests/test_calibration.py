import numpy as np
import pytest

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError


def test_threshold_is_exceeded_by_the_nominal_share():
    healthy = np.random.default_rng(0).gamma(2.0, size=200_000)
    calibration = Calibration.from_scores(healthy)
    for rate in (0.1, 0.05, 0.01, 0.001):
        assert (healthy > calibration.threshold(rate)).mean() == pytest.approx(rate, rel=0.02)


def test_rate_and_threshold_are_inverse():
    calibration = Calibration.from_scores(np.random.default_rng(1).normal(size=50_000))
    rates = np.array([0.5, 0.1, 0.01, 0.001])
    scores = [calibration.threshold(rate) for rate in rates]
    np.testing.assert_allclose(calibration.false_positive_rate(scores), rates, rtol=1e-6)


def test_unresolved_rates_are_not_claimed():
    calibration = Calibration.from_scores(np.random.default_rng(2).normal(size=2000))
    assert calibration.false_positive_rate(1e9) >= 1 / 2000


def test_too_few_pixels():
    with pytest.raises(InputError, match="1,000"):
        Calibration.from_scores(np.zeros(10))
