"""The detections of a viewer, one for each scan layer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dino_uad.widgets.layers import (
    hide_layers,
    is_comparison,
    is_ours,
    is_scan_layer,
    volume_of,
)
from napari_dino_uad.widgets.navigation import bring_on_screen
from napari_dino_uad.widgets.orientation import orientation_of
from napari_dino_uad.widgets.per_viewer import PerViewer
from napari_dino_uad.widgets.results.detection import Detection
from napari_dino_uad.widgets.results.readout import Readout
from napari_dino_uad.widgets.results.search import Search
from napari_dino_uad.widgets.results.whole_slice import WholeSlice
from napari_dino_uad.widgets.settings import settings_changed
from napari_dino_uad.widgets.shortcuts import bind_window
from napari_dino_uad.widgets.window_level import WindowLevel

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.widgets.results.result_layers import ResultLayers

__all__ = ["HIDE_KEY", "Results", "results_of"]

_KEY = "Control-Shift-D"
#: Key that hides heat and findings while it is held; napari has no use for it.
HIDE_KEY = "H"
# Pause in painting after which the findings are updated.
_PAINTED_MS = 250


def _soon(call: Callable[[], object]) -> None:
    """Call after the events of this moment, keeping what the method belongs to until then.

    PyQt keeps no reference to the object of a method, but it does to a function.
    """
    QTimer.singleShot(0, lambda: call())


class Results(QObject):
    """The detections of a viewer, and the scan that all docks show.

    It lives as long as the viewer, so that results stay when a dock is closed and opened again. It
    also binds the key, follows the cursor and writes into the status bar, once for each viewer.

    Signals
    -------
    scan_chosen
        Another scan was chosen, or none is open.
    scan_opened : Image
        A scan was added to the viewer; it is chosen next.
    scan_closed : Image
        A scan with a detection was deleted; its result layers are removed next.
    scan_replaced : Image, bool
        The voxels of a scan were replaced, and whether it had a detection; that was of the old
        voxels and is gone.
    changed
        Layers were added, deleted, moved, renamed, shown or hidden.
    updated : Detection
        A detection has new slices, a finished map, other settings, other findings or another
        review. Docks read it again.
    painted : Detection
        The user corrected the findings.
    detect_asked
        The key for Detect was pressed.
    cursor_moved : tuple of float, bool
        World position of the cursor, and whether only the slice below it has changed.
    """

    scan_chosen = Signal()
    scan_opened = Signal(object)
    scan_closed = Signal(object)
    scan_replaced = Signal(object, bool)
    changed = Signal()
    updated = Signal(object)
    painted = Signal(object)
    detect_asked = Signal()
    cursor_moved = Signal(object, bool)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._detections: dict[Image, Detection] = {}
        # Heat and findings of a second model, beside those of a detection.
        self.beside: list[ResultLayers] = []
        self._known: set[Layer] = set(viewer.layers)
        self._chosen: Image | None = self._last_scan(viewer)
        self._step: tuple[int, ...] = ()
        self._watched: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._painting = QTimer(self)
        self._painting.setSingleShot(True)
        self._painting.setInterval(_PAINTED_MS)
        self._painting.timeout.connect(self.take_painting)
        self.search = Search(self)
        self.readout = Readout(viewer, self)
        self._whole_slice = WholeSlice(viewer, self)
        self._window_level = WindowLevel(viewer, self)
        orientation_of(viewer)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self._on_layers)
        events.moved.connect(self._on_moved)
        self._watch_list(viewer)
        for layer in viewer.layers:
            self._watch(layer)
        viewer.mouse_move_callbacks.append(self._on_mouse)
        viewer.dims.events.current_step.connect(self._on_step)
        # The window takes the keys first, wherever the focus is, once it is on screen.
        bind_window(viewer)
        viewer.bind_key(_KEY, self._on_key, overwrite=True)
        viewer.bind_key(HIDE_KEY, self._while_held, overwrite=True)
        settings_changed().connect(self._on_setting)
        self.opacity = 1.0
        self._hidden_comparisons: list[Layer] = []

    # The scan chosen ----------------------------------------------------------------------

    @property
    def scan(self) -> Image | None:
        """The scan that all docks show; None if no scan is open."""
        return self._chosen

    @property
    def shown(self) -> Detection | None:
        """The detection of the scan chosen."""
        return self.of(self._chosen)

    def choose(self, scan: Image | None) -> None:
        """Choose the scan that all docks show."""
        if scan is not self._chosen:
            self._chosen = scan
            self.scan_chosen.emit()

    def go_to(self, scan: Image | None) -> None:
        """Choose a scan, and bring it on screen in place of the one before."""
        before = self._chosen
        self.choose(scan)
        viewer = self._viewer()
        if viewer is not None and scan is not None and scan in viewer.layers:
            bring_on_screen(viewer, scan, before if before in viewer.layers else None)

    def _watch_list(self, viewer: Viewer) -> None:
        """Follow clicks in napari's list of layers.

        Not its selection, which this plugin and napari change for reasons of their own.
        """
        view: Any = getattr(viewer, "window", None)
        for name in ("_qt_viewer", "layers", "clicked"):
            view = getattr(view, name, None)
        if view is not None:
            view.connect(self._on_clicked)

    def _on_clicked(self, _: Any = None) -> None:
        viewer = self._viewer()
        layer = None if viewer is None else viewer.layers.selection.active
        if layer is not None and layer is not self._chosen and is_scan_layer(layer):
            self.go_to(layer)

    @staticmethod
    def _last_scan(viewer: Viewer) -> Image | None:
        scans = Results._open_scans(viewer)
        return scans[-1] if scans else None

    @staticmethod
    def _open_scans(viewer: Viewer) -> list[Image]:
        return [layer for layer in viewer.layers if is_scan_layer(layer)]

    # Key and cursor -----------------------------------------------------------------------

    def _on_key(self, _: Any = None) -> None:
        self.detect_asked.emit()

    def _while_held(self, _: Any = None) -> Iterator[None]:
        self.hide_for_now(True)
        yield
        self.hide_for_now(False)

    def hide_for_now(self, hidden: bool) -> None:
        """Hide all heat, findings and comparisons while a key is held, and show them again."""
        for layers in self._all_layers():
            layers.hide_for_now(hidden)
        viewer = self._viewer()
        if hidden and not self._hidden_comparisons and viewer is not None:
            self._hidden_comparisons = hide_layers(
                one for one in viewer.layers if isinstance(one, Labels) and is_comparison(one)
            )
        elif not hidden:
            layers_again, self._hidden_comparisons = self._hidden_comparisons, []
            for layer in layers_again:
                layer.visible = True

    def set_opacity(self, opacity: float) -> None:
        """Set the opacity of all heat, 0 to 1."""
        self.opacity = opacity
        for layers in self._all_layers():
            if layers.heat is not None:
                layers.heat.opacity = opacity

    def _on_setting(self, name: str) -> None:
        if name == "colours":
            for layers in self._all_layers():
                layers.recolour()

    def _all_layers(self) -> list[ResultLayers]:
        return [*(detection.layers for detection in self), *self.beside]

    def _on_mouse(self, viewer: Viewer, event: Any) -> None:
        self.cursor_moved.emit(tuple(viewer.cursor.position), False)

    def _on_step(self, _: Any = None) -> None:
        """Update the readout after another slice was shown under a resting cursor."""
        viewer = self._viewer()
        if viewer is None:
            return
        position = viewer.cursor.position
        if len(position) == viewer.dims.ndim:
            shown = viewer.dims.displayed
            world = tuple(
                position[axis] if axis in shown else viewer.dims.point[axis]
                for axis in range(viewer.dims.ndim)
            )
            self.cursor_moved.emit(world, True)

    # Detections ---------------------------------------------------------------------------

    def __iter__(self) -> Any:
        """Iterate over the detections."""
        return iter(list(self._detections.values()))

    def of(self, scan: Image | None) -> Detection | None:
        """Return the detection of a scan, or None."""
        return None if scan is None else self._detections.get(scan)

    def keep(self, detection: Detection) -> None:
        """Make this the detection of its scan."""
        self._detections[detection.scan] = detection
        if detection.layers.heat is not None:
            detection.layers.heat.opacity = self.opacity

    def watch_findings(self, detection: Detection) -> None:
        """Watch for corrections painted on the findings of a detection."""
        layer = detection.layers.findings
        if layer is None or layer in self._watched:
            return
        self._watched.add(layer)
        for event in (layer.events.paint, layer.events.labels_update, layer.events.data):
            event.connect(self._on_paint)
        # napari's own undo, from a script, emits the same event as a change of slice.
        layer.events.set_data.connect(self._on_drawn)
        # napari's would know of strokes only, and not of decisions and notes.
        for key, step in (("Control-Z", self.undo), ("Control-Shift-Z", self.redo)):
            layer.bind_key(key, partial(self._on_undo_key, step), overwrite=True)

    def _on_undo_key(self, step: Callable[[Detection], None], layer: Layer) -> None:
        for detection in self:
            if detection.layers.findings is layer:
                step(detection)

    def undo(self, detection: Detection) -> None:
        """Take back the reader's last decision, note or correction."""
        self._on_step_of_review(detection, detection.undo())

    def redo(self, detection: Detection) -> None:
        """Repeat the step that was taken back last."""
        self._on_step_of_review(detection, detection.redo())

    def _on_step_of_review(self, detection: Detection, corrected: bool) -> None:
        self._painting.stop()
        detection.show_review()
        if corrected:
            self.painted.emit(detection)
            self.search.start()
        self.updated.emit(detection)

    def _on_paint(self, _: Any = None) -> None:
        self._painting.start()

    def _on_drawn(self, _: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None or any(layers.redrawing for layers in self._all_layers()):
            return
        step = tuple(viewer.dims.current_step)
        if step == self._step:
            self._painting.start()
        self._step = step

    def take_painting(self) -> None:
        """Take what the user has painted, and search again where that is anything new."""
        self._painting.stop()
        painted = [detection for detection in self if detection.absorb()]
        for detection in painted:
            self.painted.emit(detection)
        if painted:
            self.search.start()

    # Layers -------------------------------------------------------------------------------

    def _watch(self, layer: Layer) -> None:
        if isinstance(layer, Image) and not is_ours(layer):
            layer.events.visible.connect(self._on_visible)
            layer.events.data.connect(self._on_data)

    def _on_layers(self, _: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        present = set(viewer.layers)
        new = [layer for layer in viewer.layers if layer not in self._known]
        self._known = present
        for scan in [scan for scan in self._detections if scan not in present]:
            detection = self._detections.pop(scan)
            self.scan_closed.emit(scan)
            # Not within the event: several layers may be being removed at once.
            _soon(detection.layers.remove)
        for detection in self:
            detection.drop_deleted()
            detection.layers.on_renamed()
        for layer in new:
            self._watch(layer)
            if is_scan_layer(layer):
                self.scan_opened.emit(layer)
                if volume_of(layer) is None or len(self._open_scans(viewer)) == 1:
                    self.choose(layer)
                else:
                    self.go_to(layer)
        if self._chosen is not None and self._chosen not in present:
            self.choose(self._last_scan(viewer))
        self.changed.emit()

    def _on_moved(self, event: Any) -> None:
        for detection in self:
            if detection.layers.on_moved(event.value):
                _soon(detection.layers.place)

    def _on_data(self, event: Any) -> None:
        """Drop the detection of a scan whose voxels were replaced."""
        scan = event.source
        detection = self._detections.pop(scan, None)
        if detection is not None:
            _soon(detection.layers.remove)
        self.scan_replaced.emit(scan, detection is not None)

    def _on_visible(self, event: Any) -> None:
        detection = self.of(event.source)
        if detection is not None:
            detection.layers.on_visible()
        self.changed.emit()


_RESULTS = PerViewer(Results)


def results_of(viewer: Viewer) -> Results:
    """Return the results of a viewer; they are made at the first call."""
    return _RESULTS(viewer)
