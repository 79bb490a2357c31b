"""Picture, panel and saved files say the same: by mouse and keyboard in a real window."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_dino_uad import detect, drain
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.scans.volume import volume_from_array, write_volume
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.detect import pipelines
from napari_dino_uad.widgets.detect import run as detect_run
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.session import session

LONG_MS = 120_000
LEFT = Qt.MouseButton.LeftButton


class Window:
    """A napari window with Detect docked, driven by clicks and keys."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.dock = self.open_dock()

    def open_dock(self):
        self.dock, self.widget = self.viewer.window.add_plugin_dock_widget(
            "napari-dino-uad", "Detect"
        )
        self.qtbot.waitUntil(lambda: not self.widget.loading.running, timeout=LONG_MS)
        return self.dock

    def open(self, volume):
        """Open a scan as the reader does."""
        data, keywords, _ = volume_layer(volume)
        return self.viewer.add_layer(Image(data, **keywords))

    def click(self, button):
        assert button.isEnabled(), button.toolTip()
        self.qtbot.mouseClick(button, LEFT)

    def detect(self):
        self.click(self.widget.run.start)
        self.settle()

    def settle(self):
        """Wait until nothing is on its way."""
        widget = self.widget

        def still():
            shown = widget.shown
            return (
                not widget.job.running
                and not widget.findings_job.running
                and not widget.saving.running
                and (shown is None or shown.anomaly is None or shown.current)
            )

        self.qtbot.wait(30)
        self.qtbot.waitUntil(still, timeout=LONG_MS)

    def choose(self, box, text):
        """Choose by the keyboard."""
        native = box.native
        native.setFocus()
        QTest.keyClick(native, Qt.Key.Key_Home)
        while native.currentText() != text:
            before = native.currentIndex()
            QTest.keyClick(native, Qt.Key.Key_Down)
            assert native.currentIndex() != before, f"{text} is not offered"

    def slide(self, key, times=1):
        """Move the threshold by the keyboard, and wait until the findings have followed."""
        for _ in range(times):
            QTest.keyClick(self.widget.threshold.slider, key)
        self.qtbot.wait(250)
        self.settle()

    def paint(self, layer, row, column, label=1, size=9, index=None):
        """Paint a stroke as the brush does, in the slice on screen."""
        layer.mode = "paint" if label else "erase"
        layer.brush_size = size
        self.viewer.layers.selection.active = layer
        index = self.viewer.dims.current_step[0] if index is None else index
        layer.paint((index, row, column), label)
        self.qtbot.wait(400)
        self.settle()

    def save(self, folder, monkeypatch, replace=QMessageBox.StandardButton.Yes):
        """Press Save, choose a folder, and answer whether earlier results are replaced."""
        folder.mkdir(exist_ok=True)
        asked = []
        monkeypatch.setattr(QMessageBox, "question", lambda *_: asked.append(_[2]) or replace)
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
        self.click(self.widget.save_button)
        self.settle()
        return asked

    @property
    def names(self):
        return [layer.name for layer in self.viewer.layers]

    @property
    def summary(self):
        return self.widget.panel.summary.text()


@pytest.fixture
def window(make_napari_viewer, qtbot, model):
    session().models.clear()
    session().add_model("A", model)
    window = Window(make_napari_viewer(), qtbot)
    yield window
    window.widget.release()
    session().models.clear()


@pytest.fixture
def scan(ill):
    return replace(ill.volume, name="scan")


@pytest.fixture
def other(healthy):
    return replace(healthy[0].volume, name="other")


@pytest.fixture
def other_model(model):
    """The same model, calibrated on other scans: its thresholds are half as high."""
    calibration = replace(model.calibration, scores=model.calibration.scores * 0.5)
    return replace(model, calibration=calibration)


