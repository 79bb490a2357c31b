from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad import detect, drain
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.detect import _telling
from napari_dino_uad.core.maps.domain_shift import measure_shift
from napari_dino_uad.core.scans.volume import volume_from_array

RNG = np.random.default_rng(0)
CALIBRATION = Calibration.from_scans([RNG.normal(size=100_000)])


def test_a_healthy_scan_lies_in_the_middle():
    shift = measure_shift(0.0, CALIBRATION)
    assert shift.median_rate == pytest.approx(0.5, abs=0.02)
    assert not shift.unlike
    assert shift.warning == ""


def test_a_scan_of_another_kind_is_told():
    shift = measure_shift(3.0, CALIBRATION)
    assert shift.median_rate == pytest.approx(0.00135, rel=0.5)
    assert shift.unlike
    assert "do not trust the map" in shift.warning
    assert "nearly all healthy tissue" in shift.warning
    assert "97 % of healthy tissue" in measure_shift(1.88, CALIBRATION).warning


def test_a_rate_between_is_doubtful():
    doubtful = [measure_shift(level, CALIBRATION).doubtful for level in (0.0, 1.28, 1.88)]
    assert doubtful == [False, True, False]
    remarks = [measure_shift(level, CALIBRATION).remark for level in (0.0, 1.28, 1.88)]
    assert remarks[0] == remarks[2] == ""
    assert "90 % of healthy tissue" in remarks[1] and "with care" in remarks[1]
    # One sentence or the other.
    assert measure_shift(1.28, CALIBRATION).warning == ""


def test_no_tissue_at_all():
    assert measure_shift(np.inf, CALIBRATION).unlike


def test_an_inverted_head_is_of_another_kind(model, healthy, ill):
    volume = ill.volume
    tissue = volume.array > 60
    inverted = np.where(tissue, volume.array.max() - volume.array, volume.array)
    strange = volume_from_array(inverted, volume.spacing_mm, volume.origin_mm, "inverted")
    for scan, unlike in ((volume, False), (strange, True)):
        anomaly = drain(detect(scan, model))
        shift = measure_shift(anomaly.level, model.levels)
        assert shift.unlike is unlike, shift


@pytest.mark.parametrize(
    ("scored", "apart", "told"),
    [
        (range(10, 14), 5.0, [10, 11, 12, 13]),
        (range(2, 34), 5.0, list(range(2, 34, 2))),
        (range(100), 2.4, list(range(0, 100, 2))),
        (range(100), 0.0, list(range(100))),
        ([], 5.0, []),
    ],
    ids=["few slices", "not many", "many", "not smoothed", "air"],
)
def test_the_level_is_told_by_slices_a_smoothing_apart(scored, apart, told):
    found = _telling(np.array(scored, dtype=np.int64), 120, apart)
    assert np.flatnonzero(found).tolist() == told


def test_the_level_of_a_scan_with_little_tissue_is_known(model, ill):
    array = np.zeros_like(ill.volume.array)
    middle = len(array) // 2
    array[middle : middle + 2] = ill.volume.array[middle : middle + 2]
    scan = volume_from_array(array, (0.5, *ill.volume.spacing_mm[1:]))
    assert np.isfinite(drain(detect(scan, model)).level)
