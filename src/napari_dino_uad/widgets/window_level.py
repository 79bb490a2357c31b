"""Contrast by dragging over the picture, as viewers of radiology do it."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.widgets.pointer import is_painting

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.widgets.results.store import Results

__all__ = ["WindowLevel", "dragged", "set_limits"]

_LEFT = 1
# A drag over this share of the canvas doubles or halves the window, or moves it by its width.
_SHARE = 0.4


class WindowLevel:
    """Shift and a drag: to the right the window gets wider, upwards the scan gets brighter.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.
    results : Results
        Of the viewer; it says which scan is meant.
    """

    def __init__(self, viewer: Viewer, results: Results) -> None:
        self._results = weakref.ref(results)
        viewer.mouse_drag_callbacks.append(self._on_press)

    def _on_press(self, viewer: Viewer, event: Any) -> Generator[None, None, None]:
        results = self._results()
        scan = None if results is None else results.scan
        if (
            scan is None
            or scan.rgb
            or event.button != _LEFT
            or tuple(event.modifiers) != ("Shift",)
        ):
            return
        if is_painting(viewer):
            return
        camera, begun = viewer.scene.camera, np.asarray(event.pos, dtype=float)
        limits, pans = tuple(scan.contrast_limits), camera.mouse_pan
        # Otherwise napari moves the picture along.
        camera.mouse_pan = False
        try:
            yield
            while event.type == "mouse_move":
                height, width = viewer.canvas.size
                right, down = (np.asarray(event.pos, dtype=float) - begun) / (width, height)
                set_limits(scan, dragged(limits, right, -down))
                yield
        finally:
            camera.mouse_pan = pans


def dragged(limits: tuple[float, float], right: float, up: float) -> tuple[float, float]:
    """Return limits of contrast after a drag.

    Parameters
    ----------
    limits : tuple of float
        Before it.
    right, up : float
        Movement as a share of the canvas.
    """
    low, high = limits
    width = (high - low) * 2 ** (right / _SHARE)
    centre = (low + high) / 2 - (high - low) * up / _SHARE
    return centre - width / 2, centre + width / 2


def set_limits(scan: Image, limits: tuple[float, float]) -> None:
    """Set the contrast of a scan, also beyond the range of napari's slider."""
    low, high = scan.contrast_limits_range
    scan.contrast_limits_range = (min(low, limits[0]), max(high, limits[1]))
    scan.contrast_limits = limits