@pytest.fixture
def slow(monkeypatch):
    """Stretch a detection until it is let go: only its first slices come."""
    gate = {"open": False, "after": 1}
    real = pipelines.detector

    def slowed(read, detection, first):
        def pipeline():
            done = 0
            inner = real(read, detection, first)()
            while True:
                try:
                    progress = next(inner)
                except StopIteration as end:
                    return end.value
                yield progress
                done += progress.result is not None
                while done >= gate["after"] and not gate["open"]:
                    time.sleep(0.005)
                    yield Progress("Waiting", 0, 1)

        return pipeline

    monkeypatch.setattr(detect_run, "detector", slowed)
    return gate


def read_saved(folder, name="scan"):
    """Return what the files of one save say: voxels and findings of each."""
    report = json.loads((folder / f"{name}.json").read_text())
    with (folder / f"{name}_findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}_findings.nii.gz")))
    counts = np.bincount(labels.ravel())[1:].tolist()
    assert [int(row["voxels"]) for row in rows] == counts
    assert [finding["voxels"] for finding in report["findings"]] == counts
    return report, int((labels > 0).sum())


# A map is judged by its own model --------------------------------------------------------


def test_a_map_keeps_its_model_when_another_is_chosen(
    window, scan, other_model, tmp_path, monkeypatch
):
    window.open(scan)
    window.detect()
    widget, heat = window.widget, window.viewer.layers[1]
    calibration = widget.shown.model.calibration
    session().add_model("B", other_model)
    assert widget.model.value == "B"
    assert not widget.choice.differs.isHidden()
    assert widget.choice.differs.text() == "This map is from A; press Detect for B."
    limits = tuple(heat.contrast_limits)
    window.slide(Qt.Key.Key_Left, 20)
    assert widget.threshold.threshold == pytest.approx(calibration.threshold(widget.threshold.rate))
    assert tuple(heat.contrast_limits) == limits
    cut = calibration.threshold(widget.threshold.rate)
    above = (widget.detection.scores > cut) & widget.detection.foreground
    assert 0 < (window.viewer.layers[2].data > 0).sum() <= above.sum()
    assert above[window.viewer.layers[2].data > 0].all()
    window.save(tmp_path, monkeypatch)
    report, _ = read_saved(tmp_path)
    assert report["model_name"] == "A"
    assert report["threshold"] == pytest.approx(cut)
    window.detect()
    assert widget.choice.differs.isHidden()
    assert widget.shown.model is other_model
    assert tuple(heat.contrast_limits) == pytest.approx([one / 2 for one in limits])


def test_a_model_chosen_during_a_run_does_not_judge_its_map(window, scan, other_model, slow):
    window.open(scan)
    widget = window.widget
    window.click(widget.run.start)
    window.qtbot.waitUntil(lambda: len(window.viewer.layers) == 2, timeout=LONG_MS)
    session().add_model("B", other_model)
    slow["open"] = True
    window.settle()
    assert widget.shown.model_name == "A"
    assert widget.detection.model is widget.shown.model
    cut = widget.shown.model.calibration.threshold(widget.threshold.rate)
    assert widget.threshold.threshold == pytest.approx(cut)
    assert widget.choice.differs.text() == "This map is from A; press Detect for B."


# Results belong to their scan -------------------------------------------------------------


def test_each_scan_has_its_own_layers_above_it(window, scan, other):
    window.open(scan)
    window.detect()
    window.open(other)
    assert window.widget.scan.value.name == "other"
    window.detect()
    assert window.names == [
        "scan", "anomaly: scan", "findings: scan", "other", "anomaly: other", "findings: other",
    ]  # fmt: skip
    window.choose(window.widget.scan, "scan")
    window.detect()
    assert window.names[:3] == ["scan", "anomaly: scan", "findings: scan"]
    assert len(window.names) == 6


