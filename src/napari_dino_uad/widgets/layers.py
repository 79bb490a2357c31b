"""Converts between napari layers and volumes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.findings import MOST_FINDINGS
from napari_dino_uad.layer_data import AXIS_LABELS, METADATA, PIXEL_AXIS_LABELS, UNITS

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.utils.colormaps import Colormap, CyclicLabelColormap
    from napari.viewer import Viewer

    from napari_dino_uad.core.maps.findings import SizeUnit
    from napari_dino_uad.core.scans.volume import Volume

__all__ = [
    "covering_layers",
    "cut_colormap",
    "hide_layers",
    "is_comparison",
    "is_ours",
    "is_scan_layer",
    "layer_geometry",
    "layer_size_unit",
    "outline_colormap",
    "scan_shape",
    "slice_index",
    "volume_of",
    "volume_reader",
]

# Opacity of the heat at the threshold and at the last colour; the anatomy shows through both.
_LOWEST_ALPHA, _HIGHEST_ALPHA = 0.55, 0.9

# Part of a colormap that the heat uses. The ends would not show: the dark one on black, the pale
# one on a white lesion.
_COLOUR_RANGE = (0.28, 0.82)

# Outlines of findings: visible on grey anatomy and on red, orange and yellow heat.
_OUTLINES = (
    (0.0, 0.9, 1.0),
    (0.35, 1.0, 0.35),
    (0.35, 0.55, 1.0),
    (1.0, 1.0, 1.0),
    (0.8, 0.5, 1.0),
)

# Outline of a rejected finding.
_FAINT = (0.6, 0.6, 0.6, 0.45)

# Images with another blending, or fainter than this, let the layers below show through.
_COVERING = ("translucent", "translucent_no_depth", "opaque")
_HALF = 0.5


def is_ours(layer: Layer) -> bool:
    """Return whether a layer is a result of this plugin, and therefore not a scan."""
    roles = ("anomaly", "findings", "explanation", "comparison", "outcome")
    return layer.metadata.get(METADATA, {}).get("role") in roles


def is_scan_layer(layer: Layer) -> bool:
    """Return whether a layer is an image that may be a scan: grey in 2D or 3D, or 2D in colour."""
    from napari.layers import Image

    return (
        isinstance(layer, Image)
        and not is_ours(layer)
        and layer.ndim in ((2,) if layer.rgb else (2, 3))
    )


def is_comparison(layer: Layer) -> bool:
    """Return whether a layer shows where two models agree, or a second model."""
    return bool(layer.metadata.get(METADATA, {}).get("role") == "comparison")


def hide_layers(layers: Iterable[Layer]) -> list[Layer]:
    """Hide the layers that are visible, and return them."""
    shown = [layer for layer in layers if layer.visible]
    for layer in shown:
        layer.visible = False
    return shown


def volume_of(layer: Layer) -> Volume | None:
    """Return the volume of a scan that was opened by this plugin, or None."""
    volume: Volume | None = layer.metadata.get(METADATA, {}).get("volume")
    return volume


def covering_layers(viewer: Viewer, scan: Layer) -> list[Layer]:
    """List the images that cover a scan, from the bottom to the top.

    Parameters
    ----------
    viewer : Viewer
    scan : Layer
        A layer of the viewer.
    """
    from napari.layers import Image

    if scan not in viewer.layers:
        return []
    # A plain list: a part of napari's own is a new list of layers with its events.
    layers = list(viewer.layers)
    return [
        layer
        for layer in layers[layers.index(scan) + 1 :]
        if isinstance(layer, Image)
        and layer.visible
        and not is_ours(layer)
        and layer.blending in _COVERING
        and layer.opacity > _HALF
        and _overlap(layer, scan)
    ]


def _overlap(one: Layer, other: Layer) -> bool:
    """Return whether two layers overlap in space, judged by their last axes."""
    a, b = one.extent.world, other.extent.world
    axes = min(a.shape[1], b.shape[1])
    low = np.maximum(a[0, -axes:], b[0, -axes:])
    return bool((low <= np.minimum(a[1, -axes:], b[1, -axes:])).all())


def volume_reader(layer: Image) -> Callable[[], Volume]:
    """Return a function that makes a volume of an image layer.

    A layer that our reader made carries the volume with the true geometry of its file; its voxels
    are those of the layer, which may have been replaced. The axes of any other layer are taken as
    feet to head, front to back, right to left.

    Parameters
    ----------
    layer : Image
        A grey image in 2D or 3D, or one in colour in 2D.

    Returns
    -------
    callable
        Makes the volume. It does not use the layer, so it may be called in a thread.

    Raises
    ------
    InputError
        If the layer has too many dimensions.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    colour, ndim = bool(layer.rgb), layer.ndim
    volume = volume_of(layer)
    if volume is not None and volume.content.shape[1 if ndim == 2 else 0 :] == tuple(data.shape):
        return lambda: _with_voxels(volume, data)
    if ndim not in ((2,) if colour else (2, 3)):
        kind = "a single picture in colour" if colour else "a 2D or 3D image"
        raise InputError(
            f"The layer {layer.name!r}: expected {kind}, got {ndim} dimensions; take one volume "
            "of it."
        )
    spacing, known = _spacing(layer)
    origin = (0.0,) * (3 - ndim) + tuple(float(value) for value in layer.translate)
    name = layer.name

    def make() -> Volume:
        from napari_dino_uad.core.scans.volume import volume_from_array

        return volume_from_array(
            np.asarray(data), spacing, origin, name, spacing_known=known, colour=colour
        )

    return make


