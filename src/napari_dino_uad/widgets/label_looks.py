"""How labels from files are shown: our results by their kind, masks each in a colour of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils.colormaps import CyclicLabelColormap

__all__ = ["look_of_labels", "recolour_mask"]

Colour = tuple[float, float, float]

# Endings of names that `detect` gives its results.
_FINDINGS, _TISSUE, _COMPONENTS = "_findings", "_tissue", "_components"

# Tissue covers most of a scan, and components all of it.
_TISSUE_COLOUR, _TISSUE_OPACITY, _COMPONENTS_OPACITY = (0.25, 0.75, 0.6), 0.25, 0.4

# Those of the outlines of findings but white, which would not show when filled.
_FINDINGS_COLOURS = ((0.0, 0.9, 1.0), (0.35, 1.0, 0.35), (0.35, 0.55, 1.0), (0.8, 0.5, 1.0))

# Colours that neither the heat nor the findings have.
_MASKS = (
    (1.0, 0.3, 0.8),
    (0.6, 0.9, 0.1),
    (0.75, 0.5, 0.35),
    (0.55, 0.6, 0.9),
    (0.95, 0.75, 0.7),
    (0.45, 0.55, 0.2),
)
_NAMES = [f"mask {number + 1}" for number in range(len(_MASKS))]


def look_of_labels(name: str, labels: NDArray[Any]) -> dict[str, Any]:
    """Return keywords of a labels layer by which it is told from others.

    Parameters
    ----------
    name : str
        Of the file, without its ending.
    labels : ndarray
        The labels. A mask, which has a single one, gets the first colour for masks.
    """
    lowered = name.lower()
    if lowered.endswith(_FINDINGS):
        return {"colormap": _cycle(_FINDINGS_COLOURS, "findings")}
    if lowered.endswith(_COMPONENTS):
        return {"opacity": _COMPONENTS_OPACITY}
    values = np.unique(labels)
    if len(values[values != 0]) != 1:
        return {}
    if lowered.endswith(_TISSUE):
        return {"colormap": _cycle([_TISSUE_COLOUR], "tissue"), "opacity": _TISSUE_OPACITY}
    return {"colormap": _of_mask(0)}


def recolour_mask(keywords: dict[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
    """Give a mask the colour that fewest labels layers have.

    Parameters
    ----------
    keywords : dict
        Of a new layer; returned as they are if it is no mask.
    layers : iterable of Layer
        The layers of the viewer.
    """
    if getattr(keywords.get("colormap"), "name", None) not in _NAMES:
        return keywords
    taken = [getattr(getattr(layer, "colormap", None), "name", None) for layer in layers]
    counts = [taken.count(name) for name in _NAMES]
    return keywords | {"colormap": _of_mask(counts.index(min(counts)))}


def _of_mask(number: int) -> CyclicLabelColormap:
    """Return colours that begin with another one for each mask, whatever its label is."""
    return _cycle([*_MASKS[number:], *_MASKS[:number]], _NAMES[number])


def _cycle(colours: Sequence[Colour], name: str) -> CyclicLabelColormap:
    from napari.utils.colormaps import CyclicLabelColormap

    table = [(0.0, 0.0, 0.0, 0.0), *((*colour, 1.0) for colour in colours)]
    return CyclicLabelColormap(
        np.array(table, dtype=np.float32),
        name=name,
        controls=np.linspace(0, 1, len(table) + 1),
        interpolation="zero",
        background_value=0,
    )
