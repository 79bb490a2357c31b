"""Brings a place of a scan onto the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.layers import camera_of

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["show_voxel"]

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
