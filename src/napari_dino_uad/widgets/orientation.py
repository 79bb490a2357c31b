"""Planes of a scan in napari's canvas: head up or front up, the patient's right on the left."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_dino_uad.layer_data import AXIS_LABELS, PIXEL_AXIS_LABELS
from napari_dino_uad.widgets.per_viewer import PerViewer
from napari_dino_uad.widgets.side_letters import side_letters_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["PLANES", "Orientation", "Plane", "orientation_of", "show_plane", "shown_plane"]


@dataclass(frozen=True)
class Plane:
    """A plane through a scan with axes (S, P, L).

    Attributes
    ----------
    name : str
    across, down, right : int
        Axis through the plane, axis along the screen's height and along its width.
    upwards : bool
        Whether the axis along the height grows upwards.
    edges : tuple of str
        Sides of the patient at the left, right, upper and lower edge of the picture.
    """

    name: str
    across: int
    down: int
    right: int
    upwards: bool
    edges: tuple[str, str, str, str]


#: Their order is that of the axis across.
PLANES = (
    Plane("Axial", 0, 1, 2, False, ("R", "L", "A", "P")),
    Plane("Coronal", 1, 0, 2, True, ("R", "L", "S", "I")),
    Plane("Sagittal", 2, 0, 1, True, ("A", "P", "S", "I")),
)

# What rolling the axes of the coronal plane gives.
_ROLLED_CORONAL = (2, 1, 0)


def is_canonical(viewer: Viewer) -> bool:
    """Return whether the last three axes of a viewer run (S, P, L), or are taken to do so."""
    labels = tuple(viewer.dims.axis_labels)[-3:]
    return viewer.dims.ndim >= 3 and labels in (AXIS_LABELS, PIXEL_AXIS_LABELS)


def shown_plane(viewer: Viewer) -> Plane | None:
    """Return the plane on screen; None in 3D and for axes that are not a patient's."""
    dims = viewer.dims
    if dims.ndisplay != 2 or not is_canonical(viewer):
        return None
    shown = {axis - (dims.ndim - 3) for axis in dims.displayed}
    return next((one for one in PLANES if {one.down, one.right} == shown), None)


def show_plane(viewer: Viewer, plane: Plane) -> None:
    """Show a plane through the present place, and fit it to the canvas."""
    dims = viewer.dims
    if dims.ndim < 3:
        return
    first = dims.ndim - 3
    order = (*range(first), *(first + one for one in (plane.across, plane.down, plane.right)))
    dims.ndisplay = 2
    dims.order = order
    _turn(viewer, plane)
    viewer.reset_view()


def _turn(viewer: Viewer, plane: Plane) -> None:
    viewer.scene.camera.orientation2d = ("up" if plane.upwards else "down", "right")


class Orientation:
    """Keeps a viewer's planes upright, whatever changes the order of its axes, and names the sides.

    After a change to another plane, by napari's own button for instance, the axes are put in
    their order on screen and the camera turned. The order of a user who transposes the plane that
    is shown is left alone.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = weakref.ref(viewer)
        self._shown: Plane | None = None
        self._busy = False
        side_letters_of(viewer)
        viewer.dims.events.order.connect(self._on_change)
        viewer.dims.events.ndisplay.connect(self._on_change)
        viewer.dims.events.axis_labels.connect(self._on_change)
        self._on_change()

    def _on_change(self, _: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None or self._busy:
            return
        plane = shown_plane(viewer)
        if plane is self._shown:
            return
        axes = tuple(axis - (viewer.dims.ndim - 3) for axis in viewer.dims.order[-3:])
        if self._shown is PLANES[1] and axes == _ROLLED_CORONAL:
            # napari's button rolls axes, and would never come back from here to the first plane.
            plane = PLANES[0]
        self._shown = plane
        if plane is None:
            viewer.scene.camera.orientation2d = ("down", "right")
            return
        first = viewer.dims.ndim - 3
        order = (*range(first), *(first + one for one in (plane.across, plane.down, plane.right)))
        self._busy = True
        try:
            if tuple(viewer.dims.order) != order:
                viewer.dims.order = order
            _turn(viewer, plane)
        finally:
            self._busy = False


_ORIENTATIONS = PerViewer(Orientation)


def orientation_of(viewer: Viewer) -> Orientation:
    """Return what keeps the planes of a viewer upright; it is made at the first call."""
    return _ORIENTATIONS(viewer)