def test_choosing_a_scan_shows_its_panel_or_clears_it(window, scan, other):
    window.open(scan)
    window.detect()
    window.slide(Qt.Key.Key_Left, 30)
    widget, text, rate = window.widget, window.summary, window.widget.threshold.rate
    assert "finding" in text
    point = np.argwhere(widget.detection.foreground)[500]
    widget.read_cursor(window.viewer.layers[0].data_to_world(point))
    assert widget.panel.cursor_text.text()
    window.open(other)
    assert window.summary == ""
    assert widget.panel.cursor_text.text() == ""
    assert widget.panel.warning.isHidden()
    assert not widget.save_button.isEnabled()
    assert not widget.threshold._curves["scan"].isVisible()
    assert widget.run.text == ""
    window.slide(Qt.Key.Key_Right, 40)
    window.choose(widget.scan, "scan")
    assert window.summary == text
    assert widget.threshold.rate == pytest.approx(rate)
    assert widget.save_button.isEnabled()
    assert widget.threshold._curves["scan"].isVisible()


def test_a_scan_opened_during_a_run_is_chosen_and_not_mixed(window, scan, other, slow):
    window.open(scan)
    widget = window.widget
    window.click(widget.run.start)
    window.qtbot.waitUntil(lambda: "anomaly: scan" in window.names, timeout=LONG_MS)
    window.open(other)
    assert widget.scan.value.name == "other"
    assert widget.job.running
    assert widget.shown is None
    slow["open"] = True
    window.settle()
    assert window.names == ["scan", "anomaly: scan", "findings: scan", "other"]
    assert window.summary == ""
    assert widget.run.text.startswith("scan: ")
    window.choose(widget.scan, "scan")
    assert "finding" in window.summary
    assert widget.detection.volume is scan


def test_a_deleted_scan_takes_its_layers_along(window, scan, other):
    window.open(scan)
    window.detect()
    window.open(other)
    window.viewer.layers.selection.active = window.viewer.layers["scan"]
    window.viewer.layers.remove_selected()
    window.qtbot.waitUntil(lambda: window.names == ["other"], timeout=5000)
    window.detect()
    for layer in list(window.viewer.layers):
        window.viewer.layers.selection.add(layer)
    window.viewer.layers.remove_selected()
    window.qtbot.waitUntil(lambda: window.names == [], timeout=5000)
    assert window.summary == ""
    assert not window.widget.save_button.isEnabled()


def test_deleting_the_scan_cancels_its_run(window, scan, slow):
    layer = window.open(scan)
    window.click(window.widget.run.start)
    window.qtbot.waitUntil(lambda: len(window.viewer.layers) == 2, timeout=LONG_MS)
    window.viewer.layers.remove(layer)
    window.qtbot.waitUntil(lambda: window.names == [], timeout=5000)
    assert not window.widget.job.running
    assert window.widget.shown is None


def test_layers_follow_their_scan_and_its_name(window, scan, other):
    layer = window.open(scan)
    window.detect()
    window.open(other)
    layers = window.viewer.layers
    layers.move(layers.index(layer), len(layers))
    window.qtbot.wait(50)
    assert window.names == ["other", "scan", "anomaly: scan", "findings: scan"]
    layer.name = "patient"
    assert window.names[1:] == ["patient", "anomaly: patient", "findings: patient"]
    # What the user moves stays there, and is put back by the next detection.
    layers.move(2, 0)
    window.qtbot.wait(50)
    assert window.names == ["anomaly: patient", "other", "patient", "findings: patient"]
    window.choose(window.widget.scan, "patient")
    window.detect()
    assert window.names == ["other", "patient", "anomaly: patient", "findings: patient"]


def test_a_covered_scan_is_told_and_shown_by_a_link(window, scan, other):
    window.open(scan)
    window.detect()
    window.open(other)
    window.choose(window.widget.scan, "scan")
    note, other_layer = window.widget.choice.covered, window.viewer.layers["other"]
    # The scan chosen takes the place of the other one, until the user wants both.
    assert not other_layer.visible and note.isHidden()
    other_layer.visible = True
    assert "This scan lies below other." in note.text()
    note.linkActivated.emit("show")
    assert not window.viewer.layers["other"].visible
    assert note.isHidden()


