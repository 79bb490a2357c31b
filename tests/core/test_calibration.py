import numpy as np
import pytest

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError


def test_threshold_is_exceeded_by_the_nominal_share():
    healthy = np.random.default_rng(0).gamma(2.0, size=200_000)
    calibration = Calibration.from_scans([healthy])
    for rate in (0.1, 0.05, 0.01, 0.001):
        assert (healthy > calibration.threshold(rate)).mean() == pytest.approx(rate, rel=0.02)


def test_rate_and_threshold_are_inverse():
    calibration = Calibration.from_scans([np.random.default_rng(1).normal(size=50_000)])
    rates = np.array([0.5, 0.1, 0.01, 0.001])
    scores = [calibration.threshold(rate) for rate in rates]
    np.testing.assert_allclose(calibration.false_positive_rate(scores), rates, rtol=1e-6)


def test_unresolved_rates_are_not_claimed():
    calibration = Calibration.from_scans([np.random.default_rng(2).normal(size=2000)])
    assert calibration.false_positive_rate(1e9) >= 1 / 2000


def test_too_few_pixels():
    with pytest.raises(InputError, match="1,000"):
        Calibration.from_scans([np.zeros(10)])


def test_every_scan_counts_the_same_whatever_its_size():
    rng = np.random.default_rng(3)
    small, large = rng.normal(2, 1, 20_000), rng.normal(0, 1, 400_000)
    calibration = Calibration.from_scans([small, large])
    threshold = calibration.threshold(0.05)
    realised = [(scan > threshold).mean() for scan in (small, large)]
    assert np.mean(realised) == pytest.approx(0.05, rel=0.02)
    pooled = (np.concatenate([small, large]) > threshold).mean()
    assert pooled < 0.01


def test_interval_tells_how_healthy_scans_differ():
    rng = np.random.default_rng(4)
    scans = [rng.normal(shift, 1, 50_000) for shift in np.linspace(-0.5, 0.5, 11)]
    calibration = Calibration.from_scans(scans)
    low, high = calibration.interval(0.05)
    realised = [(scan > calibration.threshold(0.05)).mean() for scan in scans]
    np.testing.assert_allclose((low, high), np.quantile(realised, [0.1, 0.9]), rtol=0.03)
    alike = Calibration.from_scans([rng.normal(size=50_000) for _ in range(5)])
    np.testing.assert_allclose(alike.interval(0.05), 0.05, rtol=0.1)
