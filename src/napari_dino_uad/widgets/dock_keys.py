"""Keys of a viewer that belong to a dock, while it is open."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut, QWidget

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["DockKeys"]

# What napari names otherwise than Qt.
_IN_QT = {"Control": "Ctrl"}
# Bound on every findings layer already, whether the dock is open or not.
_UNDO = ("Control-Z", "Control-Shift-Z")


class DockKeys:
    """Binds keys in the canvas and in a dock; text fields keep the letters.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.
    dock : QWidget
        Where the keys work too.
    actions : mapping of str to callable
        What each key does, named as napari does.
    """

    def __init__(
        self, viewer: Viewer, dock: QWidget, actions: Mapping[str, Callable[[], Any]]
    ) -> None:
        self._actions = dict(actions)
        self._viewer = weakref.ref(viewer)
        self._layers: weakref.WeakSet[Layer] = weakref.WeakSet()
        for key, action in self._actions.items():
            _bind(viewer, key, action)
            names = [_IN_QT.get(part, part) for part in key.split("-")]
            shortcut = QShortcut(QKeySequence("+".join(names)), dock)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(action)

    def bind_layer(self, layer: Layer | None) -> None:
        """Bind the keys on the findings layer too: napari paints with P there, as with 2."""
        if layer is not None and layer not in self._layers:
            self._layers.add(layer)
            for key in self._on_layers():
                _bind(layer, key, self._actions[key])

    def release(self) -> None:
        """Take the keys away."""
        viewer = self._viewer()
        bound: list[tuple[Any, str]] = [
            (layer, key) for layer in self._layers for key in self._on_layers()
        ]
        if viewer is not None:
            bound += [(viewer, key) for key in self._actions]
        for owner, key in bound:
            owner.bind_key(key, None, overwrite=True)
        self._layers.clear()

    def _on_layers(self) -> list[str]:
        return [key for key in self._actions if key not in _UNDO]


def _bind(owner: Any, key: str, action: Callable[[], Any]) -> None:
    owner.bind_key(key, lambda _: action(), overwrite=True)
