"""The Evaluate dock: the scan shown against a labels layer, and a folder of scans and masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from typer.testing import CliRunner

from napari_dino_uad import detect, drain, load_model, save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.maps.finding_settings import FindingSettings
from napari_dino_uad.layer_data import labels_layer, volume_layer
from napari_dino_uad.widgets.evaluate import EvaluateWidget
from napari_dino_uad.widgets.results.detection import Detection
from napari_dino_uad.widgets.results.found import finish_map
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.session import session

LONG_MS = 60_000
PATTERNS = ("*_flair.nii.gz", "*_lesion.nii.gz")


@pytest.fixture
def viewer():
    session().models.clear()
    return ViewerModel()


@pytest.fixture
def widget(qtbot, viewer):
    widget = EvaluateWidget(viewer)
    qtbot.addWidget(widget)
    yield widget
    widget.release()


@pytest.fixture(scope="module")
def anomaly(model, ill):
    return drain(detect(ill.volume, model))


@pytest.fixture
def detection(viewer, anomaly):
    """A finished detection, as Detect leaves it."""
    data, keywords, _ = volume_layer(anomaly.volume)
    scan = Image(data, **keywords)
    viewer.add_layer(scan)
    settings = FindingSettings(0.01, None, True)
    detection = Detection(viewer, scan, "healthy heads", anomaly.model, settings)
    array = np.zeros(anomaly.scores.shape, np.float32)
    detection.begin(array, None)
    results_of(viewer).keep(detection)
    detection.finish(finish_map(array, anomaly, settings, "healthy heads", 0.0))
    return detection


def add_truth(viewer, ill):
    data, keywords, _ = labels_layer(ill.volume, ill.lesion.astype(np.uint8), "truth")
    return viewer.add_labels(data, **keywords)


def fill(widget, scans, out):
    texts = (str(scans), *PATTERNS, str(out))
    edits = (widget.scans, widget.pattern, widget.mask_pattern, widget.out)
    for edit, text in zip(edits, texts, strict=True):
        edit.clear()
        QTest.keyClicks(edit, text)


def from_command(folder, scans, model, *more):
    path = folder / "model.safetensors"
    save_model(model, path)
    patterns = ["--pattern", PATTERNS[0], "--mask-pattern", PATTERNS[1]]
    command = ["evaluate", str(scans), "-m", str(path), "-o", str(folder / "out"), *patterns]
    told = CliRunner().invoke(app, [*command, *more])
    assert told.exit_code == 0, told.output
    return json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))


def test_the_scan_shown_has_the_figures_of_a_row(
    qtbot, widget, viewer, detection, ill, heads, model, tmp_path
):
    assert not widget.compare.isEnabled()
    add_truth(viewer, ill)
    with qtbot.waitSignal(widget.scan_job.succeeded, timeout=LONG_MS):
        QTest.mouseClick(widget.compare, Qt.MouseButton.LeftButton)
    metrics = from_command(tmp_path, heads / "ill", model, "--bootstrap", "0")
    pooled = metrics["conventions"]["tissue"]
    text = widget.scan_text.text()
    for title, name in (("AUROC", "auroc"), ("AP", "average_precision"), ("AUPRO", "aupro")):
        assert f"{title} {pooled[name]:.3f}" in text
    assert f"Dice at 1.0 % FPR {pooled['dice_at_fpr']['0.01']:.3f}" in text
    lesions = metrics["lesions"]
    met = round(lesions["sensitivity"] * lesions["lesions"])
    assert f"{met} of {lesions['lesions']} lesions met" in text


def test_a_moved_threshold_makes_it_out_of_date(qtbot, widget, viewer, detection, ill):
    add_truth(viewer, ill)
    with qtbot.waitSignal(widget.scan_job.succeeded, timeout=LONG_MS):
        QTest.mouseClick(widget.compare, Qt.MouseButton.LeftButton)
    detection.choose(rate=0.05)
    results_of(viewer).updated.emit(detection)
    assert "press Compare again" in widget.scan_text.text()
    viewer.layers.remove(detection.scan)
    assert widget.compared is None
    assert "Press Detect" in widget.scan_text.text()


def test_labels_that_lie_elsewhere_are_refused(qtbot, widget, viewer, detection, ill):
    data, keywords, _ = labels_layer(ill.volume, ill.lesion.astype(np.uint8), "truth")
    # Not from a file: the place in the viewer counts.
    del keywords["metadata"]
    keywords["translate"] = np.asarray(keywords["translate"]) + 40
    viewer.add_labels(data, **keywords)
    QTest.mouseClick(widget.compare, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "truth" in widget.scan_text.text(), timeout=LONG_MS)
    assert "elsewhere" in widget.scan_text.text() or "does not" in widget.scan_text.text()
    assert widget.compared is None


def test_a_folder_gives_the_numbers_of_the_command(qtbot, widget, heads, model, tmp_path):
    assert "Load or fit a model" in widget.run.text
    expected = from_command(tmp_path, heads / "ill", model)
    session().add_model("healthy heads", load_model(tmp_path / "model.safetensors"))
    fill(widget, heads / "ill", tmp_path / "dock")
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        QTest.mouseClick(widget.run.start, Qt.MouseButton.LeftButton)
    found = json.loads((tmp_path / "dock" / "metrics.json").read_text(encoding="utf-8"))
    assert found["conventions"] == expected["conventions"]
    shown = widget.figures.table.text().replace("&nbsp;", " ")
    assert f"{found['conventions']['tissue']['average_precision']:.3f}" in shown
    widget.figures.scope.value = "all"
    shown = widget.figures.table.text().replace("&nbsp;", " ")
    assert f"{found['conventions']['all']['auroc']:.3f}" in shown
    assert "over all" in widget.figures.curve.value
    with qtbot.waitSignal(widget.report_job.succeeded, timeout=LONG_MS):
        QTest.mouseClick(widget.report, Qt.MouseButton.LeftButton)
    assert (tmp_path / "dock" / "evaluation.html").is_file()


def test_a_folder_without_masks_is_refused(qtbot, widget, heads, model, tmp_path):
    session().add_model("healthy heads", model)
    fill(widget, heads / "healthy", tmp_path / "dock")
    with qtbot.waitSignal(widget.job.failed, timeout=LONG_MS):
        QTest.mouseClick(widget.run.start, Qt.MouseButton.LeftButton)
    assert widget.run.complaining and "mask" in widget.run.text
    assert not widget.browse.isEnabled()
