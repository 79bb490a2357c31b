"""napari's colour bar beside the heat, labelled in false-positive rates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

__all__ = ["TITLE", "drawn_bar", "show_bar"]

_log = logging.getLogger(__name__)

_SIZE = (14, 130)
#: What the labels count, along the bar.
TITLE = "False alarms"
_TITLE_GAP = 5


def show_bar(viewer: Viewer, layer: Image, ticks: Sequence[tuple[float, str]]) -> None:
    """Show the colour bar of a layer; napari has one from 0.9 on.

    Parameters
    ----------
    viewer : Viewer
    layer : Image
        In the viewer.
    ticks : sequence of (float, str)
        Scores and their labels. napari labels its bars with scores only, so the labels are given to
        the drawn bar; if this napari draws it otherwise, the bar shows scores.
    """
    bar = getattr(layer, "colorbar", None)
    if bar is None:
        return
    if not bar.visible:
        bar.size = _SIZE
        bar.visible = True
    try:
        drawn = drawn_bar(viewer, layer)
        if drawn is not None and ticks:
            ticker = drawn.node.ticks.ticker
            ticker._get_tick_frac_labels = partial(_places, ticker.axis, ticks)
            _entitle(drawn)
            drawn._on_ticks_change()
    except Exception:  # noqa: BLE001 - another napari may draw its bars otherwise
        _log.debug("the colour bar keeps its scores", exc_info=True)


def _entitle(drawn: Any) -> None:
    """Write along a bar what its labels count; napari's bars have no title.

    The bar moves aside for it, so that the box behind the bar, which napari sizes by the labels, is
    behind the title too.
    """
    from napari._vispy.visuals.text import Text

    node = drawn.node
    if any(isinstance(child, Text) for child in node.children):
        return
    title = Text(
        TITLE,
        rotation=-90,
        anchor_x="center",
        anchor_y="top",
        font_info=drawn._font_info,
        parent=node,
    )
    lay_out = node.set_ticks_and_get_text_size

    def lay_out_titled(**style: Any) -> tuple[float, float]:
        width, line = lay_out(**style)
        title.color, title.font_size = style["color"], style["font_size"]
        aside = line + _TITLE_GAP
        for visual in (node.img, node.box, node.ticks):
            visual.transform.translate = (aside, visual.transform.translate[1])
        title.pos = (line, style["font_size"] / 2 + _SIZE[1] / 2)
        return width + aside, line

    node.set_ticks_and_get_text_size = lay_out_titled


def drawn_bar(viewer: Viewer, layer: Image) -> Any:
    """Return what napari draws the colour bar of a layer with; None without a window or a bar."""
    window, bar = getattr(viewer, "window", None), getattr(layer, "colorbar", None)
    if window is None or bar is None or not bar.visible:
        return None
    drawn = window._qt_viewer.canvas._layer_overlay_to_visual[layer][bar]
    return drawn[0] if isinstance(drawn, list) else drawn


def _places(axis: Any, ticks: Sequence[tuple[float, str]]) -> tuple[Any, Any, list[str]]:
    """Return the places of the labels as shares of an axis, no minor ticks, and the labels."""
    low, high = axis.domain
    places = np.array([(score - low) / (high - low) for score, _ in ticks])
    inside = (places > -1e-3) & (places < 1 + 1e-3)
    labels = [label for (_, label), keep in zip(ticks, inside, strict=True) if keep]
    return np.clip(places[inside], 0, 1), np.array([]), labels
