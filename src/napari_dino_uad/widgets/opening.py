"""What follows when our reader has opened a scan in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["after_opening"]


def after_opening() -> None:
    """Prepare the viewer after napari has added the layer: the status bar, the planes, an offer."""
    QTimer.singleShot(0, _prepare)


def _prepare() -> None:
    import napari

    from napari_dino_uad.widgets.default_reader import offer_default
    from napari_dino_uad.widgets.results.store import results_of
    from napari_dino_uad.widgets.shortcuts import detect_if_wanted

    viewer = napari.current_viewer()
    if viewer is None:
        return
    viewer = getattr(viewer, "__wrapped__", viewer)
    results_of(viewer)
    _show_scale_bar(viewer)
    detect_if_wanted(viewer)
    offer_default()


def _show_scale_bar(viewer: Viewer) -> None:
    """Show the scale bar with the first scan in mm; later it is the user's."""
    from napari_dino_uad.widgets.layers import is_scan_layer

    scans = [layer for layer in viewer.layers if is_scan_layer(layer)]
    if len(scans) != 1 or str(scans[0].units[-1]) == "pixel":
        return
    viewer.canvas.overlays.scale_bar.visible = True
