"""Keeps the whole slice on screen when a dock or the window changes the room for it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari_dino_uad.widgets.navigation import filling_zoom

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
        self._room = tuple(viewer.canvas.size)
        viewer.canvas.events.size.connect(self._on_size)

    def _on_size(self, _: Any = None) -> None:
        viewer, results = self._viewer(), self._results()
        if viewer is None or results is None:
            return
        before, self._room = self._room, tuple(viewer.canvas.size)
        scan = results.scan
        if scan is None or viewer.dims.ndisplay != 2 or viewer.canvas.grid.enabled:
            return
        was, now = (filling_zoom(viewer, scan, room) for room in (before, self._room))
        camera = viewer.scene.camera
        if was > 0 and now > 0 and _SMALLEST <= camera.zoom / was <= _LARGEST:
            camera.zoom *= now / was
