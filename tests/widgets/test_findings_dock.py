"""The Findings dock, in a headless viewer."""

from __future__ import annotations

import gc
import json
import weakref

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from app_model.types import KeyBinding
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from dicom_files import write_slices
from napari_dino_uad import detect, drain, read_volume
from napari_dino_uad.core.maps.domain_shift import measure_shift
from napari_dino_uad.core.maps.finding_settings import FindingSettings
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.findings import FindingsWidget
from napari_dino_uad.widgets.findings.export_dialog import ExportDialog
from napari_dino_uad.widgets.findings.exporting import ExportChoice
from napari_dino_uad.widgets.findings.profile import slice_peaks
from napari_dino_uad.widgets.results.detection import Detection
from napari_dino_uad.widgets.results.found import Detected
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.results.texts import describe_findings
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.threshold import histogram_edges, score_histogram

LONG_MS = 60_000
RATE = 0.03
EVERYTHING = ExportChoice(results=True, html=True, pdf=True)


@pytest.fixture(scope="module")
def anomaly(model, ill):
    return drain(detect(ill.volume, model))


def show(qtbot, viewer, anomaly, rate=RATE, minimum_size=0.1):
    """Show a finished detection in a viewer, as Detect does."""
    results = results_of(viewer)
    data, keywords, _ = volume_layer(anomaly.volume)
    scan = Image(data, **keywords)
    viewer.add_layer(scan)
    model = anomaly.model
    detection = Detection(
        viewer, scan, "healthy heads", model, FindingSettings(rate, minimum_size, True)
    )
    low = detection.limits[0]
    array = np.where(anomaly.foreground, anomaly.scores, low).astype(np.float32)
    detection.begin(array, None)
    results.keep(detection)
    edges = histogram_edges(model.calibration)
    histogram = score_histogram(anomaly.scores, edges)
    warning = measure_shift(anomaly.level, model.levels).warning
    detection.finish(Detected(anomaly, array, histogram, warning, 1.0, True))
    search(qtbot, results)
    return detection


def search(qtbot, results):
    with qtbot.waitSignal(results.search.found, timeout=LONG_MS):
        results.search.start()


@pytest.fixture
def viewer():
    session().models.clear()
    return ViewerModel()


@pytest.fixture
def detection(qtbot, viewer, anomaly):
    return show(qtbot, viewer, anomaly)


@pytest.fixture
def widget(qtbot, viewer, detection):
    widget = FindingsWidget(viewer)
    qtbot.addWidget(widget)
    yield widget
    widget.release()


def click(widget, row, column=1):
    """Click a cell of the table."""
    table = widget.table
    place = table.visualRect(table.model().index(row, column)).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_the_table_agrees_with_simpleitk(widget, detection, anomaly):
    labels = sitk.GetImageFromArray(detection.found.labels)
    spacing = anomaly.volume.spacing_mm
    labels.SetSpacing(spacing[::-1])
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(labels)
    values = sitk.LabelIntensityStatisticsImageFilter()
    scores = sitk.GetImageFromArray(anomaly.scores)
    scores.CopyInformation(labels)
    values.Execute(labels, scores)
    assert len(shapes.GetLabels()) == len(widget.table.rows) > 1
    for row in widget.table.rows:
        label = row.label
        assert row.finding.voxels == shapes.GetNumberOfPixels(label)
        assert row.size == pytest.approx(shapes.GetPhysicalSize(label) / 1000)
        assert row.finding.peak_score == pytest.approx(values.GetMaximum(label))
        assert row.finding.mean_score == pytest.approx(values.GetMean(label), rel=1e-5)
        first, extent = shapes.GetBoundingBox(label)[2], shapes.GetBoundingBox(label)[5]
        assert (row.finding.first_slice, row.finding.last_slice) == (first, first + extent - 1)
        x, y, z = np.array(shapes.GetCentroid(label)) / spacing[::-1]
        np.testing.assert_allclose(row.finding.centroid_voxel, (z, y, x), atol=1e-4)


def test_the_columns_tell_where_a_finding_lies(widget, detection):
    model = widget.table.model()
    titles = [model.headerData(n, Qt.Orientation.Horizontal) for n in range(model.columnCount())]
    assert titles == ["#", "ml", "Peak", "p", "Slices", "Side", "Centre, mm", "Mean"]
    row = widget.table.row or widget.table.rows[0]
    place = model.index(widget.table.order.index(row.label), 6).data()
    assert place and f"{place} mm" == row.centre


