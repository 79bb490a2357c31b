"""Commands of napari's menus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_dino_uad.widgets.docks import dock_of

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtWidgets import QWidget

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
    title, kind = _contribution(name)
    widget = _docked(viewer, kind)
    if widget is None:
        widget = kind(viewer)
        # As napari's own menu names it, which then finds it again.
        viewer.window.add_dock_widget(widget, name=title)
    dock = dock_of(widget)
    if dock is not None:
        dock.show()
        dock.raise_()
    return widget


def _contribution(name: str) -> tuple[str, type[QWidget]]:
    """Return the title of a dock in napari's menu, and the class of its widget."""
    from npe2 import PluginManager

    manager = PluginManager.instance()
    manifest = manager.get_manifest(_PLUGIN)
    widget = next(one for one in manifest.contributions.widgets or [] if one.display_name == name)
    kind: Any = manager.commands.get(widget.command)
    return f"{name} ({manifest.display_name})", kind


def _docked(viewer: Viewer, kind: type[QWidget]) -> Any:
    """Return the widget of this class that is docked in a window, however it was opened."""
    found = viewer.window._qt_window.findChildren(kind)
    return next((one for one in found if dock_of(one) is not None), None)


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
