"""The widget with three planes of the scan at once."""

from __future__ import annotations

from napari_dino_uad.widgets.planes.widget import ThreePlanesWidget

__all__ = ["ThreePlanesWidget"]
