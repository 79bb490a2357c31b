"""The Failures dock: the cases of an evaluation on disk, by mouse and keyboard."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dino_uad import Case, drain, evaluate, read_evaluation
from napari_dino_uad.core.evaluation.settings import EvaluationSettings
from napari_dino_uad.widgets.failures import FailuresWidget

LONG_MS = 60_000


@pytest.fixture(scope="module")
def results(heads, model, tmp_path_factory):
    """An evaluation in which every lesion must be found whole, so that all are missed."""
    ill = heads / "ill"
    cases = [
        Case(ill / "p_flair.nii.gz", ill / "p_lesion.nii.gz"),
        Case(heads / "healthy" / "h0_flair.nii.gz", healthy=True),
    ]
    settings = EvaluationSettings(bootstrap=0, froc_rates=(0.05,), lesion_overlap=1.0)
    out = tmp_path_factory.mktemp("failures")
    drain(evaluate(cases, model, settings=settings, out=out))
    return out


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def widget(qtbot, viewer, results):
    widget = FailuresWidget(viewer)
    qtbot.addWidget(widget)
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        widget.open(results)
    yield widget
    widget.release()


def double_click(qtbot, widget, case):
    table = widget.table
    place = table.visualRect(table.model().index(table.order.index(case), 0)).center()
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
        QTest.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)


def press(qtbot, widget, button):
    was = widget.shown
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.job.running, timeout=LONG_MS)
    return widget.shown is not was


def names(viewer):
    return [layer.name for layer in viewer.layers]


def test_cases_come_worst_first(widget, results):
    written = read_evaluation(results)
    assert widget.table.order[0] == written.failures[0].case
    assert "2 of 2 cases" in widget.summary.text()
    assert f"{len(written.failures)} failures" in widget.where.text()


def test_a_case_opens_with_its_outcome(qtbot, widget, viewer, ill, results):
    double_click(qtbot, widget, "p_flair")
    assert names(viewer) == ["p_flair", "anomaly: p_flair", "outcome: p_flair"]
    labels = np.asarray(viewer.layers["outcome: p_flair"].data)
    lesion = (labels == 1) | (labels == 3)
    np.testing.assert_array_equal(lesion, ill.lesion)
    row = read_evaluation(results).row("p_flair")
    assert f"Dice {row['dice_at_fpr_0.01']:.2f}" in widget.result.text()
    assert f"AP {row['average_precision']:.2f}" in widget.result.text()


def test_next_failure_goes_round_and_points(qtbot, widget, viewer):
    failures = read_evaluation(widget.folder.path).failures
    for number, failure in enumerate(failures):
        press(qtbot, widget, widget.after)
        assert f"{number + 1} of {len(failures)}" in widget.where.text()
        scan = viewer.layers[failure.case]
        place = scan.world_to_data(viewer.dims.point)
        assert tuple(np.round(place).astype(int)) == failure.voxel
        assert widget.table.case == failure.case
    press(qtbot, widget, widget.after)
    assert f"1 of {len(failures)}" in widget.where.text()
    press(qtbot, widget, widget.before)
    assert f"{len(failures)} of {len(failures)}" in widget.where.text()


def test_another_case_replaces_the_layers(qtbot, widget, viewer):
    double_click(qtbot, widget, "p_flair")
    double_click(qtbot, widget, "h0_flair")
    assert names(viewer) == ["h0_flair", "anomaly: h0_flair", "outcome: h0_flair"]


def test_the_rate_changes_picture_and_text(qtbot, widget, viewer):
    double_click(qtbot, widget, "p_flair")
    before = int((viewer.layers["outcome: p_flair"].data == 3).sum())
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        widget.rate.setCurrentIndex(0)
    assert "at 10 %" in widget.result.text()
    assert int((viewer.layers["outcome: p_flair"].data == 3).sum()) <= before


def test_notes_survive_closing(qtbot, widget, viewer, results):
    double_click(qtbot, widget, "p_flair")
    QTest.keyClicks(widget.note, "large, faint")
    QTest.keyClick(widget.note, Qt.Key.Key_Return)
    with (results / "notes.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"case": "p_flair", "note": "large, faint"}]
    again = FailuresWidget(viewer)
    qtbot.addWidget(again)
    with qtbot.waitSignal(again.job.succeeded, timeout=LONG_MS):
        again.open(results)
    assert again.table.rows[0]["note"] == "large, faint"
    again.release()
    (results / "notes.csv").unlink()


def test_a_filter_narrows_table_and_failures(widget):
    QTest.keyClicks(widget.filter, "healthy")
    QTest.keyClick(widget.filter, Qt.Key.Key_Return)
    assert widget.table.order == ["h0_flair"]
    assert all(one.case == "h0_flair" for one in widget._failures)
    widget.filter.setText("beauty > 3")
    QTest.keyClick(widget.filter, Qt.Key.Key_Return)
    assert "no column beauty" in widget.run.text and widget.run.complaining


def test_a_deleted_scan_takes_its_layers_along(qtbot, widget, viewer):
    double_click(qtbot, widget, "p_flair")
    viewer.layers.remove("p_flair")
    assert names(viewer) == []
    assert widget.shown is None
    double_click(qtbot, widget, "p_flair")
    assert names(viewer)[0] == "p_flair"


def test_closing_leaves_nothing_behind(qtbot, widget, viewer):
    double_click(qtbot, widget, "p_flair")
    widget.release()
    assert names(viewer) == []
    assert "Shift-N" not in {str(key) for key in viewer.keymap}


def test_another_folder_is_refused(qtbot, widget, tmp_path):
    with qtbot.waitSignal(widget.job.failed, timeout=LONG_MS):
        widget.open(tmp_path)
    assert "no results of an evaluation" in widget.run.text
    assert widget.run.complaining


def test_a_contact_sheet_is_written(qtbot, widget, tmp_path, monkeypatch):
    from PIL import Image
    from qtpy.QtWidgets import QFileDialog

    path = tmp_path / "worst.png"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    with qtbot.waitSignal(widget.sheet_job.succeeded, timeout=LONG_MS):
        QTest.mouseClick(widget.sheet, Qt.MouseButton.LeftButton)
    with Image.open(path) as picture:
        assert picture.size[0] > 300 and np.asarray(picture).std() > 5
