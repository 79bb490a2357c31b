"""The Detect widget: a scan and a model give a heatmap and findings."""

from __future__ import annotations

from napari_dino_uad.widgets.detect.widget import DetectWidget

__all__ = ["DetectWidget"]