def test_the_layer_has_the_same_table(widget, detection):
    features = detection.layers.findings.features
    rows = widget.table.rows
    assert list(features["index"]) == [row.label for row in rows]
    assert list(features["ml"]) == [row.size for row in rows]
    assert list(features["side"]) == [row.side for row in rows]
    assert set(features["decision"]) == {"open"}


def test_a_click_jumps_to_the_worst_place(qtbot, widget, viewer, detection, anomaly):
    click(widget, 1)
    label = widget.table.label
    inside = np.where(detection.found.labels == label, anomaly.scores - detection.threshold, 0)
    number = int(inside.sum(axis=(1, 2)).argmax())
    worst = (number, *np.unravel_index(int(inside[number].argmax()), inside[number].shape))
    point = detection.scan.world_to_data(viewer.dims.point)
    np.testing.assert_allclose(point, worst, atol=0.5)
    marks = widget.lines.layer
    assert marks in viewer.layers and marks.data[-1, 0, 0] == worst[0]
    assert viewer.layers.selection.active is not marks
    # The lines go along to another slice, and to another place there.
    viewer.dims.set_point(0, detection.scan.data_to_world((3, 0, 0))[0])
    qtbot.waitUntil(lambda: marks.data[-1, 0, 0] == 3)
    viewer.dims.set_point(1, detection.scan.data_to_world((0, 7, 0))[1])
    qtbot.waitUntil(lambda: marks.data[-1, 0, :2].tolist() == [3, 7])
    # The finding fills a good part of the screen.
    assert viewer.scene.camera.zoom > 1


def test_titles_sort_the_table(widget):
    table = widget.table
    table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    peaks = {row.label: row.finding.peak_score for row in table.rows}
    assert table.order == sorted(peaks, key=lambda label: -peaks[label])
    table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
    assert table.order == sorted(peaks)


def test_without_a_finding_the_highest_score_is_named(qtbot, viewer, anomaly):
    detection = show(qtbot, viewer, anomaly, minimum_size=1000)
    assert not detection.findings
    where = np.where(anomaly.foreground, anomaly.scores, -np.inf)
    number = int(where.max(axis=(1, 2)).argmax())
    text = describe_findings(detection)
    assert text.startswith("No finding at 3.0 % false alarms in healthy tissue.")
    assert f"The highest score, in slice {number}, is exceeded by" in text
    assert detection.found.highest.rate == pytest.approx(
        float(anomaly.model.calibration.false_positive_rate(float(where.max())))
    )


def test_n_and_p_step_through_the_findings(widget, viewer):
    order = widget.table.order
    keys = {str(key): action for key, action in viewer.keymap.items()}
    keys["N"](viewer)
    assert widget.table.label == order[0]
    keys["N"](viewer)
    assert widget.table.label == order[1]
    keys["P"](viewer)
    keys["P"](viewer)
    assert widget.table.label == order[-1]


def test_keys_judge_and_undo_in_the_picture(widget, viewer, detection):
    def press(key, owner=viewer):
        {str(name): action for name, action in owner.keymap.items()}[key](owner)
        return [row.decision for row in widget.table.rows]

    assert set(press("A")) == {"open"}
    assert "Select a finding" in widget.files.message.text()
    press("N")
    assert press("A")[0] == "accepted"
    assert press("R")[0] == "rejected"
    assert press("Ctrl+Z")[0] == "accepted"
    assert press("Ctrl+Shift+Z")[0] == "rejected"
    assert press("R")[0] == "open"
    # On the findings layer too, where napari's undo knows of the brush alone.
    layer = detection.layers.findings
    assert press("A", layer)[0] == "accepted"
    assert press("Ctrl+Z", layer)[0] == "open"


