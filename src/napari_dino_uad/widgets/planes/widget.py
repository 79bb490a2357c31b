"""Axial, coronal and sagittal slices of the scan at once, with one crosshair."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import QBoxLayout, QSizePolicy

from napari_dino_uad.widgets.controls import DockWidget, small_label
from napari_dino_uad.widgets.cross_lines import cross_lines_of
from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.orientation import PLANES, orientation_of
from napari_dino_uad.widgets.planes.pane import PlanePane
from napari_dino_uad.widgets.planes.pictures import layers_of
from napari_dino_uad.widgets.results.store import results_of

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer

__all__ = ["ThreePlanesWidget"]

# Changes of a layer that are seen; not all of them exist in each kind of layer.
_SEEN = (
    *("data", "contrast_limits", "colormap", "gamma", "opacity", "scale", "translate"),
    *("visible", "paint", "labels_update", "contour"),
)
_HELP = "Click: move the crosshair. Wheel: slices. Ctrl and wheel: zoom. Double click: whole slice."


class ThreePlanesWidget(DockWidget):
    """Three panes beside each other, or below each other where the dock is narrow.

    The crosshair is that of the viewer: sliders, clicks in the image and jumps to findings move
    it.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._results = results_of(self._viewer)
        self._crosshair = crosshair_of(self._viewer)
        self._lines = cross_lines_of(self._viewer)
        orientation_of(self._viewer)
        self._watched: list[Layer] = []
        self._scan: Image | None = None
        self._marked: Image | None = None
        self._stale: set[int] = set()
        self._build()
        # Several changes in a row are drawn once.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw)
        self.listen(
            (self._crosshair.moved, self._on_moved),
            (self._results.scan_chosen, self._on_layers),
            (self._results.changed, self._on_layers),
            (self._results.updated, self._on_seen),
            (self._results.painted, self._on_seen),
        )
        self._on_layers()

    def _build(self) -> None:
        self.panes = [PlanePane(plane) for plane in PLANES]
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._row.setSpacing(2)
        for pane in self.panes:
            pane.setToolTip(f"{pane.plane.name} slice. {_HELP}")
            pane.pointed.connect(partial(self._on_pointed, pane))
            pane.hovered.connect(partial(self._on_hovered, pane))
            pane.stepped.connect(partial(self._on_stepped, pane))
            self._row.addWidget(pane, 1)
        self.hint = small_label()
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.content.setContentsMargins(2, 2, 2, 2)
        self.content.addLayout(self._row, 1)
        self.content.addWidget(self.hint)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def _leave(self) -> None:
        """Let go of the viewer's layers."""
        self._lines.hide(self)
        self._timer.stop()
        self._watch([])

    def sizeHint(self) -> QSize:
        """Return a size for the area below the image."""
        return QSize(600, 300)

    def resizeEvent(self, event: Any) -> None:
        """Lay the panes beside or below each other."""
        super().resizeEvent(event)
        wide = self.width() > self.height()
        direction = QBoxLayout.Direction
        self._row.setDirection(direction.LeftToRight if wide else direction.TopToBottom)

    # Drawing ------------------------------------------------------------------------------

    def _on_layers(self) -> None:
        """Take the scan that all docks show, and the layers that belong to it."""
        scan = self._results.scan
        self._scan = scan if scan is not None and scan.ndim == 3 else None
        self._watch(self._layers())
        text = "" if self._scan is not None else "Open a scan with several slices."
        self.hint.setText(text)
        self.hint.setVisible(bool(text))
        self._on_seen()

    def _layers(self) -> list[Layer]:
        if self._scan is None:
            return []
        return layers_of(list(self._viewer.layers), self._scan, self._results.shown)

    def _watch(self, layers: list[Layer]) -> None:
        """Follow changes of these layers, and of no other."""
        for old, connect in ((self._watched, False), (layers, True)):
            for layer in old:
                for name in _SEEN:
                    event = getattr(layer.events, name, None)
                    if event is not None:
                        (event.connect if connect else event.disconnect)(self._on_seen)
        self._watched = layers

    def _on_seen(self, *_: Any) -> None:
        self._stale = set(range(len(self.panes)))
        self._timer.start(0)

    def _on_moved(self, _: Any = None) -> None:
        """Mark the panes whose slice is another one now."""
        if self._scan is None:
            return
        voxel = self._crosshair.voxel(self._scan)
        for number, pane in enumerate(self.panes):
            if pane.index != voxel[pane.plane.across]:
                self._stale.add(number)
        self._timer.start(0)

    def _show_lines(self) -> None:
        """Show the crosshair across the scan in napari's canvas too."""
        if self._scan is self._marked:
            return
        self._marked = self._scan
        if self._scan is None:
            self._lines.hide(self)
        else:
            self._lines.show(self, self._scan)

    def _draw(self) -> None:
        self._show_lines()
        if self._scan is None or self._scan not in self._viewer.layers:
            for pane in self.panes:
                pane.clear_slice()
            return
        layers = [layer for layer in self._layers() if layer.visible]
        voxel = self._crosshair.voxel(self._scan)
        world = self._crosshair.position[-3:]
        for number, pane in enumerate(self.panes):
            if number in self._stale:
                pane.draw(self._scan, layers, voxel[pane.plane.across])
            pane.mark(world[pane.plane.down], world[pane.plane.right])
        self._stale = set()

    # Mouse --------------------------------------------------------------------------------

    def _world(self, pane: PlanePane, place: tuple[float, float]) -> list[float]:
        world = list(self._crosshair.position[-3:])
        world[pane.plane.down], world[pane.plane.right] = place
        return world

    def _on_pointed(self, pane: PlanePane, place: tuple[float, float]) -> None:
        if self._scan is not None:
            low, high = self._scan.extent.world
            inside = zip(self._world(pane, place), low, high, strict=True)
            self._crosshair.move([min(max(value, a), b) for value, a, b in inside])

    def _on_hovered(self, pane: PlanePane, place: tuple[float, float]) -> None:
        self._results.cursor_moved.emit(tuple(self._world(pane, place)), False)

    def _on_stepped(self, pane: PlanePane, steps: int) -> None:
        if self._scan is None:
            return
        voxel = list(self._crosshair.voxel(self._scan))
        axis = pane.plane.across
        last = self._scan.data.shape[axis] - 1
        voxel[axis] = min(max(voxel[axis] + steps, 0), last)
        world = list(self._crosshair.position[-3:])
        world[axis] = float(self._scan.data_to_world(voxel)[axis])
        self._crosshair.move(world)
