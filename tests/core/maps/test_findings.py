"""From a map and a threshold to findings in ml and mm."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.findings import (
    count_edits,
    describe_labels,
    edit_findings,
    find_findings,
    write_findings_csv,
)
from napari_dino_uad.core.scans.volume import volume_from_array


@pytest.fixture
def calibration():
    return Calibration.from_scans([np.random.default_rng(0).uniform(0, 1, 100_000)])


@pytest.fixture
def scene():
    scores = np.zeros((10, 40, 50), dtype=np.float32)
    scores[2:4, 10:20, 10:20] = 0.95
    scores[6:9, 30:36, 40:46] = 0.97
    scores[7, 32, 42] = 1.5
    scores[0, 0, 0] = 0.99
    noise = np.random.default_rng(0).random((10, 40, 50)).astype(np.float32)
    return scores, volume_from_array(noise, spacing_mm=(5, 1, 1), origin_mm=(-20, 3, 7))


def test_findings_are_measured_and_ranked(scene, calibration):
    scores, volume = scene
    labels, findings = find_findings(scores, volume, 0.9, calibration, minimum_size=0.1)
    assert labels.dtype == np.uint8
    assert [finding.label for finding in findings] == [1, 2]
    large, small = findings
    assert large.volume_ml == pytest.approx(200 * 5 / 1000)
    assert small.volume_ml == pytest.approx(108 * 5 / 1000)
    assert (large.first_slice, large.last_slice) == (2, 3)
    assert (small.first_slice, small.last_slice) == (6, 8)
    assert small.peak_score == pytest.approx(1.5)
    assert large.mean_score == pytest.approx(0.95)
    assert large.p_value == pytest.approx(0.05, rel=0.1)
    assert large.centroid_voxel == pytest.approx((2.5, 14.5, 14.5))
    assert large.centroid_ras_mm == pytest.approx((-(7 + 14.5), -(3 + 14.5), -20 + 2.5 * 5))
    assert (labels[2:4, 10:20, 10:20] == 1).all()
    assert labels[0, 0, 0] == 0, "a single voxel is below the smallest size"


def test_nothing_is_found_outside_the_foreground(scene, calibration):
    scores, volume = scene
    foreground = np.ones(scores.shape, dtype=bool)
    foreground[:5] = False
    labels, findings = find_findings(
        scores, volume, 0.9, calibration, foreground=foreground, minimum_size=0.1
    )
    assert len(findings) == 1
    assert not labels[:5].any()


def test_diagonal_neighbours_are_one_finding(calibration):
    scores = np.zeros((1, 8, 8), dtype=np.float32)
    scores[0, 2, 2] = scores[0, 3, 3] = 1
    volume = volume_from_array(np.random.default_rng(0).random((1, 8, 8)))
    _, findings = find_findings(scores, volume, 0.5, calibration, minimum_size=0)
    assert len(findings) == 1


def test_more_findings_than_labels_keep_the_largest(calibration):
    scores = np.zeros((1, 120, 120), dtype=np.float32)
    scores[0, ::4, ::4] = 1
    scores[0, 50:53, 50:53] = 1
    volume = volume_from_array(np.random.default_rng(0).random((1, 120, 120)))
    labels, findings = find_findings(scores, volume, 0.5, calibration, minimum_size=0)
    assert len(findings) == 255
    assert labels.max() == 255
    assert findings[0].voxels == 9 > findings[-1].voxels == 1


def test_a_map_without_findings(scene, calibration):
    scores, volume = scene
    labels, findings = find_findings(scores, volume, 5, calibration)
    assert findings == []
    assert not labels.any()


def test_findings_below_1_ml_are_left_out(scene, calibration):
    scores, volume = scene
    _, findings = find_findings(scores, volume, 0.9, calibration)
    assert [finding.volume_ml for finding in findings] == pytest.approx([1.0])


def test_a_negative_size_is_refused(scene, calibration):
    scores, volume = scene
    with pytest.raises(InputError, match="0 ml or more"):
        find_findings(scores, volume, 0.9, calibration, minimum_size=-1)


@pytest.mark.parametrize(
    ("known", "shape", "expected"),
    [
        (True, (12, 40, 40), {"volume_ml": 1200 * 4 * 0.5 * 0.5 / 1000, "area_mm2": None}),
        (True, (1, 40, 40), {"volume_ml": None, "area_mm2": 100 * 0.5 * 0.5}),
        (False, (1, 40, 40), {"volume_ml": None, "area_mm2": None}),
    ],
)
def test_sizes_and_places_are_told_in_what_is_known(calibration, known, shape, expected, tmp_path):
    scores = np.zeros(shape, dtype=np.float32)
    scores[:, 10:20, 20:30] = 1
    scores[:, 30, 30] = 1
    noise = np.random.default_rng(0).random(shape)
    volume = volume_from_array(noise, (4, 0.5, 0.5), spacing_known=known)
    _, [finding] = find_findings(scores, volume, 0.5, calibration)
    assert finding.voxels == 100 * shape[0]
    assert {name: getattr(finding, name) for name in expected} == pytest.approx(expected)
    assert finding.centroid_voxel[1:] == (14.5, 24.5)
    assert (finding.centroid_ras_mm is not None) == known
    write_findings_csv(tmp_path / "a.csv", [finding])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["right_mm"], row["centre_row"]) == ("-12.25" if known else "", "14.5")
    assert row["area_mm2"] == ("25" if known and shape[0] == 1 else "")


def test_a_smallest_size_is_in_the_unit_of_the_scan(calibration):
    scores = np.zeros((1, 40, 40), dtype=np.float32)
    scores[0, 10:16, 10:15] = 1
    noise = np.random.default_rng(0).random((1, 40, 40))
    image = volume_from_array(noise, spacing_known=False)
    assert find_findings(scores, image, 0.5, calibration)[1] == []
    assert len(find_findings(scores, image, 0.5, calibration, minimum_size=30)[1]) == 1
    slice_of_2_mm = volume_from_array(noise, (5, 2, 2))
    assert len(find_findings(scores, slice_of_2_mm, 0.5, calibration, minimum_size=120)[1]) == 1
    assert find_findings(scores, slice_of_2_mm, 0.5, calibration, minimum_size=121)[1] == []


def test_table(scene, calibration, tmp_path):
    scores, volume = scene
    _, findings = find_findings(scores, volume, 0.9, calibration, minimum_size=0.1)
    write_findings_csv(tmp_path / "a.csv", findings)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert float(rows[0]["volume_ml"]) == pytest.approx(1.0)
    assert float(rows[0]["right_mm"]) == pytest.approx(-21.5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_the_smallest_size_counts_above_the_core(scene, calibration):
    scores, volume = scene
    # 1.25 ml lies above the threshold, of which 0.25 ml is higher.
    scores[2:4, 10:20, 10:15] = 0.9
    scores[4, 10:15, 10:20] = 0.96

    def sizes(core, minimum):
        labels, findings = find_findings(
            scores, volume, 0.85, calibration, minimum_size=minimum, core=core
        )
        assert (np.bincount(labels.ravel())[1:] == [one.voxels for one in findings]).all()
        return [one.voxels for one in findings]

    assert sizes(None, 1) == [250]
    # A finding reaches as far as the threshold.
    assert sizes(0.955, 0.2) == [250, 108]
    assert sizes(0.955, 0.3) == [108]
    assert sizes(0.99, 0) == [108], "some of it is above the core, however small it may be"
    assert sizes(0.5, 1) == sizes(None, 1), "a core below the threshold is the threshold"


def test_corrected_labels_are_described_as_they_are(scene, calibration):
    scores, volume = scene
    automatic, found = find_findings(scores, volume, 0.9, calibration, minimum_size=0.1)
    assert describe_labels(automatic, scores, volume, calibration) == found
    edits = np.zeros(scores.shape, dtype=np.int8)
    edits[2:4, 10:20, 10:20] = -1
    edits[0, 0, 0] = 1
    labels, findings = edit_findings(automatic, edits, scores, volume, calibration)
    assert [finding.voxels for finding in findings] == [108, 1]
    # The first is erased, and the others keep their numbers.
    assert np.bincount(labels.ravel())[1:].tolist() == [0, 108, 1]
    assert findings[1].centroid_voxel == (0, 0, 0)
    assert count_edits(automatic, labels) == (1, 200)
    # A voxel that was found already, or was none, is no correction.
    edits[:] = 0
    edits[7, 32, 42], edits[5, 5, 5] = 1, -1
    labels, findings = edit_findings(automatic, edits, scores, volume, calibration)
    assert findings == found
    assert count_edits(automatic, labels) == (0, 0)


def test_corrected_findings_keep_their_numbers(scene, calibration):
    scores, volume = scene
    automatic, _ = find_findings(scores, volume, 0.9, calibration, minimum_size=0.1)
    edits = np.zeros(scores.shape, dtype=np.int8)

    def edited(known=None):
        return edit_findings(automatic, edits.copy(), scores, volume, calibration, known)

    # The second finding grows larger than the first, and a missed lesion is marked.
    edits[6:9, 20:36, 30:46] = 1
    edits[5, 2:6, 2:6] = 1
    labels, findings = edited()
    assert [(one.label, one.voxels) for one in findings] == [(2, 768), (1, 200), (3, 16)]
    assert (labels[automatic == 1] == 1).all() and labels[5, 3, 3] == 3
    # A larger lesion is marked after it.
    edits[0, 20:30, 2:12] = 1
    assert edited()[0][5, 3, 3] == 4, "the larger of two new ones comes first"
    labels, _ = edited(labels)
    assert labels[5, 3, 3] == 3 and labels[0, 25, 5] == 4
    # A stroke joins the first two, and is taken back: both have their own numbers again.
    bridge = (slice(3, 7), slice(19, 21), slice(10, 46))
    edits[bridge] += (edits[bridge] == 0).astype(np.int8) * 2
    joined, findings = edited(labels)
    assert sorted(one.label for one in findings) == [2, 3, 4]
    edits[edits == 2] = 0
    parted, _ = edited(joined)
    np.testing.assert_array_equal(parted, labels)
    # Of a finding cut in two, the larger part keeps the number.
    edits[2:4, 13, 10:20] = -1
    cut, findings = edited(parted)
    assert cut[2, 18, 15] == 1 and cut[2, 11, 15] == 5
    assert [one.voxels for one in findings] == sorted(
        (one.voxels for one in findings), reverse=True
    )
