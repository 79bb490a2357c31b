"""Commands of napari's menus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["ask_detect", "open_detect", "open_dock", "open_fit"]

_PLUGIN = "napari-dino-uad"


def open_dock(viewer: Viewer, name: str) -> Any:
    """Open a dock of this plugin, or bring it to the front; return its widget.

    Parameters
    ----------
    viewer : Viewer
        With a window.
    name : str
        As in `napari.yaml`, such as "Detect".
    """
    dock, widget = viewer.window.add_plugin_dock_widget(_PLUGIN, name)
    dock.show()
    dock.raise_()
    return widget


def open_detect(viewer: Viewer) -> None:
    """Open Detect."""
    open_dock(viewer, "Detect")


def open_fit(viewer: Viewer) -> None:
    """Open Fit."""
    open_dock(viewer, "Fit")


def ask_detect(viewer: Viewer) -> None:
    """Detect on the scan chosen, opening the dock if it is closed."""
    if hasattr(viewer, "window"):
        open_dock(viewer, "Detect").detect()
