"""The place in the scan that all views share: one crosshair.

It is the point of napari's own dims, in world coordinates: what moves the sliders moves the
crosshair, and the other way round. Along the axes on screen, where napari has no slider, it is the
place that was clicked last.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_dino_uad.widgets.layers import scan_shape
from napari_dino_uad.widgets.per_viewer import PerViewer
from napari_dino_uad.widgets.pointer import Pointer

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["Crosshair", "crosshair_of"]


class Crosshair(QObject):
    """The place of a viewer.

    Signals
    -------
    moved : tuple of float
        World position, along all axes of the viewer.
    """

    moved = Signal(object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._followers = 0
        viewer.dims.events.point.connect(self._on_point)
        self._pointer = Pointer(viewer, self)
        self._pointer.picked.connect(self.move)

    @property
    def position(self) -> tuple[float, ...]:
        """World position; empty after the viewer was closed."""
        viewer = self._viewer()
        return () if viewer is None else tuple(float(one) for one in viewer.dims.point)

    def move(self, world: Sequence[float]) -> None:
        """Go to a place, given along the last axes of the viewer."""
        viewer = self._viewer()
        if viewer is not None:
            count = len(world)
            axes = range(viewer.dims.ndim - count, viewer.dims.ndim)
            viewer.dims.set_point(list(axes), [float(one) for one in world])

    def voxel(self, layer: Layer) -> tuple[int, ...]:
        """Return the nearest voxel of a layer, clipped to its edges."""
        index = layer.world_to_data(self.position[-layer.ndim :])
        edge = np.subtract(scan_shape(layer), 1)
        return tuple(int(one) for one in np.clip(np.round(index), 0, edge))

    def follow_clicks(self, wanted: bool) -> None:
        """Let clicks in napari's canvas move the crosshair, as long as a view shows it.

        Every call with True needs one with False.
        """
        self._followers += 1 if wanted else -1
        self._pointer.on = self._followers > 0

    def _on_point(self, _: Any = None) -> None:
        self.moved.emit(self.position)


_CROSSHAIRS = PerViewer(Crosshair)


def crosshair_of(viewer: Viewer) -> Crosshair:
    """Return the crosshair of a viewer; it is made at the first call."""
    return _CROSSHAIRS(viewer)
