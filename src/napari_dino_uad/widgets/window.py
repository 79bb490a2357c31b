"""The window of napari: dialogs lie over it, and its viewer gets what all docks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QApplication, QDialog, QMainWindow

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["in_theme", "main_window"]


def main_window(viewer: Viewer | None = None) -> QMainWindow | None:
    """Return the window of a viewer if it is on screen, or None.

    Parameters
    ----------
    viewer : Viewer, optional
        The current one if not given.
    """
    import napari

    if QApplication.instance() is None:
        return None
    viewer = viewer or napari.current_viewer()
    # napari has no public name for it.
    window = getattr(getattr(viewer, "window", None), "_qt_window", None)
    try:
        return window if window is not None and window.isVisible() else None
    except RuntimeError:
        # Qt has deleted the window.
        return None


def in_theme(dialog: QDialog) -> QDialog:
    """Give a dialog without a parent the theme of napari; one with a parent has it already."""
    if dialog.parentWidget() is None:
        from napari.qt import get_current_stylesheet

        dialog.setStyleSheet(get_current_stylesheet())
    return dialog
