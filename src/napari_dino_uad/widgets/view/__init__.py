"""The View widget: contrast, planes and how scans are opened."""

from __future__ import annotations

from napari_dino_uad.widgets.view.widget import ViewWidget

__all__ = ["ViewWidget"]
