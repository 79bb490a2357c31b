"""The View widget, and the readout in the status bar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dino_uad.core.scans.hounsfield import CT_WINDOWS
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.orientation import shown_plane
from napari_dino_uad.widgets.results.readout import describe_point
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.view import ViewWidget

LONG_MS = 120_000


def layer_of(values, **fields):
    made = volume_from_array(np.asarray(values, np.float32), (1.0, 1.0, 1.0), (0, 0, 0), "scan")
    data, keywords, _ = volume_layer(replace(made, **fields))
    return Image(data, **keywords)


def hounsfield():
    rng = np.random.default_rng(0)
    values = rng.normal(40, 10, (6, 20, 20))
    values[:, :5], values[:, -3:] = -1000, 900
    return layer_of(values)


def brain():
    rng = np.random.default_rng(0)
    values = rng.normal(300, 60, (6, 20, 20)).clip(1)
    values[:, :10] = 0
    return layer_of(values)


@pytest.fixture
def open_view(qtbot):
    def make(layer=None):
        viewer = ViewerModel()
        if layer is not None:
            viewer.add_layer(layer)
        widget = ViewWidget(viewer)
        qtbot.addWidget(widget)
        widget.show()
        return widget

    return make


def test_windows_of_ct_are_offered_for_ct(open_view):
    scan = hounsfield()
    widget = open_view(scan)
    assert all(button.isVisible() for button in widget.presets)
    # Without a window of its own a CT opens on soft tissue.
    assert [button.text() for button in widget.presets if button.isChecked()] == ["Abdomen"]
    for button, window in zip(widget.presets, CT_WINDOWS.values(), strict=True):
        button.click()
        button.click()
        assert tuple(scan.contrast_limits) == window.limits
        assert [one for one in widget.presets if one.isChecked()] == [button]
    scan.contrast_limits = (-50, 70)
    assert not any(one.isChecked() for one in widget.presets)
    assert not widget.auto.isVisible()


def test_mr_has_auto_alone(open_view):
    scan = brain()
    widget = open_view(scan)
    assert not any(button.isVisible() for button in widget.presets)
    scan.contrast_limits = (0, 5000)
    widget.auto.click()
    low, high = scan.contrast_limits
    assert low == 0 and 400 < high < 600
    assert not widget.from_file.isEnabled()
    assert "no contrast" in widget.from_file.toolTip()


def test_the_window_of_the_file_comes_back(open_view):
    scan = layer_of(np.asarray(brain().data), window=(300.0, 200.0))
    widget = open_view(scan)
    widget.auto.click()
    widget.from_file.click()
    assert tuple(scan.contrast_limits) == (200.0, 400.0)


def test_planes_are_one_click_away(open_view):
    widget = open_view(brain())
    for button in widget.planes:
        button.click()
        button.click()
        assert shown_plane(widget._viewer).name == button.text()
        assert [one.isChecked() for one in widget.planes] == [
            one is button for one in widget.planes
        ]


def test_without_a_scan_it_says_so(open_view):
    widget = open_view()
    assert "Open a scan" in widget.scan_name.text()
    assert not widget.auto.isEnabled() and not widget.planes[0].isEnabled()
    widget._viewer.add_layer(Image(np.random.default_rng(0).random((7, 8)), name="flat"))
    assert widget.scan_name.text() == "flat"
    assert widget.planes[0].toolTip() == "A single image has one plane."


def test_how_a_scan_was_read_is_said(open_view):
    notice = "Gantry tilt of 12.0 degrees: resampled onto a straight grid"
    widget = open_view(layer_of(np.asarray(brain().data), notices=(notice,)))
    assert widget.notices.isVisible() and widget.notices.text() == notice


def test_it_is_narrow_and_lets_go_of_the_viewer(open_view):
    widget = open_view(hounsfield())
    assert widget.minimumSizeHint().width() <= 380
    viewer = widget._viewer
    before = len(viewer.dims.events.order.callbacks)
    widget.release()
    widget.release()
    assert len(viewer.dims.events.order.callbacks) == before - 1


def test_a_drag_with_shift_changes_window_and_level(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    scan = hounsfield()
    viewer.add_layer(scan)
    scan.contrast_limits = (0, 100)
    _, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "View")
    canvas = viewer.window._qt_viewer.canvas.native
    # The dock has made the canvas narrower.
    QTest.qWait(300)
    qtbot.waitUntil(lambda: tuple(viewer.canvas.size) == (canvas.height(), canvas.width()))
    centre, zoom = viewer.scene.camera.center, viewer.scene.camera.zoom
    begin = canvas.rect().center()

    def drag(right, down, modifiers=Qt.KeyboardModifier.ShiftModifier):
        left = Qt.MouseButton.LeftButton
        end = begin + QPoint(round(right * canvas.width()), round(down * canvas.height()))
        QTest.mousePress(canvas, left, modifiers, begin)
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(end),
            QPointF(canvas.mapToGlobal(end)),
            Qt.MouseButton.NoButton,
            left,
            modifiers,
        )
        QApplication.sendEvent(canvas, event)
        QTest.mouseRelease(canvas, left, modifiers, end)
        QApplication.processEvents()
        return tuple(scan.contrast_limits)

    assert drag(0.4, 0) == pytest.approx((-50, 150), abs=2)
    assert "Window 200, level 50" in widget.window.text()
    # Upwards the scan gets brighter: both limits fall by as much.
    assert drag(0, -0.2) == pytest.approx((-150, 50), abs=2)
    assert viewer.scene.camera.center == centre and viewer.scene.camera.zoom == zoom
    # Without Shift the picture is moved, as always.
    before = tuple(scan.contrast_limits)
    assert drag(0.2, 0.2, Qt.KeyboardModifier.NoModifier) == before
    assert viewer.scene.camera.center != centre


# Readout ----------------------------------------------------------------------------------


def test_a_point_is_told_with_place_and_value():
    made = volume_from_array(
        np.arange(60, dtype=np.float32).reshape(3, 4, 5), (1.0, 1.0, 1.0), (0, 0, -2), "scan"
    )
    data, keywords, _ = volume_layer(made)
    scan = Image(data, **keywords)
    # To the patient's left, back and head.
    assert describe_point(scan, None, (2.0, 3.0, 2.0)) == "L 2 P 3 S 2 mm   value 59"
    assert describe_point(scan, None, (9.0, 3.0, 2.0)) == ""
    flat = Image(np.arange(6.0).reshape(2, 3))
    assert describe_point(flat, None, (7.0, 1.0, 2.0)) == "row 1 column 2   value 5"


def test_the_status_bar_keeps_the_readout(make_napari_viewer, qtbot, ill, model):
    viewer = make_napari_viewer(show=True)
    data, keywords, _ = volume_layer(ill.volume)
    scan = viewer.add_image(data, **keywords)
    session().models.clear()
    session().add_model("healthy heads", model)
    _, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Detect")
    readout = results_of(viewer).readout
    qtbot.waitUntil(lambda: readout.label is not None)
    canvas = viewer.window._qt_viewer.canvas.native
    middle = canvas.rect().center()

    def move(step):
        QTest.mouseMove(canvas, QPoint(middle.x() + step, middle.y()))
        for _ in range(4):
            QApplication.processEvents()
            QTest.qWait(20)

    for step in range(4):
        move(step)
    # napari has written its own text meanwhile.
    assert readout.label.isVisible()
    assert " mm   value " in readout.label.text() and "score" not in readout.label.text()
    qtbot.waitUntil(lambda: not widget.loading.running, timeout=LONG_MS)
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.detect()
    # The worst slice differs between processors, and its middle may be no tissue.
    viewer.dims.set_current_step(0, scan.data.shape[0] // 2)
    move(7)
    text = readout.label.text()
    assert "of healthy tissue is above)" in text
    index = [round(float(one)) for one in scan.world_to_data(viewer.cursor.position)]
    assert f"score {float(widget.detection.scores[tuple(index)]):.3f}" in text
    session().models.clear()
