"""Brings a place of a scan onto the screen, and marks it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.layers import camera_of

if TYPE_CHECKING:
    from napari.layers import Layer, Vectors
    from napari.viewer import Viewer

__all__ = ["CrossLines", "show_voxel"]

# Share of the canvas that a region fills after zooming to it.
_FILLED = 0.4
# Highest zoom, relative to that at which the whole scan fits.
_CLOSEST = 3.0


def show_voxel(
    viewer: Viewer,
    layer: Layer,
    voxel: Sequence[float],
    extent: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Show the slice of a voxel with the crosshair on it, and zoom to a region around it.

    Parameters
    ----------
    viewer : Viewer
    layer : Layer
        The layer whose voxel it is, in 2D or 3D.
    voxel : sequence of float
        Index along (S, P, L), or (P, L) of a 2D layer.
    extent : tuple of two sequences of float, optional
        Lowest and highest voxel of a region; the view zooms to it. Without it, neither zoom nor
        centre change.
    """
    crosshair_of(viewer).move(layer.data_to_world(voxel))
    if extent is None:
        return
    dims = viewer.dims
    offset = dims.ndim - layer.ndim
    rows = [axis - offset for axis in dims.displayed[-2:]]
    low, high = (np.asarray(layer.data_to_world(corner)) for corner in extent)
    size = np.abs(high - low)[rows]
    whole = np.ptp(layer.extent.world, axis=0)[rows]
    room = np.asarray(viewer.canvas.size, dtype=float)
    zoom = float(np.min(_FILLED * room / np.maximum(size, 1e-6)))
    # Some anatomy around the region stays on screen.
    camera = camera_of(viewer)
    camera.zoom = min(zoom, _CLOSEST * float(np.min(room / whole)))
    middle = (low + high)[rows] / 2
    camera.center = (*camera.center[:-2], *middle)


# Pixels of the screen: width of the lines, and what stays free on each side of the place.
_WIDTH, _FREE = 1.2, 28
_COLOUR = (1.0, 0.85, 0.2, 0.7)


class CrossLines:
    """Thin lines in the canvas through the place of the crosshair, on the slices through it.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = weakref.ref(viewer)
        self.layer: Vectors | None = None
        self._voxel: tuple[float, ...] = ()

    def follow(self, scan: Layer) -> None:
        """Move the lines, if they are shown, after the crosshair has moved within the slice.

        When another slice is shown they stay where they are, and so are out of sight.
        """
        viewer = self._viewer()
        if viewer is None or self.layer is None or self.layer not in viewer.layers:
            return
        voxel = crosshair_of(viewer).voxel(scan)
        offset = viewer.dims.ndim - scan.ndim
        shown = [axis - offset for axis in viewer.dims.displayed if axis >= offset]
        if any(abs(voxel[axis] - self._voxel[axis]) > 0.5 for axis in shown):
            self.mark(scan, voxel)

    def mark(self, scan: Layer, voxel: Sequence[float]) -> None:
        """Move the lines to a voxel of a layer in 2D or 3D."""
        from napari.layers import Vectors

        viewer = self._viewer()
        if viewer is None or scan not in viewer.layers:
            return
        self._voxel = tuple(float(one) for one in voxel)
        pixel = 1 / max(float(camera_of(viewer).zoom), 1e-6)
        lines = _lines(np.asarray(voxel, dtype=float), scan, _FREE * pixel)
        if self.layer is not None and self.layer in viewer.layers and self.layer.ndim == scan.ndim:
            self.layer.data = lines
            self._on_zoom()
            return
        selected = list(viewer.layers.selection)
        self.layer = Vectors(
            lines,
            name="crosshair",
            edge_color=[_COLOUR],
            vector_style="line",
            scale=scan.scale,
            translate=scan.translate,
            units=scan.units,
            axis_labels=scan.axis_labels,
            metadata={METADATA: {"role": "crosshair"}},
        )
        self._on_zoom()
        viewer.layers.append(self.layer)
        camera_of(viewer).events.zoom.connect(self._on_zoom)
        # The scan stays selected: a reader adjusts its contrast next.
        viewer.layers.selection = selected

    def remove(self) -> None:
        """Remove the lines."""
        viewer, layer = self._viewer(), self.layer
        self.layer = None
        if viewer is None or layer is None:
            return
        camera_of(viewer).events.zoom.disconnect(self._on_zoom)
        if layer in viewer.layers:
            viewer.layers.remove(layer)

    def _on_zoom(self, _: Any = None) -> None:
        """Keep the lines thin."""
        viewer = self._viewer()
        if viewer is not None and self.layer is not None:
            pixel = 1 / max(float(camera_of(viewer).zoom), 1e-6)
            self.layer.edge_width = _WIDTH * pixel / float(np.abs(self.layer.scale[-2:]).min())


def _lines(voxel: NDArray[np.float64], scan: Layer, free_mm: float) -> NDArray[np.float64]:
    """Return two lines along each axis, (N, 2, D), on either side of a voxel."""
    lines = []
    for axis in range(scan.ndim):
        free = free_mm / abs(float(scan.scale[axis]))
        for end, side in ((0.0, -1), (scan.data.shape[axis] - 1.0, 1)):
            start = voxel.copy()
            start[axis] += side * free
            way = np.zeros(scan.ndim)
            way[axis] = end - start[axis]
            if way[axis] * side > 0:
                lines.append([start, way])
    return np.array(lines or [[voxel, np.zeros(scan.ndim)]])
