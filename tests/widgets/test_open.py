"""Opening: in a thread beside a real window, the pickers, and the default reader."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk
from napari.plugins.utils import get_preferred_reader
from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QProgressDialog, QPushButton

from dicom_files import CORONAL, noise, write_slices
from napari_dino_uad import reader
from napari_dino_uad.widgets import default_reader, reading
from napari_dino_uad.widgets.reading import Cancelled, read_beside
from napari_dino_uad.widgets.series_picker import SeriesPicker
from napari_dino_uad.widgets.view.default_choice import DefaultChoice
from scan_files import random_image

PLUGIN = "napari-dino-uad"
ENTER, ESCAPE = Qt.Key.Key_Return, Qt.Key.Key_Escape


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    QApplication.processEvents()
    return viewer


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(random_image(), str(path))
    return path


@pytest.fixture
def readers():
    """The readers that the user has chosen; none at first."""
    settings = get_settings().plugins
    before = settings.extension2reader
    settings.extension2reader = {}
    yield settings
    settings.extension2reader = before


def when_shown(kind, act):
    """Act on a dialog once it is on screen."""
    timer = QTimer()

    def look():
        for widget in QApplication.topLevelWidgets():
            if isinstance(widget, kind) and widget.isVisible():
                timer.stop()
                act(widget)
                return

    timer.timeout.connect(look)
    timer.start(20)
    return timer


def drop(viewer, path):
    """Open a path as napari does with what was dropped."""
    viewer.window._qt_viewer._qt_open([str(path)], stack=False, plugin=PLUGIN)


# Beside the window ------------------------------------------------------------------------


def test_a_scan_is_read_in_a_thread(viewer, scan, monkeypatch):
    threads, load = [], reader._load
    monkeypatch.setattr(
        reader, "_load", lambda read: (threads.append(threading.current_thread()), load(read))[1]
    )
    [layer] = viewer.open(scan, plugin=PLUGIN)
    assert layer.name == "scan" and layer in viewer.layers
    assert threads[0] is not threading.main_thread()


def test_without_a_window_it_is_read_at_once(make_napari_viewer, scan, monkeypatch):
    viewer = make_napari_viewer(show=False)
    monkeypatch.setattr(reading, "_Reading", None)
    [layer] = viewer.open(scan, plugin=PLUGIN)
    assert layer.name == "scan"


def test_the_window_lives_during_a_long_reading(viewer):
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start(10)
    assert read_beside(viewer.window._qt_window, "scan", lambda: time.sleep(0.8) or 7) == 7
    assert len(ticks) > 20
    assert not [one for one in QApplication.topLevelWidgets() if _is_open(one)]


def _is_open(widget):
    return isinstance(widget, QProgressDialog) and widget.isVisible()


def test_cancel_ends_the_waiting_at_once(viewer):
    release = threading.Event()
    timer = when_shown(QProgressDialog, lambda dialog: dialog.findChild(QPushButton).click())
    began = time.monotonic()
    with pytest.raises(Cancelled):
        read_beside(viewer.window._qt_window, "scan", lambda: release.wait(20))
    assert time.monotonic() - began < 5
    release.set()
    timer.stop()


def test_cancelled_opening_adds_no_layer(viewer, scan, monkeypatch):
    monkeypatch.setattr(reading, "_wait_in_dialog", lambda *_: False)
    monkeypatch.setattr(reading, "_DIALOG_AFTER_S", 0)
    monkeypatch.setattr(reader, "_offers", lambda _: time.sleep(0.3))
    notification_manager.records.clear()
    drop(viewer, scan)
    assert not viewer.layers
    assert not notification_manager.records


def test_a_damaged_file_is_one_sentence_in_the_window(viewer, tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"nothing of the kind")
    notification_manager.records.clear()
    drop(viewer, tmp_path / "scan.nii.gz")
    assert not viewer.layers
    [record] = notification_manager.records
    assert "scan.nii.gz" in record.message
    assert str(record.severity) == "error" and not hasattr(record, "exception")


# The picker -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Sound, with a gap, copied, uneven, and in two orientations."""
    many = tmp_path / "study"
    write_slices(many, noise(6, 8, 9), range(0, 18, 3), SeriesInstanceUID="1.1")
    write_slices(
        many / "b", noise(4, 8, 9), [0, 3, 12, 15], SeriesInstanceUID="1.2", SeriesDescription="gap"
    )
    write_slices(
        many / "c", noise(3, 8, 9), [0, 3, 7.5], SeriesInstanceUID="1.3", SeriesDescription="uneven"
    )
    for part, axes in (("d", (1, 0, 0, 0, 1, 0)), ("e", CORONAL)):
        places = [(0, one, 0) if part == "e" else (0, 0, one) for one in (0, 3)]
        write_slices(
            many / part,
            noise(2, 8, 9, seed=ord(part)),
            places,
            axes,
            SeriesInstanceUID="1.4",
            SeriesDescription="mixed",
        )
    for file in list(many.glob("*/*.dcm")):
        file.rename(many / f"{file.parent.name}{file.name}")
    return many


