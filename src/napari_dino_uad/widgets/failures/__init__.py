"""The Failures widget: the cases of an evaluation, and where the model failed in them."""

from __future__ import annotations

from napari_dino_uad.widgets.failures.widget import FailuresWidget

__all__ = ["FailuresWidget"]
