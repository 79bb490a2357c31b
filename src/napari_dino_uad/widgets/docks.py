"""Docks of this plugin share one place: they are tabs, not stacked."""

from __future__ import annotations

from qtpy.QtWidgets import QDockWidget, QMainWindow, QTabWidget, QWidget

__all__ = ["dock_of", "tabify"]

# Shorter names on tabs.
_TABS = {"Three planes": "Planes"}
# Tabs below a dock that can be read whole; more of them stand beside it.
_MOST_BELOW = 4


def dock_of(widget: QWidget) -> QDockWidget | None:
    """Return the dock that a widget is in, or None."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


def tabify(widget: QWidget, kind: type[QWidget]) -> bool:
    """Make the dock of a widget a tab beside another dock of ours in the same area.

    Parameters
    ----------
    widget : QWidget
        Content of the dock.
    kind : type
        Class of the content of our docks.

    Returns
    -------
    bool
        Whether there was another dock.
    """
    dock = dock_of(widget)
    if dock is not None:
        # A tab has no room for the name of the plugin, which napari adds.
        name = dock.windowTitle().partition(" (")[0]
        dock.setWindowTitle(_TABS.get(name, name))
    window = None if dock is None else dock.parentWidget()
    if dock is None or not isinstance(window, QMainWindow) or dock.isFloating():
        return False
    area = window.dockWidgetArea(dock)
    for other in window.findChildren(QDockWidget):
        ours = other is not dock and other.findChild(kind) is not None
        if ours and not other.isFloating() and window.dockWidgetArea(other) == area:
            # Already a tab: the user may have arranged them.
            if other not in window.tabifiedDockWidgets(dock):
                window.tabifyDockWidget(other, dock)
            _place_tabs(window, dock)
            dock.show()
            dock.raise_()
            return True
    return False


def _place_tabs(window: QMainWindow, dock: QDockWidget) -> None:
    """Put the tabs of a dock where all their names can be read."""
    place = QTabWidget.TabPosition
    many = len(window.tabifiedDockWidgets(dock)) + 1 > _MOST_BELOW
    window.setTabPosition(window.dockWidgetArea(dock), place.East if many else place.South)
