"""Brings a place of a scan onto the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.layers import covering_layers, is_scan_layer, volume_of

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["bring_on_screen", "filling_zoom", "show_voxel"]

# Share of the canvas that a region fills after zooming to it.
_FILLED = 0.4
# Highest zoom, relative to that at which the whole scan fits.
_CLOSEST = 3.0
# Share of the canvas that a whole scan fills.
_WHOLE = 0.95
# Two scans whose edges differ by less than this, in mm or pixels, lie in the same place.
_SAME_PLACE = 1.0


def bring_on_screen(viewer: Viewer, scan: Layer, before: Layer | None) -> None:
    """Show a scan in place of the others that were opened here or cover it.

    Their results are hidden with them. Slice and zoom stay if the scan lies where the one before
    it does, so that two sequences of one examination can be compared.

    Parameters
    ----------
    viewer : Viewer
    scan : Layer
    before : Layer or None
        The scan on screen so far.
    """
    covering = covering_layers(viewer, scan)
    for layer in list(viewer.layers):
        opened_here = is_scan_layer(layer) and volume_of(layer) is not None
        if layer is not scan and layer.visible and (opened_here or layer in covering):
            layer.visible = False
    scan.visible = True
    # napari's status bar tells of the layer selected.
    viewer.layers.selection.active = scan
    if before is None or not _same_place(scan, before):
        _fit(viewer, scan)


def _same_place(one: Layer, other: Layer) -> bool:
    if one.ndim != other.ndim:
        return False
    edges, others = (layer.extent.world for layer in (one, other))
    return bool(np.abs(edges - others).max() < _SAME_PLACE)


def _fit(viewer: Viewer, scan: Layer) -> None:
    """Show the middle slice of a scan, whole."""
    dims = viewer.dims
    offset = dims.ndim - scan.ndim
    low, high = scan.extent.world
    for axis in range(offset, dims.ndim):
        if axis not in dims.displayed:
            dims.set_point(axis, (low + high)[axis - offset] / 2)
    rows = [axis - offset for axis in dims.displayed[-2:] if axis >= offset]
    camera = viewer.scene.camera
    camera.zoom = _WHOLE * filling_zoom(viewer, scan, viewer.canvas.size)
    camera.center = (*camera.center[:-2], *((low + high)[rows] / 2))


def filling_zoom(viewer: Viewer, scan: Layer, room: Sequence[float]) -> float:
    """Return the zoom at which a slice of a scan just fits into the canvas.

    Parameters
    ----------
    viewer : Viewer
    scan : Layer
    room : sequence of float
        Height and width of the canvas in pixels.
    """
    offset = viewer.dims.ndim - scan.ndim
    rows = [axis - offset for axis in viewer.dims.displayed[-2:] if axis >= offset]
    size = np.maximum(np.ptp(scan.extent.world, axis=0)[rows], 1e-6)
    return float(np.min(np.asarray(room, dtype=float) / size))


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
    camera = viewer.scene.camera
    camera.zoom = min(zoom, _CLOSEST * float(np.min(room / whole)))
    middle = (low + high)[rows] / 2
    camera.center = (*camera.center[:-2], *middle)
