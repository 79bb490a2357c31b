"""Slices of layers as pictures: grey values, heat and outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.widgets.layers import is_ours, volume_of

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

    from napari_dino_uad.widgets.orientation import Plane
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["frame_of", "layers_of", "lookup_table", "outlines", "plane_of"]

# Pixels of an outline's picture for each voxel: outlines are thinner than a voxel.
_FINE = 3


def layers_of(layers: list[Layer], scan: Image, detection: Detection | None) -> list[Layer]:
    """List the layers that belong to a scan, from the bottom to the top.

    These are the scan, its heat and findings, and labels on its grid such as a true outline.

    Parameters
    ----------
    layers : list of Layer
        Of the viewer, from the bottom to the top.
    scan : Image
        In 3D.
    detection : Detection or None
        Of the scan.
    """
    pair = [] if detection is None else detection.layers.pair
    return [layer for layer in layers if layer is scan or layer in pair or _lies_on(layer, scan)]


def _lies_on(layer: Layer, scan: Image) -> bool:
    from napari.layers import Labels

    if layer.ndim != 3 or not hasattr(layer.data, "shape") or layer.data.shape != scan.data.shape:
        return False
    if is_ours(layer):
        volume = volume_of(layer)
        return volume is not None and volume is volume_of(scan)
    return isinstance(layer, Labels) and bool(
        np.allclose(layer.scale, scan.scale) and np.allclose(layer.translate, scan.translate)
    )


def plane_of(array: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """Return a slice with its rows from the upper to the lower edge of the screen.

    Parameters
    ----------
    array : ndarray, (S, P, L)
    plane : Plane
    index : int
        Along the axis across the plane.

    Returns
    -------
    ndarray, (rows, columns)
        A view.
    """
    part = np.moveaxis(array, (plane.across, plane.down, plane.right), (0, 1, 2))[index]
    return part[::-1] if plane.upwards else part


def frame_of(layer: Layer, plane: Plane) -> tuple[float, float, float, float]:
    """Return left edge, upper edge, width and height of a slice, in mm, growing down and right."""
    shape = layer.data.shape
    right, down = plane.right, plane.down
    width, height = (float(layer.scale[axis]) * shape[axis] for axis in (right, down))
    left = float(layer.translate[right] - layer.scale[right] / 2)
    top = float(layer.translate[down] - layer.scale[down] / 2)
    return left, -(top + height) if plane.upwards else top, width, height


def lookup_table(layer: Image) -> NDArray[np.uint8]:
    """Return the colours of an image layer between its contrast limits, (256, 4)."""
    position = np.linspace(0, 1, 256) ** float(layer.gamma)
    colours = np.asarray(layer.colormap.map(position))
    return np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def outlines(labels: NDArray[Any], layer: Labels) -> NDArray[np.uint8] | None:
    """Draw the labels of a slice in the colours of their layer.

    Parameters
    ----------
    labels : ndarray of int, (rows, columns)
    layer : Labels
        Its labels are filled if it has no contour.

    Returns
    -------
    ndarray of uint8, (rows, columns, 4) or three times as fine; or None
        None where there is no label.
    """
    rows, cols = np.nonzero(labels.any(axis=1))[0], np.nonzero(labels.any(axis=0))[0]
    if not rows.size:
        return None
    if not layer.contour:
        return _coloured(labels, layer)
    out = np.zeros((_FINE * labels.shape[0], _FINE * labels.shape[1], 4), dtype=np.uint8)
    # One voxel around the labels, where they end.
    top, bottom = max(0, rows[0] - 1), min(labels.shape[0], rows[-1] + 2)
    left, right = max(0, cols[0] - 1), min(labels.shape[1], cols[-1] + 2)
    part = labels[top:bottom, left:right].repeat(_FINE, 0).repeat(_FINE, 1)
    padded = np.pad(part, 1)
    inside = part > 0
    edge = np.zeros(part.shape, dtype=bool)
    for down, across in ((0, 1), (2, 1), (1, 0), (1, 2)):
        moved = padded[down : down + part.shape[0], across : across + part.shape[1]]
        edge |= inside & (moved != part)
    drawn = _coloured(np.where(edge, part, 0), layer)
    out[_FINE * top : _FINE * bottom, _FINE * left : _FINE * right] = drawn
    return out


def _coloured(labels: NDArray[Any], layer: Labels) -> NDArray[np.uint8]:
    """Look the colours up once for each label."""
    known = np.unique(labels)
    colours = np.zeros((int(known[-1]) + 1, 4), dtype=np.uint8)
    for label in known[known > 0]:
        colour = layer.get_color(int(label))
        if colour is not None:
            colours[label] = np.round(255 * np.asarray(colour))
    return colours[labels]
