"""Keys that work wherever the focus is in the window."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut

from napari_dino_uad.widgets.settings import setting

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["DETECT_KEYS", "bind_window", "detect_if_wanted"]

#: Keys for Detect.
DETECT_KEYS = "Ctrl+Shift+D"
_NAME = "napari_dino_uad detect"


def bind_window(viewer: Viewer) -> bool:
    """Bind the keys for Detect in the window of a viewer, once.

    Returns
    -------
    bool
        Whether the viewer has a window.
    """
    window = getattr(getattr(viewer, "window", None), "_qt_window", None)
    if window is None:
        return False
    if window.findChild(QShortcut, _NAME) is None:
        shortcut = QShortcut(QKeySequence(DETECT_KEYS), window)
        shortcut.setObjectName(_NAME)
        shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
        shortcut.setAutoRepeat(False)
        kept = weakref.ref(viewer)
        shortcut.activated.connect(lambda: _detect(kept()))
    return True


def detect_if_wanted(viewer: Viewer) -> None:
    """Detect on a scan that was just opened, if the user wants that; open the dock for it."""
    from napari_dino_uad.widgets.commands import open_dock

    if not setting("detect_on_opening") or not bind_window(viewer):
        return
    widget = open_dock(viewer, "Detect")
    # A dock that was open has seen the scan itself.
    if not widget.busy:
        widget.detect()


def _detect(viewer: Viewer | None) -> None:
    from napari_dino_uad.widgets.commands import ask_detect

    if viewer is not None:
        ask_detect(viewer)