def test_a_closed_dock_leaves_nothing_behind(qtbot, viewer, detection):
    undo = ("Ctrl+Z", "Ctrl+Shift+Z")

    def bound():
        layer = detection.layers.findings
        found = {(owner, str(key)) for owner in (viewer, layer) for key in owner.keymap}
        return {pair for pair in found if pair[1] in {"N", "P", "A", "R", *undo}}

    layers, events = len(viewer.layers), viewer.dims.events.current_step
    before = len(events.callbacks)
    for _ in range(2):
        widget = FindingsWidget(viewer)
        widget.table.step(1)
        assert len(bound()) == 12
        assert len(viewer.layers) == layers + 1
        widget.release()
        widget.release()
        # The brush works without the dock, and its undo with it.
        assert bound() == {(detection.layers.findings, key) for key in undo}
        assert len(viewer.layers) == layers and len(events.callbacks) == before
        gone = weakref.ref(widget)
        widget.deleteLater()
        del widget
        results_of(viewer).updated.emit(detection)

    def collected():
        gc.collect()
        return gone() is None

    qtbot.waitUntil(collected, timeout=5000)


def test_letters_in_a_note_stay_letters(qtbot, widget):
    widget.show()
    widget.table.select(1)
    widget.bar.note.setFocus()
    QTest.keyClicks(widget.bar.note, "pear")
    assert widget.bar.note.text() == "pear"
    assert widget.table.label == 1
    QTest.keyClick(widget.bar.note, Qt.Key.Key_Return)
    assert widget.table.rows[0].note == "pear"


def test_rejecting_dims_outline_and_row(widget, detection):
    layer, bright = detection.layers.findings, detection.layers.findings.get_color(2)
    widget.table.select(2)
    QTest.mouseClick(widget.bar.reject, Qt.MouseButton.LeftButton)
    assert widget.table.row.decision == "rejected"
    assert layer.get_color(2)[3] < 0.6 < bright[3]
    assert layer.features["decision"][1] == "rejected"
    assert "1 rejected" in widget.summary.text()
    index = widget.table.model().index(1, 1)
    assert index.data(Qt.ItemDataRole.FontRole).strikeOut()
    QTest.mouseClick(widget.bar.undo, Qt.MouseButton.LeftButton)
    assert widget.table.row.decision == "open"
    np.testing.assert_allclose(layer.get_color(2), bright)
    assert widget.bar.redo.toolTip() == "Redo (Ctrl+Shift+Z): reject finding 2"
    QTest.mouseClick(widget.bar.redo, Qt.MouseButton.LeftButton)
    assert widget.table.row.decision == "rejected"
    # A second click takes it back.
    QTest.mouseClick(widget.bar.reject, Qt.MouseButton.LeftButton)
    assert widget.table.row.decision == "open"


def test_decisions_follow_the_threshold(qtbot, widget, detection, viewer):
    widget.table.select(1)
    widget.decide("accepted")
    voxels = detection.found.findings[0].voxels
    detection.choose(rate=0.02)
    results_of(viewer).updated.emit(detection)
    # Until the search ends the table is of another threshold, and looks like it.
    assert not widget.table.isEnabled()
    search(qtbot, results_of(viewer))
    assert widget.table.isEnabled()
    accepted = [row for row in widget.table.rows if row.decision == "accepted"]
    assert accepted and accepted[0].finding.voxels < voxels


def test_a_brush_stroke_is_measured(qtbot, widget, detection, viewer):
    widget.table.select(1)
    widget.decide("accepted")
    QTest.mouseClick(widget.bar.edit, Qt.MouseButton.LeftButton)
    layer = detection.layers.findings
    assert layer.mode == "paint" and layer.selected_label == 1
    assert viewer.layers.selection.active is layer
    before = detection.found.findings[0]
    s, p, q = np.argwhere(detection.found.labels == 1)[0]
    with qtbot.waitSignal(results_of(viewer).search.found, timeout=LONG_MS):
        layer.data_setitem((np.array([s]), np.array([p - 1]), np.array([q])), 1)
        layer.events.paint(value=[])
    assert widget.table.rows[0].finding.voxels == before.voxels + 1
    assert widget.table.rows[0].decision == "accepted"
    QTest.mouseClick(widget.bar.edit, Qt.MouseButton.LeftButton)
    assert layer.mode == "pan_zoom"


def stroke(viewer, layer):
    """Paint as the brush does, in the slice on screen."""
    layer.brush_size = 9
    layer.paint((viewer.dims.current_step[0], 4, 4), 1)


def press_on(layer, key):
    """Press a key while a layer is active, as napari's canvas passes it on."""
    layer.keymap[KeyBinding.from_str(key)](layer)


