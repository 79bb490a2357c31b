"""Decisions stay with what they were made on."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.findings import describe_labels
from napari_dino_uad.core.maps.review import Correction, Judgement, Review
from napari_dino_uad.core.scans.volume import volume_from_array

SHAPE = (6, 30, 30)


class Calibration:
    def false_positive_rate(self, score):
        return 0.01


def found(*boxes):
    """Labels of boxes (slices, rows, cols) and their findings."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for number, (s, p, q) in enumerate(boxes, start=1):
        labels[slice(*s), slice(*p), slice(*q)] = number
    scores = np.ones(SHAPE, dtype=np.float32)
    volume = volume_from_array(scores, allow_constant=True)
    return labels, describe_labels(labels, scores, volume, Calibration())


LARGE = ((1, 5), (2, 12), (2, 12))
SMALL = ((1, 3), (20, 24), (20, 24))


def decisions(review, case):
    return {label: one.decision for label, one in review.of(*case).items()}


def test_a_decision_follows_its_finding():
    review, before = Review(), found(LARGE, SMALL)
    review.judge(*before, 2, "rejected")
    # The small one is first now, larger and in one slice more.
    after = found(((1, 4), (20, 24), (20, 24)), LARGE)
    assert decisions(review, after) == {1: "rejected"}


def test_a_decision_waits_for_its_finding():
    review = Review()
    review.judge(*found(LARGE, SMALL), 2, "accepted", "lesion")
    assert decisions(review, found(LARGE)) == {}
    back = found(LARGE, SMALL)
    assert review.of(*back)[2].note == "lesion"


def test_both_parts_of_a_split_finding_keep_it():
    review = Review()
    review.judge(*found(LARGE), 1, "accepted")
    parts = found(((1, 5), (2, 6), (2, 12)), ((1, 5), (8, 12), (2, 12)))
    assert decisions(review, parts) == {1: "accepted", 2: "accepted"}


def test_a_rejected_speck_does_not_reject_a_lesion():
    review = Review()
    review.judge(*found(((1, 3), (2, 5), (2, 5))), 1, "rejected")
    assert decisions(review, found(LARGE)) == {}


def test_the_larger_overlap_decides():
    review = Review()
    both = found(((1, 5), (2, 10), (2, 12)), ((1, 5), (12, 14), (2, 12)))
    review.judge(*both, 1, "accepted")
    review.judge(*both, 2, "rejected")
    assert decisions(review, found(((1, 5), (2, 14), (2, 12)))) == {1: "accepted"}


def test_a_decision_overrules_those_on_its_parts():
    review = Review()
    review.judge(*found(((1, 5), (2, 6), (2, 12))), 1, "rejected")
    review.judge(*found(LARGE), 1, "accepted")
    assert len(review.judgements) == 1
    assert decisions(review, found(((1, 5), (2, 6), (2, 12)))) == {1: "accepted"}


def test_undo_and_redo():
    review, case = Review(), found(LARGE, SMALL)
    assert review.undo_text == review.redo_text == ""
    review.judge(*case, 1, "accepted")
    review.judge(*case, 1, note="sure")
    review.judge(*case, 2, "rejected")
    assert review.undo_text == "reject finding 2"
    review.undo()
    assert decisions(review, case) == {1: "accepted"}
    assert (review.undo_text, review.redo_text) == ("note on finding 1", "reject finding 2")
    review.undo()
    assert review.of(*case)[1].note == ""
    review.redo()
    review.redo()
    review.redo()
    assert decisions(review, case) == {1: "accepted", 2: "rejected"}
    review.undo()
    review.judge(*case, 2, "accepted")
    assert review.redo_text == ""
    assert decisions(review, case) == {1: "accepted", 2: "accepted"}


def test_corrections_and_decisions_have_one_undo():
    review, case = Review(), found(LARGE, SMALL)
    none = None
    first, second = (np.zeros(SHAPE, dtype=np.int8) for _ in range(2))
    first[2, 3, 4] = 1
    second[2, 3, 4], second[4, 0, 0] = 1, -1
    review.correct(Correction.between(none, first, [2]), "brush stroke")
    review.judge(*case, 1, "accepted")
    review.correct(Correction.between(first, second), "brush stroke")
    review.correct(Correction.between(second, second), "nothing")
    assert review.undo_text == "brush stroke"
    np.testing.assert_array_equal(review.undo().undone(second, SHAPE), first)
    assert review.undo_text == "accept finding 1" and review.undo() is None
    assert decisions(review, case) == {}
    assert review.undo().undone(first, SHAPE) is None, "no correction is left"
    assert review.undo() is None and not review.undo_text
    np.testing.assert_array_equal(review.redo().redone(None, SHAPE), first)
    assert review.redo() is None
    np.testing.assert_array_equal(review.redo().redone(first, SHAPE), second)
    assert review.redo() is None and decisions(review, case) == {1: "accepted"}
    # All corrections discarded is one step too.
    review.correct(Correction.between(second, None), "discarding of edits")
    np.testing.assert_array_equal(review.undo().undone(None, SHAPE), second)


def test_the_same_again_is_no_step():
    review, case = Review(), found(LARGE)
    assert review.judge(*case, 1, "accepted")
    assert not review.judge(*case, 1, "accepted")
    assert not review.judge(*case, 1, note="")
    review.undo()
    assert review.undo_text == ""


def test_runs_hold_the_voxels():
    review, case = Review(), found(LARGE, SMALL)
    review.judge(*case, 2, "accepted")
    voxels = review.judgements[0].voxels
    np.testing.assert_array_equal(voxels, np.flatnonzero(case[0].ravel() == 2))


@pytest.mark.parametrize(
    "runs", [[[-1, 2]], [[0, 0]], [[8, 3]], [[0, 3], [2, 1]], [[1, 2, 3]], "x", None]
)
def test_regions_outside_the_scan_are_refused(runs):
    with pytest.raises(InputError):
        Judgement.from_dict({"decision": "accepted", "note": "", "runs": runs}, 10)
    with pytest.raises(InputError):
        Judgement.from_dict({"decision": "maybe", "note": "", "runs": [[0, 1]]}, 10)
