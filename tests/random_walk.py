"""A reader who does anything at any moment, and what must hold after each action."""

from __future__ import annotations

import gc
import json
import random
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.controls import DockWidget
from napari_dino_uad.widgets.findings.exporting import ExportChoice
from napari_dino_uad.widgets.layers import is_ours, is_scan_layer
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.workers import Job

__all__ = ["Walk"]

#: In the traceback of an error that is not napari's alone.
OURS = "napari_dino_uad/"
DOCKS = ("Detect", "Findings", "Inspect", "View", "Three planes", "Fit", "Evaluate", "Failures")
#: Jobs end within this time, or the window hangs.
_PATIENCE_S = 60
_SLIDER_KEYS = [
    Qt.Key.Key_PageUp, Qt.Key.Key_PageDown, Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Home,
    Qt.Key.Key_End,
]  # fmt: skip
_WINDOW_KEYS = [
    Qt.Key.Key_N, Qt.Key.Key_P, Qt.Key.Key_A, Qt.Key.Key_R, Qt.Key.Key_Up, Qt.Key.Key_Down,
    Qt.Key.Key_H,
]  # fmt: skip


class Walk:
    """Takes actions in a window at random, and says what went wrong.

    Parameters
    ----------
    viewer : napari.Viewer
        With a window on screen.
    scans : list of Path
        Files to open.
    models : list of Path
        Model files to load.
    folder : Path
        Where results are saved.
    seed : int
        The same seed takes the same actions; how far a job gets in between may differ.

    Attributes
    ----------
    done : list of str
        The actions so far.
    """

    def __init__(
        self, viewer: Any, scans: list[Path], models: list[Path], folder: Path, seed: int
    ) -> None:
        self.viewer = viewer
        self.window = viewer.window._qt_window
        self.results = results_of(viewer)
        self.scans, self.models, self.folder = scans, models, folder
        self.chance = random.Random(seed)
        self.done: list[str] = []
        self.errors: list[str] = []
        self._saved = 0
        self._loaded = False
        # The grid is the user's own if napari's button turned it on.
        self._own_grid = False
        self._hooks = sys.excepthook, threading.excepthook
        sys.excepthook = self._on_error
        threading.excepthook = lambda args: self._on_error(*args[:3])
        notification_manager.notification_ready.connect(self._on_notification)

    def close(self) -> None:
        """Take the ears off again."""
        sys.excepthook, threading.excepthook = self._hooks
        notification_manager.notification_ready.disconnect(self._on_notification)

    def _on_error(self, kind: Any, error: Any, trace: Any = None) -> None:
        told = "".join(traceback.format_exception(kind, error, trace))
        if OURS in told:
            self.errors.append(told)

    def _on_notification(self, notification: Any) -> None:
        if str(notification.severity).lower() == "error":
            self.errors.append(f"notification: {notification.message}")

    # Walking ------------------------------------------------------------------------------

    def step(self) -> str:
        """Take one action, let the window settle, and check it. Return the action."""
        weights = {action: weight for action, weight in self._actions().items() if weight}
        [action] = self.chance.choices(list(weights), list(weights.values()))
        before = len(self.done)
        self.done.append(action.__name__)
        try:
            word = action()
        except Exception as error:
            if OURS in "".join(traceback.format_exception(error)):
                raise
            # napari's own, such as the status of a layer that is selected in 3D.
            word = f"napari: {error}"
        if word:
            self.done[before] = f"{action.__name__} {word}"
        QTest.qWait(self.chance.choice([0, 20, 100, 400]))
        if self.chance.random() < 0.5:
            self.settle()
            self.check(settled=True)
        else:
            self.check(settled=False)
        return self.done[before]

    def settle(self) -> None:
        """Wait until no job runs."""
        for _ in range(_PATIENCE_S * 20):
            QTest.qWait(50)
            if not any(job.running for job in self.jobs()):
                # What a job started last has reached the widgets.
                QTest.qWait(300)
                if not any(job.running for job in self.jobs()):
                    return
        raise AssertionError(f"jobs go on after {self.done[-5:]}")

    def jobs(self) -> list[Any]:
        """Return the jobs of all docks, and the search for findings."""
        found = [job for dock in self.docks() for job in dock.findChildren(Job)]
        return [*found, self.results.search.job]

    def docks(self) -> list[Any]:
        """Return our docks that are open."""
        return list(self.window.findChildren(DockWidget))

    def dock(self, kind: str) -> Any:
        """Return an open dock by the name of its class; None if it is closed."""
        for one in self.docks():
            if type(one).__name__ == kind and one.isVisible():
                return one
        return None

    def _actions(self) -> dict[Callable[[], str | None], float]:
        return {
            self.open_scan: 4,
            self.load_model: 2,
            self.detect: 10,
            self.detect_by_key: 3,
            self.cancel: 3,
            self.move_slider: 10,
            self.click_slider: 3,
            self.choose_scan: 5,
            self.choose_model: 4,
            self.delete_layer: 4,
            self.hide_layer: 3,
            self.move_layer: 2,
            self.rename_layer: 1,
            self.select_layer: 3,
            self.open_a_dock: 5,
            self.close_a_dock: 3,
            self.press_key: 5,
            self.scroll: 5,
            self.turn: 2,
            self.click_picture: 5,
            self.paint: 4,
            self.undo_painting: 2,
            self.judge: 5,
            self.pick_finding: 4,
            self.save: 4,
            self.save_review: 2,
            self.open_review: 1,
            self.check_box: 4,
            self.smallest_size: 2,
            self.compare: 3,
            self.toggle_grid: 0.5,
            self.new_labels: 1,
            self.replace_voxels: 0.5,
            self.press_a_button: 4,
        }

    # Actions ------------------------------------------------------------------------------

    def open_scan(self) -> str | None:
        if sum(map(is_scan_layer, self.viewer.layers)) > 3:
            return None
        path = self.chance.choice(self.scans)
        self.viewer.open(path, plugin="napari-dino-uad")
        return path.name

    def load_model(self) -> str | None:
        dock = self.dock("DetectWidget")
        if dock is None or len(session().models) > 3:
            return None
        path = self.chance.choice(self.models)
        dock.load_model(path)
        return path.name

    def detect(self) -> None:
        dock = self.dock("DetectWidget")
        if dock is not None and dock.run.start.isEnabled():
            self._click(dock.run.start)

    def detect_by_key(self) -> None:
        self._press(
            Qt.Key.Key_D, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
        )

    def cancel(self) -> None:
        dock = self.dock("DetectWidget")
        if dock is not None and dock.run.cancel.isVisible() and dock.run.cancel.isEnabled():
            self._click(dock.run.cancel)

    def move_slider(self) -> None:
        dock = self.dock("DetectWidget")
        if dock is not None and dock.threshold.slider.isEnabled():
            for _ in range(self.chance.randint(1, 6)):
                QTest.keyClick(dock.threshold.slider, self.chance.choice(_SLIDER_KEYS))

    def click_slider(self) -> None:
        dock = self.dock("DetectWidget")
        if dock is not None and dock.threshold.slider.isEnabled():
            slider = dock.threshold.slider
            place = slider.rect().center()
            place.setX(self.chance.randrange(max(1, slider.width())))
            QTest.mouseClick(slider, Qt.MouseButton.LeftButton, pos=place)

    def choose_scan(self) -> str | None:
        dock = self.dock("DetectWidget")
        return None if dock is None else self._choose(dock.choice.scan_box)

    def choose_model(self) -> str | None:
        dock = self.dock("DetectWidget")
        return None if dock is None else self._choose(dock.choice.model_box)

    def delete_layer(self) -> str | None:
        layer = self._any_layer()
        if layer is None:
            return None
        self.viewer.layers.remove(layer)
        return layer.name

    def hide_layer(self) -> str | None:
        layer = self._any_layer()
        if layer is None:
            return None
        layer.visible = not layer.visible
        return layer.name

    def move_layer(self) -> None:
        count = len(self.viewer.layers)
        if count > 1:
            self.viewer.layers.move(self.chance.randrange(count), self.chance.randrange(count))

    def rename_layer(self) -> None:
        layer = self._any_layer()
        if layer is not None:
            layer.name = f"renamed {self.chance.randrange(100)}"

    def select_layer(self) -> None:
        layer = self._any_layer()
        if layer is not None:
            self.viewer.layers.selection = {layer}

    def open_a_dock(self) -> str:
        name = self.chance.choice(DOCKS)
        open_dock(self.viewer, name)
        return name

    def close_a_dock(self) -> str | None:
        docks = self.docks()
        if not docks:
            return None
        dock = self.chance.choice(docks)
        name = type(dock).__name__
        self.viewer.window.remove_dock_widget(dock)
        return name

    def press_key(self) -> str:
        key = self.chance.choice(_WINDOW_KEYS)
        self._press(key)
        return str(key)

    def scroll(self) -> None:
        for axis in self.viewer.dims.not_displayed:
            most = self.viewer.dims.nsteps[axis]
            self.viewer.dims.set_current_step(axis, self.chance.randrange(most))

    def turn(self) -> None:
        if self.chance.random() < 0.2:
            self.viewer.dims.ndisplay = 5 - self.viewer.dims.ndisplay
        else:
            self.viewer.dims.roll()

    def click_picture(self) -> None:
        native = self.viewer.window._qt_viewer.canvas.native
        place = native.rect().center()
        place.setX(self.chance.randrange(native.width()))
        place.setY(self.chance.randrange(native.height()))
        QTest.mouseMove(native, place)
        QTest.mouseClick(native, Qt.MouseButton.LeftButton, pos=place)

    def paint(self) -> str | None:
        """Paint or erase a stroke as the brush does, in the slice on screen."""
        shown, dims = self.results.shown, self.viewer.dims
        layer = None if shown is None else shown.layers.findings
        if layer is None or layer not in self.viewer.layers or dims.ndisplay == 3:
            return None
        place = [round(one) for one in layer.world_to_data(dims.point)]
        for axis in dims.displayed[-layer.ndim :]:
            place[axis - dims.ndim] = self.chance.randrange(layer.data.shape[axis - dims.ndim])
        if any(not 0 <= one < size for one, size in zip(place, layer.data.shape, strict=True)):
            return None
        layer.brush_size = self.chance.choice([1, 5, 20])
        value = self.chance.choice([0, 1, 1, 2])
        layer.paint(tuple(place), value)
        return f"{value} at {place}"

    def undo_painting(self) -> None:
        shown = self.results.shown
        layer = None if shown is None else shown.layers.findings
        if layer is not None and layer in self.viewer.layers:
            self.chance.choice([layer.undo, layer.redo])()

    def judge(self) -> str | None:
        dock = self.dock("FindingsWidget")
        if dock is None:
            return None
        bar = dock.bar
        button = self.chance.choice(
            [bar.accept, bar.reject, bar.undo, bar.redo, bar.edit, bar.next]
        )
        if button.isEnabled():
            self._click(button)
        return button.text()

    def pick_finding(self) -> None:
        dock = self.dock("FindingsWidget")
        if dock is not None and dock.table.rows:
            row = self.chance.randrange(len(dock.table.rows))
            index = dock.table.model().index(row, 0)
            dock.table.scrollTo(index)
            self._click(dock.table.viewport(), dock.table.visualRect(index).center())

    def save(self) -> str | None:
        """Save in Detect, or export in Findings, and compare the files with what is shown."""
        shown = self.results.shown
        if shown is None or shown.anomaly is None:
            return None
        self._saved += 1
        folder = self.folder / f"saved{self._saved}"
        detect, findings = self.dock("DetectWidget"), self.dock("FindingsWidget")
        if detect is not None and detect.save_button.isEnabled() and self.chance.random() < 0.5:
            self.settle()
            detect.save(folder)
        elif findings is not None and findings.files.export_button.isEnabled():
            self.settle()
            findings.files.export(
                folder, ExportChoice(results=True, html=True, pdf=False, rejected=True)
            )
        else:
            return None
        self.settle()
        if self.results.shown is shown and shown.current:
            self._check_files(folder, shown)
        return folder.name

    def save_review(self) -> None:
        dock = self.dock("FindingsWidget")
        if dock is not None and dock.files.save_button.isEnabled():
            self.settle()
            dock.files.save_review(self.folder / f"r{self.chance.randrange(3)}.review.json")

    def open_review(self) -> str | None:
        dock = self.dock("FindingsWidget")
        saved = sorted(self.folder.glob("*.review.json"))
        if dock is None or not saved or not dock.files.open_button.isEnabled():
            return None
        path = self.chance.choice(saved)
        dock.files.open_review(path)
        return path.name

    def check_box(self) -> str | None:
        dock = self.dock("DetectWidget")
        if dock is None:
            return None
        box = self.chance.choice([dock.tissue_only, dock.panel.without_scalp])
        if box.isEnabled() and box.isVisible():
            box.click()
        return box.text()

    def smallest_size(self) -> None:
        dock = self.dock("DetectWidget")
        if dock is not None and dock.minimum_size.isEnabled():
            dock.minimum_size.setValue(self.chance.choice([0.0, 0.1, 0.5, 5.0]))

    def compare(self) -> str | None:
        dock = self.dock("DetectWidget")
        if dock is None:
            return None
        both = dock.compare
        if not both.fold.button.isChecked():
            both.fold.button.click()
            return "fold"
        if self.chance.random() < 0.4 and both.side_by_side.isEnabled():
            both.side_by_side.click()
            return "side by side"
        if both.run.start.isEnabled() and both.run.start.isVisible():
            self._click(both.run.start)
            return "start"
        return None

    def toggle_grid(self) -> None:
        if not self.results.beside:
            grid = self.viewer.canvas.grid
            grid.enabled = not grid.enabled
            self._own_grid = grid.enabled

    def new_labels(self) -> None:
        if len(self.viewer.layers) < 10:
            self.viewer._new_labels()

    def replace_voxels(self) -> str | None:
        scans = [one for one in self.viewer.layers if is_scan_layer(one)]
        if not scans:
            return None
        scan = self.chance.choice(scans)
        scan.data = np.asarray(scan.data) * np.float32(1.1)
        return scan.name

    def press_a_button(self) -> str | None:
        """Press any harmless button of View, Three planes or Inspect."""
        from qtpy.QtWidgets import QAbstractButton

        kinds = ("ViewWidget", "ThreePlanesWidget", "InspectWidget")
        docks = [one for one in map(self.dock, kinds) if one is not None]
        if not docks:
            return None
        dock = self.chance.choice(docks)
        buttons = [
            one
            for one in dock.findChildren(QAbstractButton)
            if one.isVisible() and one.isEnabled() and "…" not in one.text()
        ]
        if not buttons:
            return None
        button = self.chance.choice(buttons)
        text = f"{type(dock).__name__} {button.text()}"
        button.click()
        return text

    # What must hold -----------------------------------------------------------------------

    def check(self, *, settled: bool) -> None:
        """Check that picture, panels and results agree.

        Raises
        ------
        AssertionError
            With what does not.
        """
        QApplication.processEvents()
        where = f"after {self.done[-8:]}"
        assert not self.errors, f"{self.errors[0]}\n{where}"
        layers, results = list(self.viewer.layers), self.results
        names = [one.name for one in layers]
        assert results.scan is None or results.scan in layers, f"a deleted scan is chosen {where}"
        if results.scan is None:
            assert not any(map(is_scan_layer, layers)), f"no scan is chosen of {names} {where}"
        owned: list[Any] = []
        for detection in results:
            assert detection.scan in layers, f"a detection without its scan {where}"
            assert not settled or detection.anomaly is not None or detection.message, where
            for layer in detection.layers.stack:
                assert layer in layers, f"{layer.name} is not in the window {where}"
            owned += detection.layers.stack
            if detection.layers.heat is not None and detection.layers.attached:
                above = layers.index(detection.layers.heat) > layers.index(detection.scan)
                assert above, f"heat below its scan {names} {where}"
        for beside in results.beside:
            owned += beside.stack
        self._check_orphans(layers, owned, where)
        grid = self.viewer.canvas.grid
        assert not grid.enabled or self._own_grid or results.beside, f"the grid stayed on {where}"
        if settled:
            for detection in results:
                self._check_findings(detection, where)
            self._check_panels(where)
        assert threading.active_count() < 60, f"{threading.active_count()} threads {where}"

    def _check_orphans(self, layers: list[Any], owned: list[Any], where: str) -> None:
        for layer in layers:
            role = layer.metadata.get("napari_dino_uad", {}).get("role")
            if role in ("anomaly", "findings") and is_ours(layer):
                assert layer in owned, f"an orphan: {layer.name} {where}"

    def _check_findings(self, detection: Any, where: str) -> None:
        if detection.anomaly is None:
            return
        assert detection.current, f"stale findings of {detection.scan.name} {where}"
        layer = detection.layers.findings
        found = detection.found
        total = sum(one.voxels for one in detection.findings)
        assert np.count_nonzero(found.labels) == total, where
        if layer is not None and layer in self.viewer.layers:
            drawn = np.asarray(layer.data).reshape(found.labels.shape)
            assert np.array_equal(drawn > 0, found.labels > 0), f"another picture {where}"
        above = detection.anomaly.scores > detection.threshold
        if detection.settings.edits is None:
            assert not (found.labels > 0)[~above].any(), f"found below the threshold {where}"

    def _check_panels(self, where: str) -> None:
        shown = self.results.shown
        detect, findings = self.dock("DetectWidget"), self.dock("FindingsWidget")
        if detect is not None:
            assert detect.shown is shown, f"Detect shows another result {where}"
            if shown is not None and shown.anomaly is not None:
                rate = detect.threshold.rate
                assert rate == shown.settings.rate, (rate, shown.settings.rate, where)
                count = len(shown.findings)
                text = detect.panel.summary.text()
                if not shown.held and count:
                    assert f"<b>{count} finding" in text, f"{text!r} for {count} {where}"
        if findings is not None:
            wanted = [] if shown is None or shown.held else [one.label for one in shown.findings]
            labels = sorted(row.label for row in findings.table.rows)
            assert labels == sorted(wanted), (labels, wanted, where)

    def _check_files(self, folder: Path, shown: Any) -> None:
        where = f"after {self.done[-8:]}"
        [record] = [one for one in folder.rglob("*.json") if "review" not in one.name]
        values = json.loads(record.read_text(encoding="utf-8"))
        voxels = [one["voxels"] for one in values["findings"]]
        assert voxels == [one.voxels for one in shown.findings], where
        assert values["false_positive_rate"] == shown.settings.rate, where
        assert values["threshold"] == shown.threshold, where
        [labels] = folder.rglob("*_findings.nii.gz")
        stored = np.asarray(nibabel.load(labels).dataobj)
        assert np.count_nonzero(stored) == sum(voxels), where
        [scores] = folder.rglob("*_anomaly.nii.gz")
        stored = np.asarray(nibabel.load(scores).dataobj)
        assert np.isclose(stored.max(), shown.anomaly.scores.max()), where

    # Leaving ------------------------------------------------------------------------------

    def leave(self) -> None:
        """Close everything, and check that nothing stays."""
        self.settle()
        self.check(settled=True)
        self.viewer.window.remove_dock_widget("all")
        self.viewer.layers.clear()
        QTest.qWait(500)
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()
        for _ in range(100):
            QTest.qWait(100)
            left = [
                one.name for one in threading.enumerate() if one.name in ("pipeline", "prefetch")
            ]
            if not left:
                break
        assert not left, left
        assert not self.errors, self.errors[0]
        assert not list(self.results), "detections without a scan"
        assert not [one for one in QApplication.allWidgets() if isinstance(one, DockWidget)]
        gc.collect()
        kinds = Counter(type(one).__name__ for one in gc.get_objects())
        kept = {name: kinds[name] for name in ("Detection", "AnomalyMap") if kinds[name]}
        assert not kept, f"kept after everything was closed: {kept}"

    # Hands --------------------------------------------------------------------------------

    def _any_layer(self) -> Any:
        layers = [one for one in self.viewer.layers if isinstance(one, (Image, Labels))]
        return self.chance.choice(layers) if layers else None

    def _choose(self, box: Any) -> str | None:
        if not box.choices:
            return None
        box.value = self.chance.choice(box.choices)
        return str(box.value)

    def _click(self, widget: Any, place: Any = None) -> None:
        where = widget.rect().center() if place is None else place
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, pos=where)

    def _press(self, key: Any, held: Any = Qt.KeyboardModifier.NoModifier) -> None:
        self.window.activateWindow()
        QTest.keyClick(self.window, key, held)