def _with_voxels(volume: Volume, data: Any) -> Volume:
    """Return a volume with the voxels of its layer, which may not be those of the file any more."""
    from napari_dino_uad.core.scans.volume import volume_from_array

    values = np.asarray(data)
    if np.array_equal(values.reshape(volume.content.shape), volume.content):
        return volume
    colour = volume.colour is not None
    array = values if colour else values.reshape(volume.shape)
    checked = volume_from_array(
        array, volume.spacing_mm, volume.origin_mm, volume.name, colour=colour
    )
    return replace(volume, array=checked.array, colour=checked.colour, path=None, series=None)


def _spacing(layer: Layer) -> tuple[tuple[float, ...], bool]:
    """Return the spacing along (S, P, L), and whether it is in mm.

    A layer in pixels of size 1 has no known spacing; any other scale is taken as mm.
    """
    volume = volume_of(layer)
    if volume is not None:
        return volume.spacing_mm, volume.spacing_known
    scale = tuple(abs(float(value)) for value in layer.scale)
    known = str(layer.units[-1]) != "pixel" or any(value != 1 for value in scale)
    return (1.0,) * (3 - len(scale)) + scale, known


def layer_size_unit(layer: Image) -> SizeUnit:
    """Return the unit for sizes of findings in a 2D or 3D layer."""
    from napari_dino_uad.core.maps.findings import SizeUnit

    spacing, known = _spacing(layer)
    return SizeUnit.of(spacing, layer.ndim == 2 or layer.data.shape[0] == 1, known)


def layer_geometry(scan: Layer) -> dict[str, Any]:
    """Return the keywords that place a new layer on a scan, voxel on voxel."""
    ndim = scan.ndim
    _, known = _spacing(scan)
    return {
        "scale": scan.scale,
        "translate": scan.translate,
        "rotate": scan.rotate,
        "shear": scan.shear,
        "units": (UNITS,) * ndim if known and str(scan.units[-1]) == "pixel" else scan.units,
        "axis_labels": (AXIS_LABELS if known else PIXEL_AXIS_LABELS)[-ndim:],
    }


def scan_shape(layer: Layer) -> tuple[int, ...]:
    """Return the shape of a layer in voxels, without the colours of a picture."""
    return tuple(layer.data.shape[: layer.ndim])


def slice_index(viewer: Viewer, layer: Layer, axis: int) -> int:
    """Return the slice of a layer that is on screen along one of its axes."""
    position = layer.world_to_data(viewer.dims.point[-layer.ndim :])
    count = layer.data.shape[axis]
    return int(np.clip(round(float(position[axis])), 0, count - 1))


def cut_colormap(limits: tuple[float, float], threshold: float, colours: str) -> Colormap:
    """Make a colormap that is transparent below a threshold, and more opaque the higher the score.

    A colour means the same score in all scans of a model. The threshold only moves the score at
    which the heat begins. The brightest and the darkest colours are left out, so that heat stands
    out from white and from black.

    Parameters
    ----------
    limits : tuple of float
        Scores of the first and the last colour.
    threshold : float
        Score at which the heat begins.
    colours : str
        Name of one of napari's colormaps, even in brightness.
    """
    from napari.utils.colormaps import Colormap, ensure_colormap

    position = np.linspace(0, 1, 256)
    low, high = _COLOUR_RANGE
    shown = low + (high - low) * position
    table: NDArray[np.float32] = ensure_colormap(colours).map(shown).astype(np.float32)
    cut = (threshold - limits[0]) / (limits[1] - limits[0])
    rise = np.clip((position - cut) / max(1 - cut, 1e-6), 0, 1)
    # The first colour is that of all scores below the scale, air included: never shown.
    above = (position > cut) & (position > 0)
    table[:, 3] = np.where(above, _LOWEST_ALPHA + rise * (_HIGHEST_ALPHA - _LOWEST_ALPHA), 0.0)
    return Colormap(table, name=f"{colours} above threshold")


def outline_colormap(faint: Collection[int] = ()) -> CyclicLabelColormap:
    """Make the colours of the findings' outlines; background is transparent.

    Parameters
    ----------
    faint : collection of int
        Labels whose outlines are grey and faint: those of rejected findings.
    """
    from napari.utils.colormaps import CyclicLabelColormap

    colours = [(0.0, 0.0, 0.0, 0.0), *((*colour, 1.0) for colour in _OUTLINES)]
    if faint:
        # One colour for each label, since those of a kind differ now.
        count = len(_OUTLINES)
        colours += [colours[1 + label % count] for label in range(count, MOST_FINDINGS)]
        for label in faint:
            colours[label] = _FAINT
    return CyclicLabelColormap(
        np.array(colours, dtype=np.float32),
        name="outlines of findings",
        controls=np.linspace(0, 1, len(colours) + 1),
        interpolation="zero",
        background_value=0,
    )