def test_the_picker_tells_every_fault_in_full(viewer, folder):
    picker = SeriesPicker("study", reader._offers([folder]), viewer.window._qt_window)
    picker.show()
    QApplication.processEvents()
    table = picker.table
    faults = {table.item(row, 0).text(): table.item(row, 5).text() for row in range(5)}
    assert faults["scan"] == "no fault found"
    assert faults["gap"].startswith("About 2 slices are missing")
    assert faults["uneven"].startswith("Unevenly spaced slices: 3.00 to 4.50 mm")
    assert "several orientations" in faults["mixed axial"]
    assert "several orientations" in faults["mixed coronal"]
    # Nothing is beyond an edge.
    assert table.horizontalHeader().length() <= table.viewport().width()
    assert table.verticalHeader().length() <= table.viewport().height()
    for row in range(table.rowCount()):
        assert table.rowHeight(row) >= table.sizeHintForRow(row)
    picker.close()


def test_the_picker_has_the_theme_of_napari(viewer, folder):
    series = reader._offers([folder])
    for theme, is_dark in (("light", False), ("dark", True)):
        viewer.theme = theme
        picker = SeriesPicker("study", series, viewer.window._qt_window)
        picker.show()
        QApplication.processEvents()
        pictures = picker.grab().toImage(), picker.table.viewport().grab().toImage()
        picker.close()
        for picture in pictures:
            colour = picture.pixelColor(picture.width() // 2, picture.height() - 4)
            assert (colour.lightness() < 128) is is_dark, theme


def test_enter_opens_the_series_and_escape_none(viewer, folder):
    timer = when_shown(SeriesPicker, lambda picker: QTest.keyClick(picker.table, ENTER))
    drop(viewer, folder)
    assert [layer.name for layer in viewer.layers] == ["study scan"]
    timer.stop()
    notification_manager.records.clear()
    timer = when_shown(SeriesPicker, lambda picker: QTest.keyClick(picker.table, ESCAPE))
    drop(viewer, folder)
    timer.stop()
    assert len(viewer.layers) == 1
    assert not notification_manager.records
    assert not [one for one in QApplication.topLevelWidgets() if _is_dialog(one)]


def _is_dialog(widget):
    return isinstance(widget, QDialog) and widget.isVisible() and widget.isModal()


def test_a_double_click_opens_the_series(viewer, folder):
    def click(picker):
        table = picker.table
        place = table.visualItemRect(table.item(1, 0)).center()
        QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
        QTest.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)

    timer = when_shown(SeriesPicker, click)
    drop(viewer, folder)
    timer.stop()
    [layer] = viewer.layers
    assert layer.name == "study gap"
    assert any(
        "missing" in one or "gap" in one for one in layer.metadata["napari_dino_uad"]["notices"]
    )


# The default reader -----------------------------------------------------------------------


def test_our_files_open_without_asking(readers, tmp_path):
    assert not default_reader.is_default()
    assert default_reader.make_default() == {}
    assert default_reader.is_default()
    for name in ("a.nii.gz", "a.NII.GZ", "a.IMA", "a.dcm", "a.nrrd"):
        assert get_preferred_reader(str(tmp_path / name)) == PLUGIN
    assert get_preferred_reader(str(tmp_path)) == PLUGIN
    assert get_preferred_reader(str(tmp_path / "a.tif")) is None
    default_reader.clear_default()
    assert readers.extension2reader == {}


def test_choices_of_other_readers_stay_until_asked(readers):
    readers.extension2reader = {"*.gz": "other", "*.czi": "another"}
    kept = default_reader.make_default()
    assert kept == {"*.nii.gz": "other"}
    assert not default_reader.is_default()
    assert get_preferred_reader("/a.nii.gz") == "other"
    assert get_preferred_reader("/a.nii") == PLUGIN
    default_reader.make_default(override=True)
    assert default_reader.is_default()
    assert readers.extension2reader["*.czi"] == "another"


def test_the_check_box_follows_and_asks_for_the_rest(qtbot, readers):
    readers.extension2reader = {"*.mha": "other"}
    choice = DefaultChoice()
    qtbot.addWidget(choice)
    choice.show()
    assert not choice.box.isChecked() and not choice.override.isVisible()
    choice.box.click()
    assert choice.box.isChecked() and choice.override.isVisible()
    assert "other" in choice.others.text() and "*.mha" in choice.others.text()
    choice.override.click()
    assert default_reader.is_default() and not choice.override.isVisible()
    choice.box.click()
    assert readers.extension2reader == {}


def test_it_is_offered_once(readers, viewer, scan, qtbot):
    notification_manager.records.clear()
    drop(viewer, scan)
    qtbot.waitUntil(lambda: bool(notification_manager.records), timeout=3000)
    [offer] = notification_manager.records
    [(text, accept)] = offer.actions
    assert text == "Yes, without asking"
    accept()
    assert default_reader.is_default()
    readers.extension2reader = {}
    drop(viewer, scan)
    qtbot.wait(100)
    assert len(notification_manager.records) == 1


def test_a_dropped_folder_needs_no_reader_dialog(readers, viewer, tmp_path):
    write_slices(tmp_path / "study", noise(4, 8, 9), range(0, 12, 3))
    default_reader.make_default()
    viewer.window._qt_viewer._qt_open([str(tmp_path / "study")], stack=False)
    assert [layer.name for layer in viewer.layers] == ["study"]
    assert np.array_equal(viewer.layers[0].data.shape, (4, 8, 9))
