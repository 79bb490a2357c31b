"""The Findings widget."""

from __future__ import annotations

from napari_dino_uad.widgets.findings.widget import FindingsWidget

__all__ = ["FindingsWidget"]
