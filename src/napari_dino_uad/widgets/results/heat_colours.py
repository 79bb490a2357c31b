"""The colours of the heat, which change with every movement of the threshold."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from napari_dino_uad.widgets.results.colour_bar import drawn_bar

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.utils.colormaps import Colormap
    from napari.viewer import Viewer

__all__ = ["paint_heat"]

_log = logging.getLogger(__name__)

_TABLE = "texture2D_LUT"


def paint_heat(viewer: Viewer, heat: Image, colormap: Colormap, *, briefly: bool = False) -> bool:
    """Give the heat other colours in place; return whether napari was told of them.

    For a new colormap napari would make another entry in its list of colormaps, and draw twice.

    Parameters
    ----------
    viewer : Viewer
    heat : Image
    colormap : Colormap
        With as many colours as the heat has now.
    briefly : bool
        Whether other colours follow soon. Then only the tables of what is on screen are replaced:
        napari would build the shaders of heat and colour bar anew, which takes longer than a frame.
    """
    heat.colormap.colors = colormap.colors
    if briefly and _replace_tables(viewer, heat):
        return False
    heat.events.colormap()
    return True


def _replace_tables(viewer: Viewer, heat: Image) -> bool:
    """Replace the colours of the heat and its bar as they are drawn; return whether that worked."""
    window = getattr(viewer, "window", None)
    if window is None:
        return False
    try:
        from napari.utils.colormaps.colormap_utils import _napari_cmap_to_vispy

        nodes: list[Any] = [window._qt_viewer.canvas.layer_to_visual[heat].node]
        bar = drawn_bar(viewer, heat)
        if bar is not None:
            nodes.append(bar.node.img)
        colours = _napari_cmap_to_vispy(heat.colormap)
        tables = [_table(node) for node in nodes]
        if any(table is None for table in tables):
            # Not drawn yet.
            return False
        for node, table in zip(nodes, tables, strict=True):
            table.set_data(colours.texture_map_data)
            node._cmap = colours
            node.update()
    except Exception:  # noqa: BLE001 - another napari may draw its layers otherwise
        _log.debug("the heat is drawn anew at each movement", exc_info=True)
        return False
    return True


def _table(node: Any) -> Any:
    """Return the texture with the colours of an image as drawn; None before its first drawing."""
    if node._need_colortransform_update:
        return None
    return node.view_program[_TABLE]
