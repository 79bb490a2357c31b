"""Fit and Detect beside masks, by mouse and keyboard in a real window."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_dino_uad import Case
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.layer_masks import find_mask, mask_reader
from napari_dino_uad.widgets.layers import is_scan_layer

LONG_MS = 180_000


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """Return a viewer and its Fit widget, ready."""
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Fit")
    qtbot.waitUntil(lambda: widget.advanced.form is not None, timeout=LONG_MS)
    yield viewer, widget
    for job in (widget.job, widget.looking, widget.loading, widget.saving):
        job.cancel()


def press(qtbot, button):
    qtbot.waitUntil(button.isEnabled, timeout=LONG_MS)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def settle(qtbot, widget):
    qtbot.waitUntil(
        lambda: not widget.looking.running and not widget.scans.typing.isActive(), timeout=LONG_MS
    )


@pytest.fixture
def cohort(tmp_path):
    """Ten scans and ten masks in one folder; one more mask has lost its geometry."""
    rng = np.random.default_rng(0)
    mask = np.zeros((6, 24, 24), np.uint8)
    mask[2:4, 5:12, 6:14] = 1
    for number in range(10):
        for kind, values in (("flair", rng.integers(0, 200, mask.shape)), ("lesion", mask)):
            image = sitk.GetImageFromArray(values.astype(np.uint8))
            image.SetOrigin((-90, 126, -72))
            sitk.WriteImage(image, str(tmp_path / f"p{number}_{kind}.nii.gz"))
    return tmp_path


def add_folder(qtbot, widget, folder, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    press(qtbot, widget.scans.buttons["folder"])
    settle(qtbot, widget)


def test_masks_in_a_folder_are_no_scans_and_can_be_paired(qtbot, window, cohort, monkeypatch):
    _, widget = window
    add_folder(qtbot, widget, cohort, monkeypatch)
    assert "10 of 20 files hold labels" in widget.scans.found.text()
    assert "20 scans" not in widget.scans.found.text()
    assert widget.cases == []
    assert not widget.run.start.isEnabled()
    assert widget.run.text == "No scan can be used yet; the line below the list says why."
    press(qtbot, widget.scans.pair)
    qtbot.waitUntil(lambda: len(widget.cases) == 10, timeout=LONG_MS)
    settle(qtbot, widget)
    assert (widget.pattern.text(), widget.mask_pattern.text()) == (
        "*_flair.nii.gz",
        "*_lesion.nii.gz",
    )
    text = "10 scans. Lesion masks found for 10: slices with lesions are left out."
    assert widget.scans.found.text() == text
    assert not widget.scans.pair.isVisible()
    assert widget.run.start.isEnabled()


def test_a_typed_pattern_takes_the_scans_alone(qtbot, window, cohort, monkeypatch):
    _, widget = window
    add_folder(qtbot, widget, cohort, monkeypatch)
    qtbot.mouseClick(widget.pattern, Qt.MouseButton.LeftButton)
    qtbot.keyClicks(widget.pattern, "*_flair.nii.gz")
    qtbot.waitUntil(lambda: len(widget.cases) == 10, timeout=LONG_MS)
    assert widget.scans.found.text() == "10 scans."


def test_the_geometry_of_masks_can_be_ignored(qtbot, window, cohort, monkeypatch):
    _, widget = window
    add_folder(qtbot, widget, cohort, monkeypatch)
    press(qtbot, widget.scans.pair)
    qtbot.waitUntil(lambda: len(widget.cases) == 10, timeout=LONG_MS)
    assert {case.mask_geometry for case in widget.cases} == {"check"}
    combo = widget.mask_geometry.native
    combo.setFocus()
    qtbot.keyClick(combo, Qt.Key.Key_Down)
    settle(qtbot, widget)
    qtbot.waitUntil(
        lambda: {case.mask_geometry for case in widget.cases} == {"ignore"}, timeout=LONG_MS
    )


def test_labels_colour_and_time_series_are_not_offered(qtbot, window, healthy):
    viewer, widget = window
    _, detect = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Detect")
    data, keywords, _ = volume_layer(healthy[0].volume)
    scan = viewer.add_image(data, **keywords)
    viewer.add_image(np.zeros((4, 5, 6, 3), np.uint8), rgb=True)
    viewer.add_image(np.zeros((2, 4, 5, 6), np.float32))
    viewer.add_labels((data > 100).astype(np.uint8), scale=scan.scale, translate=scan.translate)
    assert [layer for layer in viewer.layers if is_scan_layer(layer)] == [scan]
    qtbot.waitUntil(lambda: len(detect.scan.choices) == 1, timeout=LONG_MS)
    assert list(detect.scan.choices) == [scan]
    press(qtbot, widget.scans.buttons["layers"])
    settle(qtbot, widget)
    assert widget.paths.count() == 1
    for job in (detect.job, detect.findings_job, detect.loading, detect.saving):
        job.cancel()


def test_a_mask_painted_on_a_new_layer_counts(qtbot, window, healthy):
    viewer, widget = window
    data, keywords, _ = volume_layer(healthy[0].volume)
    scan = viewer.add_image(data, **keywords)
    viewer._new_labels()
    viewer.layers[-1].name = f"{scan.name} mask"
    press(qtbot, widget.scans.buttons["layers"])
    settle(qtbot, widget)
    text = "1 scan. Lesion masks found for 1: slices with lesions are left out."
    assert widget.scans.found.text() == text
    assert not widget.cases[0].mask.any()
    viewer.layers[-1].data[10, 20, 30] = 1
    read = mask_reader(find_mask(viewer.layers, scan), scan)
    assert np.argwhere(read("check")[0]).tolist() == [[10, 20, 30]]


def test_a_labels_layer_elsewhere_is_refused(qtbot, window, healthy):
    viewer, widget = window
    data, keywords, _ = volume_layer(healthy[0].volume)
    scan = viewer.add_image(data, **keywords)
    place = np.add(scan.translate, (0, 0, 15))
    viewer.add_labels(np.zeros(data.shape, np.uint8), name=f"{scan.name} mask",
                      scale=scan.scale, translate=place)  # fmt: skip
    press(qtbot, widget.scans.buttons["layers"])
    settle(qtbot, widget)
    assert "does not lie on" in widget.scans.found.text()
    assert "corners up to 15 mm" in widget.scans.found.text()
    assert widget.cases == []


def test_labels_of_other_resolution_are_resampled(qtbot, window, healthy):
    viewer, widget = window
    data, keywords, _ = volume_layer(healthy[0].volume)
    scan = viewer.add_image(data, **keywords)
    mask = np.zeros(data.shape, np.uint8)
    mask[10:20, 30:40, 30:40] = 1
    scale = np.array(scan.scale)
    fine = viewer.add_labels(mask.repeat(2, axis=0), name=f"{scan.name} mask",
                             scale=scale / [2, 1, 1],
                             translate=scan.translate - scale / [4, np.inf, np.inf])  # fmt: skip
    press(qtbot, widget.scans.buttons["layers"])
    settle(qtbot, widget)
    assert "nearest neighbour" in widget.scans.found.text()
    assert np.array_equal(widget.cases[0].mask, mask > 0)
    assert isinstance(fine, Labels)
    assert isinstance(widget.cases[0], Case)


def test_a_mask_layer_that_is_an_image_is_refused(qtbot, window, healthy):
    viewer, widget = window
    data, keywords, _ = volume_layer(healthy[0].volume)
    scan = viewer.add_image(data, **keywords)
    viewer.add_image(data, name=f"{scan.name} mask", scale=scan.scale, translate=scan.translate)
    with pytest.raises(InputError, match="expected a labels layer, got one of type image"):
        find_mask(viewer.layers, scan)
    press(qtbot, widget.scans.buttons["layers"])
    settle(qtbot, widget)
    assert "expected a labels layer" in widget.scans.found.text()
    assert widget.cases == []