def test_strokes_and_decisions_have_one_undo(qtbot, widget, viewer, detection):
    results, layer = results_of(viewer), detection.layers.findings
    colours, first = widget._colours(), layer.data.copy()
    widget.table.select(2)
    widget.decide("accepted")
    with qtbot.waitSignal(results.search.found, timeout=LONG_MS):
        stroke(viewer, layer)
    assert widget.bar.undo.toolTip() == "Undo (Ctrl+Z): brush stroke"
    marked = max(row.label for row in widget.table.rows)
    assert marked == len(colours) + 1, "the findings before it keep their numbers"
    assert {label: widget._colours()[label] for label in colours} == colours
    widget.table.select(marked)
    widget.note("missed")
    press_on(layer, "Control-Z")
    assert widget.bar.undo.toolTip() == "Undo (Ctrl+Z): brush stroke"
    with qtbot.waitSignal(results.search.found, timeout=LONG_MS):
        press_on(layer, "Control-Z")
    np.testing.assert_array_equal(layer.data, first)
    assert detection.settings.edits is None
    assert [row.decision for row in widget.table.rows][1] == "accepted"
    press_on(layer, "Control-Z")
    assert not widget.bar.undo.isEnabled()
    assert [row.decision for row in widget.table.rows][1] == "open"
    with qtbot.waitSignal(results.search.found, timeout=LONG_MS):
        for _ in range(3):
            press_on(layer, "Control-Shift-Z")
    assert widget.table.rows[-1].note == "missed" and widget.table.rows[-1].label == marked


def test_undo_takes_a_stroke_that_is_not_measured_yet(qtbot, widget, viewer, detection):
    layer = detection.layers.findings
    first = layer.data.copy()
    stroke(viewer, layer)
    assert (layer.data != first).any()
    with qtbot.waitSignal(results_of(viewer).search.found, timeout=LONG_MS):
        widget.undo()
    np.testing.assert_array_equal(layer.data, first)
    assert widget.bar.redo.toolTip() == "Redo (Ctrl+Shift+Z): brush stroke"


def test_a_review_saved_at_once_after_a_stroke_leaves_nothing_stale(
    qtbot, widget, viewer, detection, tmp_path
):
    before = sum(row.finding.voxels for row in widget.table.rows)
    stroke(viewer, detection.layers.findings)
    widget.files.save_review(tmp_path / "scan.review.json")
    qtbot.waitUntil(lambda: not widget.files.job.running, timeout=LONG_MS)
    qtbot.waitUntil(lambda: detection.current, timeout=LONG_MS)
    assert sum(row.finding.voxels for row in widget.table.rows) > before


def test_a_stroke_counts_while_all_docks_are_closed(qtbot, viewer, detection):
    before = sum(finding.voxels for finding in detection.findings)
    stroke(viewer, detection.layers.findings)
    qtbot.waitUntil(
        lambda: sum(finding.voxels for finding in detection.findings) > before, timeout=LONG_MS
    )
    assert detection.current


def test_the_profile_is_the_peak_of_each_slice(qtbot, widget, viewer, detection, anomaly):
    if widget.profile_job.running:
        qtbot.waitUntil(lambda: not widget.profile_job.running, timeout=LONG_MS)
    tissue = np.where(anomaly.foreground, anomaly.scores, -np.inf)
    np.testing.assert_array_equal(widget.profile.scores, tissue.max(axis=(1, 2)))
    widget.profile.clicked.emit(3)
    assert round(detection.scan.world_to_data(viewer.dims.point)[0]) == 3
    assert widget.profile.marked == 3
    with qtbot.waitSignal(widget.profile_job.succeeded, timeout=LONG_MS):
        viewer.dims.order = (1, 0, 2)
    assert len(widget.profile.scores) == anomaly.volume.shape[1]
    assert "coronal" in widget.profile_title.text()
    np.testing.assert_array_equal(
        slice_peaks(anomaly.scores, 2, None), anomaly.scores.max(axis=(0, 1))
    )


