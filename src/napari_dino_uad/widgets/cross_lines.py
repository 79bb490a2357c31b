"""Draws the crosshair in napari's canvas: thin lines through the place that all views share."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.layers import scan_shape
from napari_dino_uad.widgets.per_viewer import PerViewer

if TYPE_CHECKING:
    from napari.layers import Layer, Vectors
    from napari.viewer import Viewer

__all__ = ["CrossLines", "cross_lines_of"]

# Pixels of the screen: width of the lines, and what stays free on each side of the place.
_WIDTH, _FREE = 1.2, 28
_COLOUR = (1.0, 0.85, 0.2, 0.7)


class CrossLines(QObject):
    """The lines of a viewer. Docks ask for them; they go when the last dock no longer wants them.

    While they are shown, they follow the crosshair, and clicks in the canvas move it.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.

    Attributes
    ----------
    layer : Vectors or None
        Its spacing is that of the scan along the sliders, whose steps would change otherwise, and
        the same along both axes on screen, so that all lines are equally thin.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._crosshair = crosshair_of(viewer)
        self._wanted: dict[int, Layer] = {}
        self.layer: Vectors | None = None
        # Several moves in a row are drawn once.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw)
        self._crosshair.moved.connect(self._on_moved)
        viewer.scene.camera.events.zoom.connect(self._on_moved)
        viewer.dims.events.order.connect(self._on_moved)
        viewer.dims.events.ndisplay.connect(self._on_moved)

    def show(self, owner: object, scan: Layer) -> None:
        """Show the lines across a scan, for a dock.

        Parameters
        ----------
        owner : object
            The dock; it calls `hide` later.
        scan : Layer
            In 2D or 3D.
        """
        from napari.layers import Vectors

        viewer = self._viewer()
        if viewer is None or scan not in viewer.layers:
            return
        if id(owner) not in self._wanted:
            self._crosshair.follow_clicks(True)
        # The scan asked for last is the one on screen.
        self._wanted.pop(id(owner), None)
        self._wanted[id(owner)] = scan
        if self._fits(scan) and self.layer is not None:
            # Above a scan that was opened since.
            self._place(viewer)
            self._draw()
            return
        self._remove()
        selected = list(viewer.layers.selection)
        self.layer = Vectors(
            self._lines(scan),
            name="crosshair",
            edge_color=[_COLOUR],
            vector_style="line",
            scale=self._scale(scan),
            translate=scan.translate,
            units=scan.units,
            axis_labels=scan.axis_labels,
            metadata={METADATA: {"role": "crosshair"}},
        )
        self.layer.edge_width = self._width(scan)
        viewer.layers.append(self.layer)
        self._place(viewer)
        # The scan stays selected: a reader adjusts its contrast next.
        viewer.layers.selection = selected

    def _place(self, viewer: Viewer) -> None:
        """Put the lines above all layers; below them in a grid, which counts from the top."""
        if self.layer is not None:
            place = 0 if viewer.canvas.grid.enabled else len(viewer.layers)
            viewer.layers.move(viewer.layers.index(self.layer), place)

    def hide(self, owner: object) -> None:
        """Note that a dock no longer wants the lines."""
        if self._wanted.pop(id(owner), None) is None:
            return
        self._crosshair.follow_clicks(False)
        if not self._wanted:
            self._remove()

    @property
    def _pixel(self) -> float:
        """Size of a pixel of the screen in mm."""
        viewer = self._viewer()
        return 1.0 if viewer is None else 1 / max(float(viewer.scene.camera.zoom), 1e-6)

    def _on_moved(self, _: Any = None) -> None:
        if self.layer is not None:
            self._timer.start(0)

    def _draw(self) -> None:
        scan = next(reversed(self._wanted.values()), None)
        # The user may have deleted the layer; the next jump shows it again.
        if self.layer is not None and scan is not None and self._fits(scan):
            scale = self._scale(scan)
            if not np.array_equal(self.layer.scale, scale):
                self.layer.scale = scale
            if not np.array_equal(self.layer.translate, scan.translate):
                self.layer.translate = scan.translate
            self.layer.edge_width = self._width(scan)
            self.layer.data = self._lines(scan)

    def _fits(self, scan: Layer) -> bool:
        """Return whether scan and layer are in the viewer, with as many axes."""
        viewer, layer = self._viewer(), self.layer
        return (
            viewer is not None
            and layer is not None
            and layer in viewer.layers
            and scan in viewer.layers
            and layer.ndim == scan.ndim
        )

    def _displayed(self, scan: Layer) -> list[int]:
        """List the axes of the scan that are on screen."""
        viewer = self._viewer()
        if viewer is None:
            return list(range(scan.ndim))
        offset = viewer.dims.ndim - scan.ndim
        return [axis - offset for axis in viewer.dims.displayed if axis >= offset]

    def _scale(self, scan: Layer) -> NDArray[np.float64]:
        scale, shown = np.array(scan.scale, dtype=float), self._displayed(scan)
        scale[shown] = np.abs(scale[shown]).min()
        return scale

    def _width(self, scan: Layer) -> float:
        return _WIDTH * self._pixel / float(np.abs(scan.scale[self._displayed(scan)]).min())

    def _lines(self, scan: Layer) -> NDArray[np.float64]:
        """Return two lines along each axis, (N, 2, D), on either side of the crosshair."""
        scale = self._scale(scan)
        finer = np.asarray(scan.scale, dtype=float) / scale
        place = np.asarray(self._crosshair.voxel(scan)) * finer
        last = np.subtract(scan_shape(scan), 1) * finer
        lines = []
        for axis in range(scan.ndim):
            free = _FREE * self._pixel / abs(scale[axis])
            for end, side in ((0.0, -1), (last[axis], 1)):
                start = place.copy()
                start[axis] += side * free
                way = np.zeros(scan.ndim)
                way[axis] = end - start[axis]
                if way[axis] * side > 0:
                    lines.append([start, way])
        return np.array(lines or [[place, np.zeros(scan.ndim)]])

    def _remove(self) -> None:
        viewer, layer = self._viewer(), self.layer
        self.layer = None
        self._timer.stop()
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)


_LINES = PerViewer(CrossLines)


def cross_lines_of(viewer: Viewer) -> CrossLines:
    """Return the crosshair lines of a viewer; they are made at the first call."""
    return _LINES(viewer)
