"""Detect, in a headless viewer and once in a real window."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from app_model.types import KeyBinding
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTabWidget

from napari_dino_uad import detect, drain, read_volume, save_model
from napari_dino_uad.core.maps.domain_shift import DomainShift
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.detect import DetectWidget
from napari_dino_uad.widgets.detect.compare import BOTH, ONLY_A, ONLY_B, agreement
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.settings import change_setting, remember_model

LONG_MS = 120_000


@pytest.fixture
def viewer(ill):
    viewer = ViewerModel()
    data, keywords, _ = volume_layer(ill.volume)
    viewer.add_layer(Image(data, **keywords))
    return viewer


@pytest.fixture
def widget(qtbot, viewer, model):
    session().models.clear()
    widget = DetectWidget(viewer)
    qtbot.addWidget(widget)
    session().add_model("healthy heads", model)
    # The backbone is loaded before, so that no test waits for it twice.
    if widget.loading.running:
        qtbot.waitUntil(lambda: not widget.loading.running, timeout=LONG_MS)
    yield widget
    for job in (widget.job, widget.findings_job, widget.loading, widget.saving):
        job.cancel()


def finish(qtbot, widget):
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.detect()


def test_detect_shows_heat_and_findings(qtbot, widget, viewer, model, ill):
    widget.threshold.rate = 0.005
    finish(qtbot, widget)
    scan, heat, labels = viewer.layers
    assert heat.name == f"anomaly: {scan.name}"
    assert labels.name == f"findings: {scan.name}"
    for layer in (heat, labels):
        assert layer.axis_labels == ("S", "P", "L")
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        np.testing.assert_allclose(layer.scale, scan.scale)
        np.testing.assert_allclose(layer.translate, scan.translate)
    assert labels.data.dtype == np.uint8
    assert labels.data.max() == len(widget.findings) > 0
    assert (labels.data > 0)[ill.lesion].mean() > 0.2
    # What is shown is what the core finds.
    expected = drain(detect(ill.volume, model)).scores
    np.testing.assert_allclose(widget.detection.scores, expected, atol=1e-4)


def test_the_threshold_moves_the_findings(qtbot, widget, viewer):
    widget.threshold.rate = 0.05
    finish(qtbot, widget)
    many = int((viewer.layers[2].data > 0).sum())
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.threshold.rate = 0.001
    assert 0 < int((viewer.layers[2].data > 0).sum()) < many


def test_the_view_goes_to_the_worst_slice(qtbot, widget, viewer):
    viewer.dims.set_point(0, float(viewer.layers[0].translate[0]))
    finish(qtbot, widget)
    first = widget.findings[0]
    scores, labels = widget.detection.scores, widget.shown.found.labels
    excess = np.where(labels == 1, scores - widget.shown.threshold, 0)
    assert viewer.dims.current_step[0] == int(excess.sum(axis=(1, 2)).argmax())
    text = widget.panel.summary.text()
    assert "side" in text or "midline" in text
    assert f"slices {first.first_slice} to {first.last_slice}" in text
    assert ("largest" in text) == (len(widget.findings) > 1)


def test_the_view_stays_if_the_user_wants(qtbot, widget, viewer):
    change_setting("go_to_worst", False)
    viewer.dims.set_point(0, float(viewer.layers[0].translate[0]))
    finish(qtbot, widget)
    assert viewer.dims.current_step[0] == 0


def test_detect_waits_for_the_last_model(qtbot, viewer, model, tmp_path):
    save_model(model, tmp_path / "mine.safetensors")
    remember_model(tmp_path / "mine.safetensors")
    session().models.clear()
    widget = DetectWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.loading.running
    assert not widget.run._bar.isHidden()
    assert widget.run.start.isEnabled()
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.run.start.click()
        assert widget.busy
    assert widget.shown.model_name == "mine"
    widget.release()


def test_a_scan_is_detected_on_opening(qtbot, widget, viewer, healthy):
    change_setting("detect_on_opening", True)
    data, keywords, _ = volume_layer(healthy[0].volume)
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        viewer.add_layer(Image(data, **keywords))
    assert widget.shown.scan is viewer.layers[-3]


def test_a_scan_of_another_kind_waits(qtbot, widget, viewer, ill, tmp_path):
    strange = np.where(ill.volume.array > 60, ill.volume.array.max() - ill.volume.array, 0)
    viewer.layers.clear()
    volume = volume_from_array(strange, ill.volume.spacing_mm, (0.0, 0.0, 0.0), "strange")
    data, keywords, _ = volume_layer(volume)
    viewer.add_layer(Image(data, **keywords))
    panel, seen = widget.panel, []
    widget.job.progressed.connect(
        lambda _: seen.append(any(layer.visible for layer in viewer.layers[1:]))
    )
    finish(qtbot, widget)
    assert seen and not any(seen), "no heat is seen before the warning"
    _, heat, labels = viewer.layers
    assert "mm apart" in panel.warning.text()
    assert not panel.show_anyway.isHidden()
    assert not heat.visible and not labels.visible
    assert panel.summary.text() == ""
    assert not widget.save_button.isEnabled()
    assert "Show anyway" in widget.save_button.toolTip()
    widget.read_cursor((volume.spacing_mm[0] * 60, 100, 100))
    assert panel.cursor_text.text() == ""
    assert "this scan" not in widget.threshold.legend
    panel.show_anyway.click()
    assert "this scan" in widget.threshold.legend
    assert heat.visible and labels.visible
    assert panel.show_anyway.isHidden()
    assert not panel.warning.isHidden()
    assert "inding" in panel.summary.text()
    assert widget.save_button.isEnabled()
    # Once wanted, the next map of the same model comes at once.
    finish(qtbot, widget)
    assert viewer.layers[1].visible


def test_heat_is_hidden_while_the_key_is_held(qtbot, widget, viewer):
    finish(qtbot, widget)
    _, heat, labels = viewer.layers
    qtbot.keyPress(widget, "H")
    assert not heat.visible and not labels.visible
    qtbot.keyRelease(widget, "H")
    assert heat.visible and labels.visible
    held = viewer.keymap[KeyBinding.from_str("H")](viewer)
    next(held)
    assert not heat.visible
    assert next(held, None) is None
    assert heat.visible


def test_opacity_is_that_of_the_heat(qtbot, widget, viewer):
    finish(qtbot, widget)
    widget.panel.opacity.setValue(40)
    assert viewer.layers[1].opacity == pytest.approx(0.4)
    finish(qtbot, widget)
    assert viewer.layers[1].opacity == pytest.approx(0.4)


def test_colours_follow_the_settings(qtbot, widget, viewer):
    finish(qtbot, widget)
    before = viewer.layers[1].colormap.colors.copy()
    change_setting("colours", "viridis")
    assert not np.allclose(viewer.layers[1].colormap.colors, before)


def test_the_scalp_can_be_left_out(qtbot, widget, viewer):
    widget.threshold.rate = 0.05
    finish(qtbot, widget)
    anomaly, heat = widget.detection, viewer.layers[1]
    low = widget.shown.limits[0]
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.panel.without_scalp.setChecked(True)
    assert anomaly.scalp is not None and anomaly.scalp.any()
    assert (heat.data[anomaly.scalp] == np.float32(low)).all()
    assert not (viewer.layers[2].data[anomaly.scalp] > 0).any()
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.panel.without_scalp.setChecked(False)
    assert (heat.data[anomaly.scalp] != np.float32(low)).any()


def test_a_scan_without_scalp_says_so(qtbot, widget, monkeypatch):
    monkeypatch.setattr("napari_dino_uad.core.detect.scalp", lambda scan: None)
    finish(qtbot, widget)
    assert widget.panel.scalp.isHidden()
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.panel.without_scalp.setChecked(True)
    assert widget.panel.scalp.text() == (
        "The skull could not be made out in this scan, so no scalp is left out."
    )
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.panel.without_scalp.setChecked(False)
    assert widget.panel.scalp.isHidden()


def test_the_histograms_are_named(qtbot, widget):
    assert "this scan" not in widget.threshold.legend
    finish(qtbot, widget)
    assert "healthy scans" in widget.threshold.legend and "this scan" in widget.threshold.legend


def test_model_words_come_before_details(qtbot, widget):
    text = widget.choice._model_text.text()
    assert re.match(
        r"healthy heads: healthy tissue of \d scans, axial slices, for .*, fitted 20\d\d-", text
    )
    assert "DPMM" not in text
    assert "DPMM" in widget.choice._details_text.text()
    assert "torch" in widget.choice._details_text.text()


def test_two_maps_are_shown_side_by_side(qtbot, widget, viewer, model):
    calibration = replace(model.calibration, scores=model.calibration.scores * 0.5)
    session().add_model("lower", replace(model, calibration=calibration))
    widget.model.value = "healthy heads"
    other = viewer.add_points(np.zeros((1, 3)), name="mine")
    finish(qtbot, widget)
    compare, before = widget.compare, list(viewer.layers)
    compare.side_by_side.setChecked(True)
    with qtbot.waitSignal(compare.shown, timeout=LONG_MS):
        compare.run.start.click()
    names = [layer.name for layer in viewer.layers]
    scan = widget.shown.scan.name
    assert names == [
        "mine",
        f"{scan} by lower",
        f"anomaly: {scan} by lower",
        f"findings: {scan} by lower",
        scan,
        f"anomaly: {scan}",
        f"findings: {scan}",
    ]
    assert not other.visible
    assert viewer.canvas.grid.enabled
    if hasattr(viewer, "canvas"):
        places = [viewer.canvas.grid.position(one, viewer.layers) for one in range(1, 7)]
        assert places == 3 * [(0, 1)] + 3 * [(0, 0)]
    assert "left healthy heads, right lower" in compare.legend.text()
    # One slider: both heats begin at the same rate, and the findings follow.
    heat, findings = viewer.layers[2], viewer.layers[3]
    opaque = float((heat.colormap.colors[:, 3] > 0).mean())
    with qtbot.waitSignal(compare.shown, timeout=LONG_MS):
        widget.threshold.rate = 0.001
    assert float((heat.colormap.colors[:, 3] > 0).mean()) < opaque
    above = heat.data > calibration.threshold(0.001)
    assert (findings.data > 0).sum() <= above.sum()
    assert (findings.data > 0).any()
    # Unchecked, the list and the grid are as before, with the agreement on top.
    compare.side_by_side.setChecked(False)
    assert not viewer.canvas.grid.enabled
    assert other.visible
    assert set(viewer.layers) == {*before, compare.layer}
    # Deleting one of them leaves the grid too.
    compare.side_by_side.setChecked(True)
    viewer.layers.remove(viewer.layers[f"anomaly: {scan} by lower"])
    compare.refresh()
    assert not viewer.canvas.grid.enabled
    assert set(viewer.layers) == set(before)


def test_two_models_are_compared(qtbot, widget, viewer, model):
    calibration = replace(model.calibration, scores=model.calibration.scores * 0.5)
    session().add_model("lower", replace(model, calibration=calibration))
    widget.model.value = "healthy heads"
    finish(qtbot, widget)
    compare = widget.compare
    compare.refresh()
    assert compare.model_box.choices == ("lower",)
    with qtbot.waitSignal(compare.shown, timeout=LONG_MS):
        compare.run.start.click()
    labels = viewer.layers[-1]
    assert labels is compare.layer
    found = widget.shown.found.labels > 0
    # The second model finds the same and more.
    assert (labels.data[found] == BOTH).mean() > 0.99
    assert (labels.data == ONLY_B).any()
    assert "only lower" in compare.legend.text()
    with qtbot.waitSignal(compare.shown, timeout=LONG_MS):
        widget.threshold.rate = 0.001
    assert (labels.data > 0).sum() < found.sum() + 1e9
    assert "0.10 %" in compare.legend.text()
    finish(qtbot, widget)
    assert compare.layer is None
    assert [layer.name for layer in viewer.layers if "comparison" in layer.name] == []


def test_agreement_of_two_label_maps():
    one, other = np.array([0, 1, 2, 0]), np.array([0, 3, 0, 1])
    assert agreement(one, other).tolist() == [0, BOTH, ONLY_A, ONLY_B]


def test_a_second_detection_uses_the_layers_again(qtbot, widget, viewer):
    finish(qtbot, widget)
    before = [id(layer) for layer in viewer.layers]
    finish(qtbot, widget)
    assert [id(layer) for layer in viewer.layers] == before


def test_cancel_keeps_what_was_done(qtbot, widget):
    with qtbot.waitSignal(widget.job.progressed, timeout=LONG_MS):
        widget.detect()
    widget.cancel()
    assert not widget.job.running
    assert widget.detection is None


def test_colour_images_get_a_sentence(qtbot, widget, viewer):
    viewer.layers.clear()
    picture = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    viewer.add_image(picture, rgb=True, name="photo")
    widget.scan.value = viewer.layers["photo"]
    widget.detect()
    qtbot.waitUntil(lambda: "photo is a picture in colour" in widget.run.text, timeout=LONG_MS)


def test_without_a_scan_or_a_model_detect_says_why(qtbot):
    session().models.clear()
    widget = DetectWidget(ViewerModel())
    qtbot.addWidget(widget)
    assert not widget.run.start.isEnabled()
    assert widget.run.start.toolTip()
    widget.loading.cancel()


def test_a_picture_is_told_in_pixels(qtbot, widget, viewer, ill, tmp_path):
    assert widget.minimum_size.suffix() == " ml"
    lesion = int(ill.lesion.sum(axis=(1, 2)).argmax())
    grey = np.clip(ill.volume.array[lesion] / ill.volume.array.max() * 255, 0, 255)
    sitk.WriteImage(sitk.GetImageFromArray(grey.astype(np.uint8)), str(tmp_path / "picture.png"))
    viewer.layers.clear()
    data, keywords, _ = volume_layer(read_volume(tmp_path / "picture.png"))
    viewer.add_layer(Image(data, **keywords))
    assert widget.minimum_size.suffix() == " pixels"
    widget.threshold.rate = 0.01
    finish(qtbot, widget)
    assert viewer.layers[2].data.ndim == 2
    assert widget.findings
    for layer in viewer.layers[1:]:
        assert [str(unit) for unit in layer.units] == ["pixel"] * 2
    if widget.shown.held:
        widget.panel.show_anyway.click()
    text = widget.panel.summary.text()
    assert "pixels" in text and "row" in text
    assert "mm" not in text and "ml" not in text and "lice" not in text
    row, column = np.argwhere(widget.detection.foreground[0])[0]
    widget.read_cursor((row, column))
    assert widget.panel.cursor_text.text().startswith(f"row {row} column {column}   score")
    with qtbot.waitSignal(widget.saving.succeeded, timeout=LONG_MS):
        widget.save(tmp_path)
    report = json.loads((tmp_path / "picture.json").read_text())
    assert report["spacing_mm"] is None
    assert report["findings"][0]["volume_ml"] is None
    assert report["findings"][0]["voxels"] == widget.findings[0].voxels


def test_saving_writes_on_the_grid_of_the_scan(qtbot, widget, tmp_path, ill):
    finish(qtbot, widget)
    with qtbot.waitSignal(widget.saving.succeeded, timeout=LONG_MS):
        widget.save(tmp_path)
    name = ill.volume.name
    image = sitk.ReadImage(str(tmp_path / f"{name}_anomaly.nii.gz"))
    assert image.GetSize() == ill.volume.shape[::-1]
    assert RESEARCH_USE in (tmp_path / f"{name}.json").read_text()


def test_bad_model_file_gets_a_sentence(qtbot, widget, model, tmp_path):
    save_model(model, tmp_path / "mine.safetensors")
    # The same file again is the same model.
    for _ in range(2):
        with qtbot.waitSignal(widget.loading.succeeded, timeout=LONG_MS):
            widget.load_model(tmp_path / "mine.safetensors")
    assert [name for name in session().models if name.startswith("mine")] == ["mine"]
    (tmp_path / "bad.safetensors").write_text("no model")
    with qtbot.waitSignal(widget.loading.failed, timeout=LONG_MS) as failure:
        widget.load_model(tmp_path / "bad.safetensors")
    assert "bad.safetensors" in failure.args[0]


def test_it_is_narrow(widget):
    assert widget.minimumSizeHint().width() <= 380


def test_in_a_real_window(make_napari_viewer, qtbot, ill, model):
    viewer = make_napari_viewer()
    data, keywords, _ = volume_layer(ill.volume)
    viewer.add_image(data, **keywords)
    session().models.clear()
    session().add_model("healthy heads", model)
    _, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Detect")
    if widget.loading.running:
        qtbot.waitUntil(lambda: not widget.loading.running, timeout=LONG_MS)
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.detect()
    viewer.dims.set_point(0, float(viewer.layers[2].translate[0]) + 70)
    assert viewer.screenshot(canvas_only=True, flash=False).std() > 0


def test_the_keys_open_the_dock_and_detect(make_napari_viewer, qtbot, ill, model):
    viewer = make_napari_viewer(show=True)
    data, keywords, _ = volume_layer(ill.volume)
    viewer.add_layer(Image(data, **keywords))
    session().models.clear()
    session().add_model("healthy heads", model)
    window = viewer.window._qt_window
    results = results_of(viewer)
    qtbot.waitExposed(window)
    # With the focus in the list of layers, and no dock open.
    window.activateWindow()
    viewer.window._qt_viewer.layers.setFocus()
    qtbot.wait(50)
    keys = (Qt.Key.Key_D, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClick(viewer.window._qt_viewer.layers, *keys)
    qtbot.waitUntil(lambda: results.shown is not None and results.shown.current, timeout=LONG_MS)
    widget = window.findChild(DetectWidget)
    widget.minimum_size.setFocus()
    qtbot.wait(50)
    before = results.shown
    qtbot.keyClick(widget.minimum_size, *keys)
    qtbot.waitUntil(lambda: results.shown is not before and results.shown.current, timeout=LONG_MS)


def test_our_docks_are_tabs(make_napari_viewer, qtbot, model):
    viewer = make_napari_viewer()
    session().models.clear()
    docks = [
        viewer.window.add_plugin_dock_widget("napari-dino-uad", name)[0]
        for name in ("Detect", "Fit")
    ]
    window = viewer.window._qt_window
    qtbot.waitUntil(lambda: docks[1] in window.tabifiedDockWidgets(docks[0]), timeout=5000)
    for dock in docks:
        assert dock.inner_widget().minimumSizeHint().width() <= 380
    # Tabs of many docks stand beside them, where their names can be read whole.
    area = window.dockWidgetArea(docks[0])
    assert window.tabPosition(area) == QTabWidget.TabPosition.South
    for name in ("View", "Inspect", "Findings"):
        docks.append(viewer.window.add_plugin_dock_widget("napari-dino-uad", name)[0])
    qtbot.waitUntil(lambda: len(window.tabifiedDockWidgets(docks[0])) == 4, timeout=5000)
    assert window.tabPosition(area) == QTabWidget.TabPosition.East


def test_the_colour_bar_shows_rates(make_napari_viewer, qtbot, ill, model):
    viewer = make_napari_viewer()
    data, keywords, _ = volume_layer(ill.volume)
    viewer.add_layer(Image(data, **keywords))
    session().models.clear()
    session().add_model("healthy heads", model)
    _, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Detect")
    qtbot.waitUntil(lambda: not widget.loading.running, timeout=LONG_MS)
    finish(qtbot, widget)
    heat = viewer.layers[1]
    if not hasattr(heat, "colorbar"):
        pytest.skip("this napari has no colour bars")
    assert heat.colorbar.visible
    drawn = viewer.window._qt_viewer.canvas._layer_overlay_to_visual[heat][heat.colorbar]
    _, _, labels = drawn.node.ticks.ticker._get_tick_frac_labels()
    assert labels == ["10 %", "1 %", "0.1 %", "0.01 %"]


def test_a_scan_at_the_edge_of_the_cohort_is_remarked_on(qtbot, widget, monkeypatch):
    monkeypatch.setattr(
        "napari_dino_uad.core.maps.domain_shift.measure_shift", lambda *_: DomainShift(0.1)
    )
    finish(qtbot, widget)
    assert "at the edge of what the model knows" in widget.panel.notices.text()
    assert not widget.panel.notices.isHidden() and widget.panel.warning.isHidden()


def test_the_remembered_model_gives_way_to_one_fitted_meanwhile(qtbot, widget, model):
    session().models.clear()
    widget.loading._remembered = True
    session().add_model("just fitted", model)
    widget.loading._on_loaded(("remembered", model, ""))
    assert list(session().models) == ["just fitted"]
    assert widget.choice.model_name == "just fitted"
    # What the user asks for is taken.
    widget.loading._remembered = False
    widget.loading._on_loaded(("asked for", model, ""))
    assert widget.choice.model_name == "asked for"