def test_exports_say_the_decisions(qtbot, widget, detection, tmp_path):
    widget.table.select(1)
    widget.decide("accepted")
    widget.note("lesion")
    widget.table.select(2)
    widget.decide("rejected")
    with qtbot.waitSignal(widget.files.job.succeeded, timeout=LONG_MS):
        widget.files.export(tmp_path, EVERYTHING)
    name = detection.anomaly.volume.name
    record = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert [one["decision"] for one in record["findings"]][:2] == ["accepted", "rejected"]
    assert record["findings"][0]["note"] == "lesion"
    assert record["accepted"]["size"] == pytest.approx(widget.table.rows[0].size)
    table = (tmp_path / f"{name}_findings.csv").read_text(encoding="utf-8")
    assert table.splitlines()[0].endswith("side,decision,note")
    assert table.splitlines()[1].endswith("accepted,lesion")
    assert (tmp_path / f"{name}_report.pdf").read_bytes()[:4] == b"%PDF"
    page = (tmp_path / f"{name}_report.html").read_text(encoding="utf-8")
    assert "lesion" in page and name not in page
    labels = nibabel.load(tmp_path / f"{name}_findings.nii.gz").get_fdata()
    sizes = [row.finding.voxels for row in widget.table.rows]
    assert np.bincount(labels.astype(int).ravel())[1:].tolist() == sizes


def test_rejected_findings_can_be_left_out(qtbot, widget, detection, tmp_path):
    widget.table.select(1)
    widget.decide("rejected")
    with qtbot.waitSignal(widget.files.job.succeeded, timeout=LONG_MS):
        widget.files.export(tmp_path, ExportChoice(pdf=False, rejected=False))
    name = detection.anomaly.volume.name
    labels = nibabel.load(tmp_path / f"{name}_findings.nii.gz").get_fdata()
    assert 1 not in labels and 2 in labels
    record = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert record["rejected_left_out"] == 1 and record["findings"][0]["label"] == 2


def test_a_dicom_series_gets_dicom_results(qtbot, viewer, model, ill, tmp_path):
    pytest.importorskip("highdicom")
    pixels = np.clip(ill.volume.array, 0, None)
    pixels = (pixels / pixels.max() * 1000).astype(np.uint16)
    step = ill.volume.spacing_mm
    places = [(0, 0, step[0] * index) for index in range(len(pixels))]
    folder = write_slices(
        tmp_path / "series", pixels, places, PixelSpacing=list(step[1:]), SliceThickness=step[0]
    )
    anomaly = drain(detect(read_volume(folder), model))
    show(qtbot, viewer, anomaly)
    widget = FindingsWidget(viewer)
    qtbot.addWidget(widget)
    choice = ExportChoice(results=False, pdf=False, dicom_seg=True, dicom_map=True)
    with qtbot.waitSignal(widget.files.job.succeeded, timeout=LONG_MS):
        widget.files.export(tmp_path, choice)
    segments = pydicom.dcmread(tmp_path / "series_findings.dcm")
    assert len(segments.SegmentSequence) == len(widget.table.rows)
    sizes = sum(row.finding.voxels for row in widget.table.rows)
    assert int(segments.pixel_array.sum()) == sizes
    made = pydicom.dcmread(tmp_path / "series_anomaly.dcm")
    groups = made.PerFrameFunctionalGroupsSequence
    heights = [float(one.PlanePositionSequence[0].ImagePositionPatient[2]) for one in groups]
    np.testing.assert_array_equal(made.pixel_array[np.argsort(heights)], anomaly.scores)
    widget.release()


def test_the_dialog_explains_what_is_impossible(qtbot, widget, tmp_path):
    dialog = ExportDialog(widget, "head", "DICOM needs a series.")
    qtbot.addWidget(dialog)
    assert not dialog.boxes["dicom_seg"].isEnabled()
    assert dialog.boxes["dicom_seg"].toolTip() == "DICOM needs a series."
    button = dialog.buttons.buttons()[0]
    assert not button.isEnabled() and button.toolTip() == "Choose a folder."
    dialog.folder.setText(str(tmp_path))
    dialog.boxes["html"].setChecked(True)
    dialog.boxes["named"].setChecked(True)
    assert button.isEnabled()
    dialog.accept()
    last = ExportChoice.last()
    assert last.html and last.pdf and not last.named


def test_the_dialog_names_what_it_replaces(qtbot, widget, tmp_path):
    (tmp_path / "head_report.pdf").write_text("earlier")
    (tmp_path / "other_report.pdf").write_text("another scan's")
    dialog = ExportDialog(widget, "head", "")
    qtbot.addWidget(dialog)
    button = dialog.buttons.buttons()[0]
    assert button.text() == "Export" and not dialog.replaced.text()
    dialog.folder.setText(str(tmp_path))
    dialog.boxes["pdf"].setChecked(True)
    assert button.text() == "Replace"
    assert dialog.replaced.text() == "Already there, and replaced: head_report.pdf"
    dialog.boxes["pdf"].setChecked(False)
    assert button.text() == "Export"