def test_heat_is_hidden_with_its_scan(window, scan):
    layer = window.open(scan)
    window.detect()
    layer.visible = False
    assert [one.visible for one in window.viewer.layers] == [False] * 3
    layer.visible = True
    assert [one.visible for one in window.viewer.layers] == [True] * 3


# The dock, and layers the user deletes or hides ---------------------------------------------


def test_closing_the_dock_cancels_and_reopening_leaves_one(window, scan, slow):
    window.open(scan)
    viewer, first = window.viewer, window.widget
    callbacks = len(viewer.mouse_move_callbacks)
    window.click(first.run.start)
    window.qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=LONG_MS)
    job = first.job
    with window.qtbot.waitSignal(first.destroyed, timeout=5000):
        window.click(window.dock.title.close_button)
        assert not job.running
    slow["open"] = True
    window.open_dock()
    assert window.widget is not first
    assert len(viewer.mouse_move_callbacks) == callbacks
    # The result outlives the dock, and the key belongs to the dock that is open.
    assert "Cancelled" in window.widget.run.text
    assert window.widget.shown is not None
    viewer.window._qt_window.activateWindow()
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.keyClick(
        canvas,
        Qt.Key.Key_D,
        Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier,
    )
    assert window.widget.job.running
    window.settle()
    assert window.names == ["scan", "anomaly: scan", "findings: scan"]


def test_a_result_is_shown_again_by_a_new_dock(window, scan):
    window.open(scan)
    window.detect()
    text = window.summary
    window.click(window.dock.title.close_button)
    window.qtbot.wait(50)
    window.open_dock()
    assert window.summary == text
    assert window.widget.save_button.isEnabled()


@pytest.mark.parametrize(("number", "word"), [(1, "heat"), (2, "findings")])
def test_save_after_a_layer_was_deleted(window, scan, tmp_path, monkeypatch, number, word):
    window.open(scan)
    window.detect()
    voxels = int((window.viewer.layers[2].data > 0).sum())
    window.viewer.layers.selection.active = window.viewer.layers[number]
    window.viewer.layers.remove_selected()
    told = window.widget.panel.deleted
    assert not told.isHidden()
    assert told.text().startswith(f"The {word} layer was deleted. Save still writes it")
    window.save(tmp_path, monkeypatch)
    assert read_saved(tmp_path)[1] == voxels > 0
    window.slide(Qt.Key.Key_Left)
    assert window.names == ["scan", "anomaly: scan", "findings: scan"]
    assert told.isHidden()


def test_hidden_layers_are_shown_by_the_next_detection(window, scan):
    window.open(scan)
    window.detect()
    for layer in window.viewer.layers[1:]:
        layer.visible = False
    window.detect()
    assert all(layer.visible for layer in window.viewer.layers)


def test_air_stays_clear_with_the_slider_fully_left(window, scan):
    window.open(scan)
    window.detect()
    QTest.keyClick(window.widget.threshold.slider, Qt.Key.Key_Home)
    window.qtbot.wait(250)
    window.settle()
    heat = window.viewer.layers[1]
    assert heat.colormap.map(heat.colormap.controls[:1])[0, 3] == 0
    step = int(window.viewer.dims.current_step[0])
    air = ~window.widget.detection.foreground[step]
    low, high = heat.contrast_limits
    values = (heat.data[step] - low) / (high - low)
    alpha = heat.colormap.map(np.clip(values, 0, 1).ravel())[:, 3].reshape(air.shape)
    assert alpha[air].max() == 0
    assert alpha[~air].max() > 0.3


# Corrections --------------------------------------------------------------------------------


