"""The Fit widget: healthy scans give a model of what is normal."""

from __future__ import annotations

from napari_dino_uad.widgets.fit.widget import FitWidget

__all__ = ["FitWidget"]
