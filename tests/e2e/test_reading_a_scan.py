"""A reader's work from a dropped DICOM folder to exported findings, in a real window.

It prints the longest silence of the window in each part: `pytest -s tests/e2e`.
"""

from __future__ import annotations

import json
import threading

import nibabel
import numpy as np
import pydicom
import pytest
from napari.settings import get_settings
from qtpy.QtCore import QEvent, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from dicom_files import write_slices
from napari_dino_uad import save_model
from napari_dino_uad.widgets import default_reader
from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.controls import DockWidget
from napari_dino_uad.widgets.findings.export_dialog import ExportDialog
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.series_picker import SeriesPicker
from napari_dino_uad.widgets.session import session
from reader_at_work import Reader, Watchdog

pytestmark = pytest.mark.slow

CTRL_SHIFT = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def study(tmp_path, ill):
    """A DICOM folder with the head, as a FLAIR series, and a localizer."""
    volume = ill.volume
    step, row, column = volume.spacing_mm
    pixels = np.round(1000 * volume.array / volume.array.max()).astype(np.uint16)
    places = [step * index for index in range(len(pixels))]
    common = {"PixelSpacing": [row, column], "SliceThickness": step, "Modality": "MR"}
    write_slices(
        tmp_path / "study" / "flair",
        pixels,
        places,
        SeriesInstanceUID="1.2.826.0.1.3680043.8.498.1",
        SeriesDescription="AX FLAIR",
        **common,
    )
    write_slices(
        tmp_path / "study" / "scout",
        pixels[:3],
        places[:3],
        SeriesInstanceUID="1.2.826.0.1.3680043.8.498.2",
        SeriesDescription="LOCALIZER",
        **common,
    )
    return tmp_path / "study"


@pytest.fixture
def own_readers():
    settings = get_settings().plugins
    before = settings.extension2reader
    default_reader.make_default(override=True)
    yield
    settings.extension2reader = before


@pytest.fixture
def reader(make_napari_viewer, own_readers):
    session().models.clear()
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1400, 880)
    made = Reader(viewer)
    yield made
    # A viewer that is still referred to counts as a leak.
    made.viewer = made.window = None


def detected(results):
    shown = results.shown
    return shown is not None and shown.anomaly is not None and shown.current


def counts(viewer):
    """What must not grow: threads of jobs, callbacks, keys, widgets, layers."""
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()
    return {
        "threads": sum(one.name == "pipeline" for one in threading.enumerate()),
        "mouse": len(viewer.mouse_move_callbacks) + len(viewer.mouse_drag_callbacks),
        "keys": len(viewer.keymap),
        "widgets": sum(isinstance(one, DockWidget) for one in QApplication.allWidgets()),
        "layers": len(viewer.layers),
    }


