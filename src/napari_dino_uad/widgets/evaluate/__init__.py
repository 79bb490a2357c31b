"""The Evaluate widget: a model against lesion masks, on the scan shown or on a folder."""

from __future__ import annotations

from napari_dino_uad.widgets.evaluate.widget import EvaluateWidget

__all__ = ["EvaluateWidget"]
