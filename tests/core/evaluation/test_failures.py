"""Missed lesions and false alarms, their order, and filters on cases."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_dino_uad import Case, drain, evaluate, read_evaluation
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.failures import (
    compare_at,
    failure_of_row,
    list_failures,
    rank_failures,
)
from napari_dino_uad.core.evaluation.filters import make_filter
from napari_dino_uad.core.evaluation.folder import EvaluationFolder
from napari_dino_uad.core.evaluation.lesions import label_lesions, match_lesions
from napari_dino_uad.core.evaluation.pictures import contact_sheet
from napari_dino_uad.core.evaluation.samples import sample_grid
from napari_dino_uad.core.evaluation.settings import EvaluationSettings


@pytest.fixture
def scene(ill):
    """Two lesions, of which one is met, and a false finding of 200 voxels."""
    shape = ill.volume.shape
    mask, findings = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    mask[4:6, 20:30, 20:30] = True
    mask[10, 40:44, 40:44] = True
    findings[5, 25:35, 20:30] = 1
    findings[12:14, 50:60, 50:60] = 2
    scores = np.zeros(shape, np.float32)
    scores[10, 42, 41] = 3
    scores[13, 55, 51] = 7
    lesions, _ = label_lesions(mask)
    return list_failures(
        "x", ill.volume, scores, lesions, findings, match_lesions(lesions, findings)
    )


def test_failures_have_size_place_and_peak(scene, ill):
    missed, false = scene
    assert (missed.kind, missed.voxels, missed.peak) == ("missed lesion", 16, 3)
    assert missed.voxel == (10, 42, 41)
    assert (missed.low, missed.high) == ((10, 40, 40), (10, 43, 43))
    assert (false.kind, false.voxels, false.peak) == ("false alarm", 200, 7)
    assert false.size == pytest.approx(200 * np.prod(ill.volume.spacing_mm) / 1000)
    assert rank_failures(scene) == [false, missed]


def test_failures_survive_a_table(scene):
    for one in scene:
        row = {name: str(value) for name, value in one.row().items()}
        assert failure_of_row(row) == one
        with pytest.raises(ValueError, match="unknown"):
            failure_of_row({**row, "kind": "other"})


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ["a", "b"]),
        ("missed", ["a"]),
        ("healthy", ["b"]),
        ("auroc < 0.8", ["a"]),
        ("auroc >= 0.8", []),
        ("site = north", ["b"]),
        ("faint", ["a"]),
        ("false, site != north", []),
    ],
)
def test_filters_choose_cases(text, kept):
    rows = [
        {"case": "a", "auroc": 0.7, "site": "south", "lesions": 2, "lesions_met": 1,
         "false_findings": 0, "note": "Faint"},
        {"case": "b", "auroc": None, "site": "north", "lesions": 0, "lesions_met": 0,
         "false_findings": 3, "note": ""},
    ]  # fmt: skip
    passes = make_filter(text, list(rows[0]))
    assert [row["case"] for row in rows if passes(row)] == kept


def test_a_filter_needs_a_known_column():
    with pytest.raises(InputError, match="no column beauty"):
        make_filter("beauty > 2", ["case", "auroc"])
    with pytest.raises(InputError, match="needs a number"):
        make_filter("auroc > high", ["case", "auroc"])


def test_an_opened_case_agrees_with_its_row(heads, model, tmp_path):
    case = Case(heads / "ill" / "p_flair.nii.gz", heads / "ill" / "p_lesion.nii.gz")
    settings = EvaluationSettings(bootstrap=0, froc_rates=())
    drain(evaluate([case], model, settings=settings, out=tmp_path))
    written = read_evaluation(tmp_path)
    row, opened = written.row("p_flair"), written.open("p_flair")
    for rate, level in written.levels.items():
        outcome = compare_at(opened, level)
        assert outcome.dice == pytest.approx(row[f"dice_at_fpr_{rate:g}"])
        assert outcome.average_precision == pytest.approx(row["average_precision"])
    outcome = compare_at(opened, written.levels[0.01], core=written.cores[0.01])
    assert (outcome.lesions, outcome.met) == (row["lesions"], row["lesions_met"])
    assert outcome.false == row["false_findings"]
    np.testing.assert_array_equal((outcome.labels == 1) | (outcome.labels == 3), opened.mask)
    # A folder of an earlier version counts sizes above the threshold, as it did.
    assert written.cores.keys() == written.levels.keys()
    del written.metrics["cores"]
    assert written.cores == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"case,kind\n\xff,lesion\n", "cannot be read: its text is not in UTF-8; evaluate again"),
        (b"case,note\nx,y\n", "cannot be read: it has no column kind; evaluate again"),
        (b"case,kind\nx,rumour\n", "cannot be read: a row has too few or other values; evaluate"),
        (None, "cannot be read: No such file or directory; evaluate again"),
    ],
)
def test_a_spoilt_table_is_told_in_words(tmp_path, content, told):
    if content is not None:
        (tmp_path / "failures.csv").write_bytes(content)
    with pytest.raises(InputError, match=told):
        _ = EvaluationFolder(tmp_path, {}, [], {}).failures


def test_a_sheet_is_png_or_svg(heads, model, tmp_path):
    case = Case(heads / "ill" / "p_flair.nii.gz", heads / "ill" / "p_lesion.nii.gz")
    settings = EvaluationSettings(bootstrap=0, froc_rates=())
    drain(evaluate([case], model, settings=settings, out=tmp_path))
    written = read_evaluation(tmp_path)
    assert drain(contact_sheet(written, tmp_path / "w.svg")) == ["p_flair"]
    text = (tmp_path / "w.svg").read_text(encoding="utf-8")
    assert "p_flair" in text and "data:image/png" in text
    with pytest.raises(InputError, match=r"a \.png or \.svg file"):
        drain(contact_sheet(written, tmp_path / "w.bmp"))
    assert drain(sample_grid(written, tmp_path / "s.svg")) == ["p_flair"]
    assert drain(sample_grid(written, tmp_path / "s.png")) == ["p_flair"]
    with Image.open(tmp_path / "s.png") as picture:
        pixels = np.asarray(picture)
    # Three panels: the scan in grey, outlines, and heat.
    panels = np.array_split(pixels[42:262, 8:676].astype(int), 3, axis=1)
    assert [np.ptp(part, axis=-1).max() == 0 for part in panels] == [True, False, False]
