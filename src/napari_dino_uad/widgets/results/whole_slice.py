"""Keeps the whole slice on screen when a dock or the window changes the room for it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.widgets.results.store import Results

__all__ = ["WholeSlice"]

# A slice takes this share of the canvas when it is shown whole; napari leaves a twentieth free.
_SMALLEST, _LARGEST = 0.85, 1.02


class WholeSlice:
    """Scales the view with the canvas, as long as the slice is shown whole.

    napari keeps the zoom, so that a dock that opens below the picture cuts it off. A view that the
    user has zoomed is left alone.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.
    results : Results
        Of the viewer.
    """

    def __init__(self, viewer: Viewer, results: Results) -> None:
        self._viewer, self._results = weakref.ref(viewer), weakref.ref(results)
        self._room = np.asarray(viewer.canvas.size, dtype=float)
        viewer.canvas.events.size.connect(self._on_size)

    def _on_size(self, _: Any = None) -> None:
        viewer, results = self._viewer(), self._results()
        if viewer is None or results is None:
            return
        before, self._room = self._room, np.asarray(viewer.canvas.size, dtype=float)
        scan = results.scan
        if scan is None or viewer.dims.ndisplay != 2 or viewer.canvas.grid.enabled:
            return
        offset = viewer.dims.ndim - scan.ndim
        rows = [axis - offset for axis in viewer.dims.displayed if axis >= offset]
        size = np.maximum(np.ptp(scan.extent.world, axis=0)[rows], 1e-6)
        was, now = (float(np.min(room / size)) for room in (before, self._room))
        camera = viewer.scene.camera
        if was > 0 and now > 0 and _SMALLEST <= camera.zoom / was <= _LARGEST:
            camera.zoom *= now / was