def test_a_reader_judges_a_dropped_study(reader, study, model, tmp_path):
    viewer, watch = reader.viewer, Watchdog()
    results = results_of(viewer)
    file = save_model(model, tmp_path / "heads.safetensors")
    file = tmp_path / "heads.safetensors"

    # Drop the folder, and pick the series from the keyboard.
    with watch.during("open"):
        picker = reader.answers(
            SeriesPicker, lambda dialog: QTest.keyClick(dialog, Qt.Key.Key_Return)
        )
        reader.drop(study)
        reader.wait(lambda: results.scan is not None, "the scan")
    assert picker.given
    assert results.scan.data.shape == model_shape(results)
    assert "AX FLAIR" in results.scan.name

    # Load a model and detect.
    with watch.during("dock"):
        dock = open_dock(viewer, "Detect")
        reader.wait(dock.isVisible, "the dock")
        reader.look(0.3)
    with watch.during("load"):
        answer = reader.names_file(file)
        reader.click(reader.button(dock, "Load"))
        reader.wait(lambda: answer.given and dock.choice.model is not None, "the model")
    with watch.during("detect"):
        reader.wait(lambda: not dock.loading.running, "the backbone")
        reader.click(dock.run.start)
        reader.wait(lambda: detected(results), "the map")
        reader.look(0.3)
    assert results.shown.findings
    assert dock.run.text and "error" not in dock.run.text.lower()

    # Move the threshold by keys, as far as it takes for another set of findings.
    before = [finding.voxels for finding in results.shown.findings]
    with watch.during("threshold"):
        for _ in range(2):
            reader.press(Qt.Key.Key_PageDown, widget=dock.threshold.slider)
        reader.wait(lambda: detected(results), "the findings")
        reader.look(0.3)
    assert [finding.voxels for finding in results.shown.findings] != before
    assert results.shown.settings.rate == dock.threshold.rate

    # Jump to the top finding.
    with watch.during("findings"):
        findings = open_dock(viewer, "Findings")
        reader.wait(findings.table.isVisible, "the table")
        reader.look(0.3)
    assert [row.label for row in findings.table.rows] == [
        finding.label for finding in results.shown.findings
    ]
    with watch.during("jump"):
        place = findings.table.visualRect(findings.table.model().index(0, 0)).center()
        reader.click(findings.table.viewport(), place)
        reader.look(0.2)
    top = findings.table.row.finding
    index = round(float(results.scan.world_to_data(viewer.dims.point)[0]))
    assert top.first_slice <= index <= top.last_slice
    drawn = np.asarray(results.shown.layers.findings.data)
    assert (drawn[index] == top.label).any()

    # Reject it, and take that back, and reject again with a note.
    with watch.during("review"):
        reader.click(findings.bar.reject)
        assert findings.table.row.decision == "rejected"
        reader.click(findings.bar.undo)
        assert findings.table.row.decision == "open"
        reader.click(findings.bar.redo)
        reader.click(findings.bar.note)
        QTest.keyClicks(findings.bar.note, "choroid plexus")
        QTest.keyClick(findings.bar.note, Qt.Key.Key_Return)
        reader.look()
    assert (findings.table.row.decision, findings.table.row.note) == ("rejected", "choroid plexus")

    # Export everything.
    out = tmp_path / "out"
    with watch.during("export"):

        def all_files(dialog):
            for name, box in dialog.boxes.items():
                assert box.isEnabled(), (name, box.toolTip())
                box.setChecked(True)
            dialog.folder.setText(str(out))
            QTest.keyClick(dialog, Qt.Key.Key_Return)

        answer = reader.answers(ExportDialog, all_files)
        reader.click(findings.files.export_button)
        reader.wait(lambda: answer.given and findings.files.job.running, "the export")
        reader.wait(lambda: not findings.files.job.running, "its end")
    assert_exports(out, results.shown, study)

    # Save the review, close the scan, and open the review again.
    review = tmp_path / "case.review.json"
    with watch.during("save review"):
        answer = reader.names_file(review)
        reader.click(findings.files.save_button)
        reader.wait(lambda: answer.given and not findings.files.job.running, "the review")
    was = [(row.label, row.finding.voxels, row.decision, row.note) for row in findings.table.rows]
    viewer.layers.remove(results.scan)
    reader.wait(lambda: results.scan is None, "the scan to go")
    reader.look(0.2)
    assert not len(viewer.layers), [layer.name for layer in viewer.layers]
    with watch.during("open review"):
        answer = reader.names_file(review)
        reader.click(findings.files.open_button)
        reader.wait(lambda: answer.given and detected(results), "the reopened case")
        reader.look(0.3)
    again = [(row.label, row.finding.voxels, row.decision, row.note) for row in findings.table.rows]
    assert again == was

    # Docks that are closed and opened again leave nothing behind.
    viewer.window.remove_dock_widget("all")
    reader.wait(lambda: counts(viewer)["widgets"] == 0, "the docks to go")
    reader.wait(lambda: counts(viewer)["threads"] == 0, "their jobs to end")
    kept = counts(viewer)
    for name in ("Findings", "Inspect", "View", "Three planes", "Fit", "Detect"):
        open_dock(viewer, name)
        reader.look(0.2)
        viewer.window.remove_dock_widget("all")
        reader.look(0.2)
    reader.wait(lambda: counts(viewer)["widgets"] == 0, "the docks to go")
    reader.wait(lambda: counts(viewer)["threads"] == 0, "their jobs to end")
    assert counts(viewer) == kept

    # The key detects from anywhere, and the window may be closed meanwhile.
    reader.press(Qt.Key.Key_D, CTRL_SHIFT)
    reader.wait(lambda: any(one.running for one in jobs(viewer)), "the second run")
    viewer.close()
    assert not threads_left()
    watch.stop()
    print(f"\nLongest silence of the window, and our share of it:\n{watch.report()}")


