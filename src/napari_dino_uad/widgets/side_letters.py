"""Letters for the patient's sides along the edges of napari's canvas."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari_dino_uad.layer_data import AXIS_LABELS
from napari_dino_uad.widgets.per_viewer import PerViewer

if TYPE_CHECKING:
    from napari.components.overlays import TextOverlay
    from napari.viewer import Viewer

__all__ = ["LETTER_COLOUR", "SideLetters", "side_letters_of"]

#: Red, green and blue from 0 to 1; legible on grey anatomy and on heat.
LETTER_COLOUR = (1.0, 0.92, 0.31)
# The canvas is white in napari's light theme.
_BOX_COLOUR = (0.0, 0.0, 0.0, 0.5)

# The side at which each axis begins; it ends at the side it is named after.
_BEGINS_AT = dict(zip(AXIS_LABELS, ("I", "A", "R"), strict=True))
_EDGES = ("top_center", "bottom_center", "middle_left", "middle_right")
_SIZE = 12


class SideLetters:
    """Keeps a letter at each edge of the canvas, whatever turns, flips or transposes the picture.

    They are overlays of napari's own, so its screenshots show them, and a grid has them in every
    cell. There are none in 3D and for images that have no patient's axes.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.
    """

    def __init__(self, viewer: Viewer) -> None:
        from napari.components.overlays import TextOverlay

        self._viewer = weakref.ref(viewer)
        self._letters: list[TextOverlay] = []
        for edge in _EDGES:
            letter = TextOverlay(
                position=edge,
                color=LETTER_COLOUR,
                box_color=_BOX_COLOUR,
                font_size=_SIZE,
                gridded=True,
            )
            viewer.canvas.overlays[f"napari_dino_uad_{edge}"] = letter
            self._letters.append(letter)
        dims = viewer.dims.events
        layers = viewer.layers.events
        for event in (dims.order, dims.ndisplay, dims.axis_labels, layers.inserted, layers.removed):
            event.connect(self._on_change)
        viewer.scene.camera.events.orientation.connect(self._on_change)
        self._on_change()

    @property
    def shown(self) -> tuple[str, ...]:
        """Letters at the upper, lower, left and right edge; empty without any."""
        return tuple(letter.text for letter in self._letters if letter.visible)

    def _on_change(self, _: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        texts = _sides(viewer)
        for letter, text in zip(self._letters, texts or ("",) * len(_EDGES), strict=True):
            letter.text, letter.visible = text, bool(text)


def _sides(viewer: Viewer) -> tuple[str, ...] | None:
    """Return the sides at the upper, lower, left and right edge, or None where there are none."""
    dims = viewer.dims
    if dims.ndisplay != 2 or not viewer.layers:
        return None
    down, right = (dims.axis_labels[axis] for axis in dims.displayed)
    if not {down, right} <= set(AXIS_LABELS):
        return None
    vertical, horizontal = (str(one) for one in viewer.scene.camera.orientation2d)
    height, width = (_BEGINS_AT[down], down), (_BEGINS_AT[right], right)
    return (
        *(reversed(height) if vertical == "up" else height),
        *(reversed(width) if horizontal == "left" else width),
    )


_LETTERS = PerViewer(SideLetters)


def side_letters_of(viewer: Viewer) -> SideLetters:
    """Return the letters of a viewer; they are made at the first call."""
    return _LETTERS(viewer)
