"""The one-page report on a scan."""

from __future__ import annotations

from napari_dino_uad.core.report.page import CaseFacts, render_report, write_report

__all__ = ["CaseFacts", "render_report", "write_report"]