def test_painted_corrections_are_in_every_file(window, scan, tmp_path, monkeypatch):
    window.open(scan)
    window.detect()
    layer, widget = window.viewer.layers[2], window.widget
    before = layer.data.copy()
    window.paint(layer, 4, 4)
    painted = int((layer.data > 0).sum() - (before > 0).sum())
    assert painted > 20
    assert widget.panel.edits.text() == f"Edited by hand: {painted} voxels added."
    assert len(widget.findings) == before.max() + 1
    window.save(tmp_path, monkeypatch)
    report, voxels = read_saved(tmp_path)
    assert voxels == (before > 0).sum() + painted
    assert report["edited"] is True
    assert (report["voxels_added"], report["voxels_removed"]) == (painted, 0)


def test_corrections_survive_slider_and_size(window, scan):
    window.open(scan)
    window.slide(Qt.Key.Key_Left, 60)
    window.detect()
    layer, widget = window.viewer.layers[2], window.widget
    window.paint(layer, 4, 4)
    added = layer.data[:, :9, :9] > 0
    # A finding that the reader does not believe in is erased whole.
    wrong = layer.data == 1
    first = np.argwhere(wrong)[0]
    layer.fill(tuple(first), 0)
    window.qtbot.wait(400)
    window.settle()
    erased = wrong & (layer.data == 0)
    assert erased.sum() > 20
    window.slide(Qt.Key.Key_Left, 10)
    assert (layer.data[:, :9, :9] > 0)[added].all()
    assert not (layer.data > 0)[erased].any()
    QTest.keyClick(widget.minimum_size, Qt.Key.Key_Up)
    window.settle()
    assert (layer.data[:, :9, :9] > 0)[added].all()
    assert "added" in widget.panel.edits.text() and "removed" in widget.panel.edits.text()
    window.click(widget.panel.discard)
    window.settle()
    assert widget.panel._edits_row.isHidden()
    assert not (layer.data[:, :9, :9] > 0)[added].any()


def test_undo_takes_a_correction_back(window, scan):
    window.open(scan)
    window.detect()
    layer = window.viewer.layers[2]
    before, text = layer.data.copy(), window.summary
    window.paint(layer, 4, 4)
    assert window.summary != text
    layer.undo()
    window.qtbot.wait(400)
    window.settle()
    np.testing.assert_array_equal(layer.data > 0, before > 0)
    assert window.summary == text
    assert window.widget.panel._edits_row.isHidden()
    layer.redo()
    window.qtbot.wait(400)
    window.settle()
    assert "added" in window.widget.panel.edits.text()


def test_save_at_once_after_painting_and_sliding(window, scan, tmp_path, monkeypatch):
    window.open(scan)
    window.detect()
    layer, widget = window.viewer.layers[2], window.widget
    layer.brush_size = 9
    layer.paint((window.viewer.dims.current_step[0], 4, 4), 1)
    for _ in range(30):
        QTest.keyClick(widget.threshold.slider, Qt.Key.Key_Left)
    window.save(tmp_path, monkeypatch)
    report, voxels = read_saved(tmp_path)
    assert report["voxels_added"] > 20
    assert report["false_positive_rate"] == pytest.approx(widget.threshold.rate)
    assert voxels == (layer.data > 0).sum()
    assert sum(finding.voxels for finding in widget.findings) == voxels


def test_corrections_go_on_to_the_next_detection(window, scan):
    window.open(scan)
    window.detect()
    window.paint(window.viewer.layers[2], 4, 4)
    text = window.widget.panel.edits.text()
    window.detect()
    assert window.widget.panel.edits.text() == text != ""


# Nothing stale ------------------------------------------------------------------------------


def test_a_partial_map_has_no_panel_of_the_map_before(window, scan, slow):
    slow["open"] = True
    window.open(scan)
    window.detect()
    slow["open"] = False
    widget = window.widget
    window.click(widget.run.start)
    window.qtbot.waitUntil(lambda: widget.detection is None, timeout=LONG_MS)
    assert window.summary == ""
    assert not widget.threshold._curves["scan"].isVisible()
    assert not window.viewer.layers[2].data.any()
    window.click(widget.run.cancel)
    assert widget.run.text == "Cancelled: 1 slice of scan was done and stays on screen."
    assert not widget.save_button.isEnabled()
    assert "not finished" in widget.save_button.toolTip()