def test_the_second_scan_needs_three_clicks(reader, study, model, tmp_path):
    viewer = reader.viewer
    results = results_of(viewer)
    save_model(model, tmp_path / "heads.safetensors")
    dock = open_dock(viewer, "Detect")
    dock.load_model(tmp_path / "heads.safetensors")
    reader.wait(lambda: dock.choice.model is not None, "the model")
    viewer.window.remove_dock_widget("all")
    session().models.clear()
    reader.look(0.2)

    # Second use: the model is remembered.
    reader.clicks = 0

    def pick(dialog):
        reader.press(Qt.Key.Key_Return, widget=dialog)

    picker = reader.answers(SeriesPicker, pick)
    reader.drop(study)
    reader.wait(lambda: results.scan is not None, "the scan")
    assert picker.given
    reader.press(Qt.Key.Key_D, CTRL_SHIFT)
    reader.wait(lambda: detected(results), "the map")
    assert reader.clicks <= 3
    heat = results.shown.layers.heat
    assert heat is not None and heat.visible
    number = round(float(results.scan.world_to_data(viewer.dims.point)[0]))
    assert (results.shown.found.labels[number] > 0).any(), "the slice on screen has a finding"


def model_shape(results):
    return tuple(results.scan.metadata["napari_dino_uad"]["volume"].shape)


def jobs(viewer):
    from napari_dino_uad.widgets.workers import Job

    return viewer.window._qt_window.findChildren(Job)


def threads_left():
    """List the threads of pipelines that go on for more than ten seconds."""
    names = ("pipeline", "prefetch")
    for _ in range(100):
        QTest.qWait(100)
        left = [one.name for one in threading.enumerate() if one.name in names]
        if not left:
            return []
    return left


def assert_exports(out, shown, study):
    """The files say what the window says."""
    record = json.loads(next(out.rglob("*.json")).read_text(encoding="utf-8"))
    voxels = [one["voxels"] for one in record["findings"]]
    assert voxels == [finding.voxels for finding in shown.findings]
    labels = [
        path for path in out.rglob("*.nii.gz") if "finding" in path.name or "label" in path.name
    ]
    stored = np.asarray(nibabel.load(labels[0]).dataobj)
    assert np.count_nonzero(stored) == sum(voxels)
    assert len(list(out.rglob("*.html"))) == len(list(out.rglob("*.pdf"))) == 1
    dicom = [pydicom.dcmread(path) for path in out.rglob("*.dcm")]
    assert sorted(one.Modality for one in dicom) == ["OT", "SEG"] or len(dicom) == 2
    [seg] = [one for one in dicom if one.Modality == "SEG"]
    assert int(np.count_nonzero(seg.pixel_array)) == sum(voxels)
    sources = {pydicom.dcmread(path).SOPInstanceUID for path in (study / "flair").iterdir()}
    [listed] = seg.ReferencedSeriesSequence
    named = {one.ReferencedSOPInstanceUID for one in listed.ReferencedInstanceSequence}
    assert named <= sources
