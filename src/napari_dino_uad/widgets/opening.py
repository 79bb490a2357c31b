"""What follows when our reader has opened a scan in a window."""

from __future__ import annotations

from qtpy.QtCore import QTimer

__all__ = ["after_opening"]


def after_opening() -> None:
    """Prepare the viewer after napari has added the layer: the status bar, the planes, an offer."""
    QTimer.singleShot(0, _prepare)


def _prepare() -> None:
    import napari

    from napari_dino_uad.widgets.default_reader import offer_default
    from napari_dino_uad.widgets.results.store import results_of

    viewer = napari.current_viewer()
    if viewer is None:
        return
    results_of(getattr(viewer, "__wrapped__", viewer))
    offer_default()