def test_cancel_before_the_first_slice_keeps_the_map_before(window, scan, slow):
    slow["open"] = True
    window.open(scan)
    window.detect()
    text = window.summary
    slow.update(open=False, after=0)
    window.click(window.widget.run.start)
    window.click(window.widget.run.cancel)
    assert window.widget.run.text.startswith("Cancelled before the first slice")
    assert "stay" not in window.widget.run.text
    assert window.summary == text
    assert window.widget.save_button.isEnabled()


def test_an_error_goes_with_the_next_success(window, scan, tmp_path, monkeypatch):
    window.open(scan)
    window.detect()
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(blocked))
    window.click(window.widget.save_button)
    window.settle()
    assert window.widget.run.text == f"Cannot write to {blocked}: file is a file; choose a folder."
    assert "color" in window.widget.run._status.styleSheet()
    window.detect()
    assert window.widget.run._status.styleSheet() == ""
    assert " slices in " in window.widget.run.text


def test_results_of_another_scan_of_the_name_are_kept(window, scan, tmp_path, monkeypatch):
    window.open(replace(scan, path=tmp_path / "anna" / "scan.nii.gz"))
    window.detect()
    window.save(tmp_path / "out", monkeypatch)
    saved = (tmp_path / "out" / "scan.json").read_text()
    window.open(replace(scan, path=tmp_path / "ben" / "scan.nii.gz"))
    window.detect()
    window.save(tmp_path / "out", monkeypatch)
    assert "results of another scan named scan" in window.widget.run.text
    assert (tmp_path / "out" / "scan.json").read_text() == saved


def test_earlier_results_are_replaced_only_if_wanted(window, scan, tmp_path, monkeypatch):
    window.open(scan)
    window.detect()
    assert window.save(tmp_path, monkeypatch) == []
    earlier = (tmp_path / "scan.json").read_text()
    window.slide(Qt.Key.Key_Right, 20)
    (asked,) = window.save(tmp_path, monkeypatch, QMessageBox.StandardButton.No)
    assert "already has scan_anomaly.nii.gz, scan_findings.nii.gz" in asked
    assert (tmp_path / "scan.json").read_text() == earlier
    window.save(tmp_path, monkeypatch)
    assert (tmp_path / "scan.json").read_text() != earlier


def test_long_names_do_not_widen_the_dock(window, scan):
    name = "TCGA_DU_7306_19930512_flair_registered_to_template_space_2mm_without_skull_x" * 2
    window.open(replace(scan, name=name))
    width = window.dock.width()
    window.widget.run.say(f"Saved {name}_findings.nii.gz.")
    window.qtbot.wait(100)
    assert window.dock.width() == width
    inner = window.widget.content.parentWidget()
    assert inner.minimumSizeHint().width() <= 380


def test_a_result_goes_with_the_voxels_it_is_of(window, scan, other):
    layer = window.open(scan)
    window.detect()
    before = window.widget.detection.scores
    layer.data = layer.data[:, :, ::-1].copy()
    window.qtbot.wait(50)
    assert window.names == ["scan"]
    assert window.widget.shown is None
    assert window.summary == ""
    assert not window.widget.save_button.isEnabled()
    assert "scan has other voxels now, so its result was removed" in window.widget.run.text
    window.detect()
    after = window.widget.detection
    np.testing.assert_array_equal(after.volume.array, layer.data)
    assert after.volume.path is None
    assert np.abs(after.scores - before).max() > 1
    expected = drain(detect(replace(scan, array=layer.data), window.widget.choice.model))
    np.testing.assert_allclose(after.scores, expected.scores, atol=1e-4)


