"""Layers of Inspect on the scan: an explanation of all slices, and the place asked about."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.widgets.layers import layer_geometry, scan_shape

if TYPE_CHECKING:
    from napari.layers import Image, Layer, Points
    from napari.utils.colormaps import DirectLabelColormap

    from napari_dino_uad.core.explain.overlays import Overlay
    from napari_dino_uad.core.model import FittedModel

__all__ = ["highlight", "overlay_layer", "place_layer"]

_PICKED = (1.0, 0.9, 0.0, 0.85)
_RING = (1.0, 0.16, 0.78, 1.0)
_FAINT = 0.22
# Steps of this share of the circle of hues never come close to each other.
_GOLDEN = 0.618
_NAMES = {
    "component": "kinds of tissue",
    "colours": "embeddings",
    "observed": "observed",
    "expected": "expected",
    "residual": "against expected",
    "mirror": "left against right",
}
# Healthy standard deviations above the mean at the brightest colour.
_BRIGHTEST = 4.0
_RING_SHARE = 0.035


def _placement(scan: Image, overlay: Overlay) -> dict[str, Any]:
    """Return the keywords that place patches on the voxels they cover."""
    ndim = scan.ndim
    keywords = layer_geometry(scan)
    keywords["scale"] = np.asarray(scan.scale) * overlay.step[-ndim:]
    keywords["translate"] = scan.data_to_world(overlay.first[-ndim:])
    return keywords


def overlay_layer(scan: Image, overlay: Overlay, model: FittedModel, component: int) -> Layer:
    """Make the layer of an explanation.

    Parameters
    ----------
    scan : Image
        The layer of the scan.
    overlay : Overlay
    model : FittedModel
        The model of the map.
    component : int
        Component to highlight, counted from 0; -1 for none.
    """
    from napari.layers import Image, Labels

    array = overlay.array
    if scan.ndim == 2:
        array = array[0]
    keywords = {"name": _NAMES[overlay.kind], "opacity": 0.8, **_placement(scan, overlay)}
    if overlay.kind == "component":
        return Labels(array, colormap=highlight(int(array.max()), component), **keywords)
    if array.ndim > scan.ndim:
        return Image(array, rgb=True, blending="translucent", **keywords)
    limits = _limits(overlay, model)
    return Image(
        array, contrast_limits=limits, colormap=_heat(), blending="translucent", **keywords
    )


def highlight(count: int, component: int) -> DirectLabelColormap:
    """Colour labels 1 to `count` faintly, and one of them, counted from 0, strongly."""
    from napari.utils.colormaps import DirectLabelColormap

    table: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    for number in range(count):
        hue = number * _GOLDEN % 1
        table[number + 1] = (*colorsys.hsv_to_rgb(hue, 1.0, 1.0), _FAINT)
    if component >= 0:
        table[component + 1] = _PICKED
    return DirectLabelColormap(color_dict=table)


def _limits(overlay: Overlay, model: FittedModel) -> tuple[float, float]:
    scale = model.views[0].scale
    if overlay.kind == "mirror" and scale.symmetry > 0:
        low = scale.mirror_mean
        return low, low + _BRIGHTEST * scale.mirror_deviation
    values = overlay.array[overlay.array > 0]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [50, 99.8])
    return float(low), max(float(high), float(low) + 1e-6)


def _heat() -> Any:
    """Make a colormap whose first colour is transparent: air has no value."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    table = ensure_colormap("inferno").map(np.linspace(0, 1, 256))
    table[:, 3] = np.linspace(0, 1, 256) ** 0.5
    return Colormap(table, name="inferno from nothing")


def place_layer(scan: Image, voxel: tuple[int, int, int]) -> Points:
    """Make the ring around the place asked about."""
    from napari.layers import Points

    keywords = layer_geometry(scan)
    shape = np.asarray(scan_shape(scan))
    return Points(
        np.asarray([voxel[-scan.ndim :]], dtype=float),
        name="asked here",
        symbol="ring",
        size=max(3.0, _RING_SHARE * float(shape[-2:].max())),
        face_color=[_RING],
        border_width=0,
        **keywords,
    )
