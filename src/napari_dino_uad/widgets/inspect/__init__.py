"""The Inspect widget: why a place of a scan is marked, or is not."""

from __future__ import annotations

from napari_dino_uad.widgets.inspect.widget import InspectWidget

__all__ = ["InspectWidget"]