def test_a_review_opens_in_another_viewer(qtbot, widget, detection, viewer, anomaly, tmp_path):
    widget.table.select(2)
    widget.decide("rejected")
    widget.note("vessel")
    path = tmp_path / "case.review.json"
    with qtbot.waitSignal(widget.files.job.succeeded, timeout=LONG_MS):
        widget.files.save_review(path)
    widget.undo()
    session().models.clear()
    other = ViewerModel()
    data, keywords, _ = volume_layer(anomaly.volume)
    other.add_layer(Image(data, **keywords))
    second = FindingsWidget(other)
    qtbot.addWidget(second)
    assert not second.table.rows and not second.files.export_button.isEnabled()
    with qtbot.waitSignal(results_of(other).search.found, timeout=LONG_MS):
        second.files.open_review(path)
    assert [row.finding for row in second.table.rows] == [row.finding for row in widget.table.rows]
    row = second.table.rows[1]
    assert (row.decision, row.note) == ("rejected", "vessel")
    np.testing.assert_array_equal(results_of(other).shown.anomaly.scores, anomaly.scores)
    assert list(session().models) == ["healthy heads"]
    assert len(other.layers) == 3
    second.release()


def test_a_missing_scan_is_a_sentence(qtbot, widget, tmp_path):
    path = tmp_path / "case.review.json"
    with qtbot.waitSignal(widget.files.job.succeeded, timeout=LONG_MS):
        widget.files.save_review(path)
    other = ViewerModel()
    second = FindingsWidget(other)
    qtbot.addWidget(second)
    with qtbot.waitSignal(second.files.job.failed, timeout=LONG_MS):
        second.files.open_review(path)
    assert "open it in the viewer" in second.files.message.text()
    assert second.files.open_button.isEnabled() and len(other.layers) == 0
    second.release()


def test_without_a_detection_the_dock_says_so(qtbot):
    widget = FindingsWidget(ViewerModel())
    qtbot.addWidget(widget)
    assert "press Detect" in widget.summary.text()
    for button in (
        widget.files.export_button,
        widget.files.save_button,
        widget.bar.accept,
        widget.bar.edit,
    ):
        assert not button.isEnabled() and button.toolTip()
    widget.release()


def test_a_scan_of_another_kind_waits(qtbot, viewer, detection):
    detection.warning, detection.trusted = "Not of this kind.", False
    widget = FindingsWidget(viewer)
    qtbot.addWidget(widget)
    assert not widget.table.rows and "Show anyway" in widget.summary.text()
    assert widget.profile.isHidden()
    for button in (widget.bar.edit, widget.files.export_button, widget.bar.next):
        assert not button.isEnabled() and button.toolTip()
    detection.trust()
    results_of(viewer).updated.emit(detection)
    assert widget.table.rows and widget.files.export_button.isEnabled()
    widget.release()


def test_a_picture_has_findings_too(qtbot, viewer, model, ill, tmp_path):
    number = int(ill.lesion.sum(axis=(1, 2)).argmax())
    grey = np.clip(ill.volume.array[number] / ill.volume.array.max() * 255, 0, 255)
    sitk.WriteImage(sitk.GetImageFromArray(grey.astype(np.uint8)), str(tmp_path / "picture.png"))
    anomaly = drain(detect(read_volume(tmp_path / "picture.png"), model))
    results = results_of(viewer)
    detection = show(qtbot, viewer, anomaly, minimum_size=20.0)
    detection.trust()
    widget = FindingsWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.table.rows and widget.profile.isHidden()
    widget.table.step(1)
    point = detection.scan.world_to_data(viewer.dims.point)
    assert detection.found.labels[0][tuple(np.round(point).astype(int))] == widget.table.label
    widget.decide("rejected")
    assert results.shown.rows[0].unit == "pixels"
    with qtbot.waitSignal(widget.files.job.succeeded, timeout=LONG_MS):
        widget.files.export(tmp_path, EVERYTHING)
    page = (tmp_path / "picture_report.html").read_text(encoding="utf-8")
    assert "pixels" in page and "slice 0" not in page
    widget.release()
