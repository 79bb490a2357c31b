"""Picks places of a scan by mouse."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_dino_uad.widgets.layers import scan_shape

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["Pointer", "is_painting", "voxel_at"]

_LEFT = 1
_CANVAS_STILL = 3.0


class Pointer(QObject):
    """Tells where the user clicks on the canvas; a drag or a stroke of the brush is no click.

    Parameters
    ----------
    viewer : Viewer
    parent : QObject

    Signals
    -------
    picked : tuple of float
        World position of a click.
    """

    picked = Signal(object)

    def __init__(self, viewer: Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer

    @property
    def on(self) -> bool:
        """Whether clicks are watched."""
        return self._on_press in self._viewer.mouse_drag_callbacks

    @on.setter
    def on(self, value: bool) -> None:
        callbacks = self._viewer.mouse_drag_callbacks
        if value and not self.on:
            callbacks.append(self._on_press)
        elif not value and self.on:
            callbacks.remove(self._on_press)

    def _on_press(self, viewer: Viewer, event: Any) -> Generator[None, None, None]:
        if event.button != _LEFT or event.modifiers or viewer.dims.ndisplay != 2:
            return
        if is_painting(viewer):
            return
        position, begun = tuple(event.position), tuple(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        moved = max(abs(a - b) for a, b in zip(event.pos, begun, strict=True))
        if moved <= _CANVAS_STILL:
            self.picked.emit(position)


def is_painting(viewer: Viewer) -> bool:
    """Return whether a drag on the canvas paints labels."""
    active = viewer.layers.selection.active
    return isinstance(active, Labels) and active.mode not in ("pan_zoom", "transform")


def voxel_at(layer: Layer, world: tuple[float, ...]) -> tuple[int, int, int] | None:
    """Return the voxel (S, P, L) of a layer at a world position; None outside."""
    position = layer.world_to_data(world[-layer.ndim :])
    index = tuple(round(float(value)) for value in position)
    if any(not 0 <= i < n for i, n in zip(index, scan_shape(layer), strict=True)):
        return None
    full = (0,) * (3 - len(index)) + index
    return full[0], full[1], full[2]
