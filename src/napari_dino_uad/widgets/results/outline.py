"""Smooth outlines of the findings on screen, in place of the staircases of their voxels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_dino_uad.widgets.results.result_layers import ResultLayers

__all__ = ["Outline", "outlines"]

_log = logging.getLogger(__name__)

# Width of a line in pixels of the screen.
_WIDTH = 2.0
# Smoothing of a region before its outline, in voxels: enough to round the steps.
_SMOOTH = 0.8
_MARGIN = 4


# Corners of a square of four voxels, from the first clockwise, as (row, column).
_CORNERS = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
# Edges of the square, between a corner and the next, that an outline joins, by which corners are
# inside: bit 0 is the first. Where two opposite corners are inside, they are kept apart.
_JOINS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 0),), 2: ((0, 1),), 3: ((3, 1),), 4: ((1, 2),), 5: ((3, 0), (1, 2)), 6: ((0, 2),),
    7: ((3, 2),), 8: ((2, 3),), 9: ((2, 0),), 10: ((0, 1), (2, 3)), 11: ((2, 1),), 12: ((1, 3),),
    13: ((1, 0),), 14: ((0, 3),),
}  # fmt: skip


def outlines(
    image: NDArray[Any], colour: Callable[[int], Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the outlines of the labels of a slice as short lines between voxels.

    Parameters
    ----------
    image : ndarray of int, (rows, cols)
        Labels; 0 is background.
    colour : callable
        Takes a label and returns its colour (4,), or None.

    Returns
    -------
    points : ndarray of float32, (2 N, 2)
        Column and row of both ends of each line, where (0, 0) is the centre of the first voxel.
    colours : ndarray of float32, (2 N, 4)
    """
    from scipy import ndimage

    points, colours = [np.zeros((0, 2), np.float32)], [np.zeros((0, 4), np.float32)]
    for label, box in enumerate(ndimage.find_objects(image), 1):
        chosen = None if box is None else colour(label)
        if box is None or chosen is None:
            continue
        region = np.pad((image[box] == label).astype(np.float32), _MARGIN)
        smooth = ndimage.gaussian_filter(region, _SMOOTH, truncate=3)
        # A region of a few voxels is lower after smoothing.
        lines = _lines(smooth, min(0.5, 0.5 * float(smooth.max())))
        corner = np.array([side.start for side in box]) - _MARGIN
        points.append((lines + corner)[:, ::-1].astype(np.float32))
        colours.append(np.tile(np.asarray(chosen, dtype=np.float32), (len(lines), 1)))
    return np.concatenate(points), np.concatenate(colours)


def _lines(field: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Return where a field crosses a level, by marching squares, (2 N, 2) as (row, column).

    scikit-image joins such lines into long ones, which takes longer than a frame.
    """
    inside = (field > level).view(np.uint8)
    height, width = inside.shape
    codes = np.zeros((height - 1, width - 1), dtype=np.uint8)
    for bit, (row, column) in enumerate(_CORNERS):
        codes |= inside[row : height - 1 + row, column : width - 1 + column] << np.uint8(bit)
    squares = np.argwhere((codes > 0) & (codes < 15))
    code = codes[tuple(squares.T)]
    places = squares[:, None] + _CORNERS
    values = field[places[..., 0], places[..., 1]]
    following, after = np.roll(places, -1, axis=1), np.roll(values, -1, axis=1)
    # Of the edges that are not crossed nothing is read.
    rise = after - values
    share = np.divide(level - values, rise, out=np.zeros_like(rise), where=rise != 0)[..., None]
    crossings = places + share * (following - places)
    found = [
        crossings[code == number][:, list(join)].reshape(-1, 2)
        for number, joins in _JOINS.items()
        for join in joins
    ]
    return np.concatenate(found).astype(np.float32)


class Outline:
    """Draws the outlines of a findings layer over it.

    napari outlines labels along the edges of their voxels. The smooth lines replace them while the
    layer is looked at; while it is painted on, or if this napari draws otherwise, they are napari's
    own.

    Parameters
    ----------
    layers : ResultLayers
        Whose findings layer is in the viewer.
    """

    def __init__(self, layers: ResultLayers) -> None:
        self._layers = layers
        self._layer: Labels | None = None
        self._line: Any = None

    def attach(self) -> None:
        """Follow the findings layer, if it is in a window."""
        layer, viewer = self._layers.findings, self._layers.viewer
        if layer is None or layer is self._layer or layer not in viewer.layers:
            self.draw()
            return
        self._layer = layer
        events = layer.events
        for event in (
            events.set_data,
            events.visible,
            events.mode,
            events.colormap,
            events.opacity,
        ):
            # After napari, which shows the labels that the lines stand for.
            event.connect(self.draw, position="last")
        viewer.layers.events.removed.connect(self._on_removed)
        self.draw()

    def draw(self, _: Any = None) -> bool:
        """Draw the outlines of the slice on screen; return whether they stand for the labels."""
        layer = self._layer
        if layer is None:
            return False
        try:
            return self._draw(layer)
        except Exception:  # noqa: BLE001 - another napari may draw its layers otherwise
            _log.debug("outlines stay as napari draws them", exc_info=True)
            self._remove()
            return False

    def _draw(self, layer: Labels) -> bool:
        node = _node(self._layers.viewer, layer)
        where = self._layers.slice_on_screen()
        looked_at = str(layer.mode) == "pan_zoom" and layer.contour > 0
        if node is None or where is None or not looked_at:
            if self._line is not None:
                self._line.visible = False
            if node is not None:
                node.visible = layer.visible
            return False
        image = np.asarray(layer.data[where])
        offset = self._layers.viewer.dims.ndim - layer.ndim
        rows, columns = (axis - offset for axis in self._layers.viewer.dims.displayed[-2:])
        points, colours = outlines(image if rows < columns else image.T, layer.get_color)
        if self._line is None:
            from vispy.scene import Line

            self._line = Line(method="gl", width=_WIDTH, antialias=True)
            self._line.set_gl_state("translucent", depth_test=False)
        if self._line.parent is not node.parent:
            self._line.parent = node.parent
        self._line.transform = node.transform
        self._line.order = node.order + 1
        self._line.visible = layer.visible and len(points) > 0
        if len(points):
            colours[:, 3] *= layer.opacity
            self._line.set_data(points + 0.5, color=colours, connect="segments")
        # Not merely transparent: that would be drawn at the price of any other layer.
        node.visible = False
        return True

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._layers.viewer.layers.events.removed.disconnect(self._on_removed)
            self._layer = None
            self._remove()

    def _remove(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.parent = None


def _node(viewer: Viewer, layer: Labels) -> Any:
    """Return what napari draws a layer with; None without a window or in 3D."""
    window = getattr(viewer, "window", None)
    if window is None or viewer.dims.ndisplay != 2:
        return None
    return window._qt_viewer.canvas.layer_to_visual[layer].node
