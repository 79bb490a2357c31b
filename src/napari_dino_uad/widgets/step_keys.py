"""Keys of a viewer that step through something, while a dock is open."""

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

__all__ = ["StepKeys"]

_STEPS = {"N": 1, "P": -1}


class StepKeys:
    """Binds two keys in the canvas and in a dock; text fields keep the letters.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.
    dock : QWidget
        Where the keys work too.
    step : callable
        Called with 1 or -1.
    keys : mapping of str to int
        The step of each key, named as napari does.
    """

    def __init__(
        self,
        viewer: Viewer,
        dock: QWidget,
        step: Callable[[int], None],
        keys: Mapping[str, int] = _STEPS,
    ) -> None:
        self._keys = dict(keys)
        self._viewer = weakref.ref(viewer)
        self._layers: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._step = step
        self._bind(viewer)
        for key, by in self._keys.items():
            shortcut = QShortcut(QKeySequence(key.replace("-", "+")), dock)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(lambda by=by: step(by))

    def bind_layer(self, layer: Layer | None) -> None:
        """Bind the keys on the findings layer too: napari paints with P there, as with 2."""
        if layer is not None and layer not in self._layers:
            self._layers.add(layer)
            self._bind(layer)

    def release(self) -> None:
        """Take the keys away."""
        viewer = self._viewer()
        for owner in (*self._layers, *(() if viewer is None else (viewer,))):
            for key in self._keys:
                owner.bind_key(key, None, overwrite=True)
        self._layers.clear()

    def _bind(self, owner: Any) -> None:
        for key, by in self._keys.items():
            owner.bind_key(key, self._action(by), overwrite=True)

    def _action(self, by: int) -> Callable[[Any], None]:
        def act(_: Any) -> None:
            self._step(by)

        return act