def test_a_run_stops_when_its_voxels_are_replaced(window, scan, slow):
    layer = window.open(scan)
    window.click(window.widget.run.start)
    window.qtbot.waitUntil(lambda: window.widget.shown is not None, timeout=LONG_MS)
    layer.data = layer.data[:, :, ::-1].copy()
    window.qtbot.wait(50)
    assert not window.widget.job.running
    assert window.names == ["scan"]
    assert window.widget.run.text == "Cancelled: scan has other voxels now; press Detect again."


def test_regions_that_do_not_fit_are_reported(window, scan, tmp_path, monkeypatch):
    window.open(scan)
    window.detect()
    layer = window.widget.shown.layers.findings
    dots = layer.data.copy()
    dots[2:-2:2, ::4, ::4] = 1
    # The layer keeps the array, and what does not fit is erased in it.
    layer.data = dots.copy()
    window.qtbot.wait(400)
    window.settle()
    found = window.widget.shown.found
    assert len(found.findings) == 255
    assert found.left_out == np.count_nonzero(dots) - np.count_nonzero(found.labels) > 0
    text = window.widget.panel.left_out.text()
    assert f"Only the 255 largest regions are kept: {found.left_out:,} voxels" in text
    window.save(tmp_path / "out", monkeypatch)
    report, _ = read_saved(tmp_path / "out")
    assert report["voxels_left_out"] == found.left_out


def test_a_second_scan_takes_the_place_of_the_first(make_napari_viewer, qtbot, ill, tmp_path):
    viewer = make_napari_viewer(show=True)
    results, camera = results_of(viewer), viewer.scene.camera
    here = volume_from_array(ill.volume.array, ill.volume.spacing_mm, name="here")
    same = volume_from_array(ill.volume.array * 0.5, ill.volume.spacing_mm, name="same place")
    away = volume_from_array(ill.volume.array[:9, ::2, ::2], (7.0, 2.0, 2.0), name="elsewhere")
    scans = []
    for volume in (here, same, away):
        write_volume(tmp_path / f"{volume.name}.nii.gz", np.ascontiguousarray(volume.array), volume)
        scans += viewer.open(tmp_path / f"{volume.name}.nii.gz", plugin="napari-dino-uad")
        if volume is here:
            viewer.dims.set_point(0, 3 * here.spacing_mm[0])
            camera.zoom *= 2
            zoom, point = camera.zoom, viewer.dims.point
        if volume is same:
            # Two sequences of one examination: slice and zoom stay.
            assert camera.zoom == zoom and viewer.dims.point == point
        assert [scan for scan in scans if scan.visible] == [scans[-1]]
        assert results.scan is scans[-1]
    # The third lies elsewhere: it is on screen whole, at its middle.
    low, high = scans[2].extent.world
    assert camera.zoom != zoom
    np.testing.assert_allclose(camera.center[-2:], ((low + high) / 2)[-2:], atol=1.0)
    assert low[0] < viewer.dims.point[0] < high[0]
    results.go_to(scans[0])
    assert [scan for scan in scans if scan.visible] == [scans[0]]
    # The plugin and napari select layers too; only a click of the user chooses a scan.
    viewer.layers.selection.active = scans[1]
    assert results.scan is scans[0]
    view = viewer.window._qt_viewer.layers
    view.clicked.emit(view.model().index(0, 0))
    assert results.scan is scans[1]
    assert [scan for scan in scans if scan.visible] == [scans[1]]


def test_a_dock_opened_from_the_menu_is_the_same_one(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    # As napari's menu names the plugin, and as scripts do.
    for name in ("Detect", "Findings"):
        first = open_dock(viewer, name)
        assert open_dock(viewer, name) is first
    _, from_script = viewer.window.add_plugin_dock_widget("napari-dino-uad", "View")
    assert open_dock(viewer, "View") is from_script
    titles = sorted(viewer.window.dock_widgets)
    assert titles == ["Detect (DINO UAD)", "Findings (DINO UAD)", "View (napari-dino-uad)"]
