"""Detect, in a headless viewer and once in a real window."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from napari.components import ViewerModel
from napari.layers import Image

from napari_dino_uad import detect, drain, read_volume, save_model
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.detect import DetectWidget
from napari_dino_uad.widgets.session import session

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
    viewer.add_image(np.zeros((8, 9, 3), np.uint8), rgb=True, name="photo")
    if widget.scan.value is not None:
        widget.detect()
        assert "colour" in widget.run.text
    else:
        assert not widget.run.start.isEnabled()


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
    with qtbot.waitSignal(widget.loading.succeeded, timeout=LONG_MS):
        widget.load_model(tmp_path / "mine.safetensors")
    assert "mine" in session().models
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
