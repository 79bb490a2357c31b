"""The results of a viewer: what all docks show of them is read from here."""

from __future__ import annotations

from napari_dino_uad.widgets.results.store import Results, results_of

__all__ = ["Results", "results_of"]
