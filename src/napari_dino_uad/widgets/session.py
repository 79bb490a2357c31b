"""What the widgets of one window share: loaded models and backbones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones import Backbone
    from napari_dino_uad.core.model import FittedModel

__all__ = ["Session", "session"]


class Session(QObject):
    """Models and backbones that are open in this napari.

    Signals
    -------
    model_added : str
        Name of a model that was fitted or loaded.
    """

    model_added = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, FittedModel] = {}
        self._backbones: dict[tuple[str, str | None], Backbone] = {}

    def add_model(self, name: str, model: FittedModel) -> str:
        """Add a model under a name that is free, and return that name."""
        unique, number = name, 2
        while unique in self.models and self.models[unique] is not model:
            unique, number = f"{name} ({number})", number + 1
        self.models[unique] = model
        self.model_added.emit(unique)
        return unique

    def backbone(self, key: str, weights: Path | None = None) -> Backbone:
        """Return a backbone, loaded once. Called in worker threads: loading takes seconds."""
        from napari_dino_uad.core.backbones import load_backbone

        name = (key, None if weights is None else str(weights))
        if name not in self._backbones:
            self._backbones[name] = load_backbone(key, weights)
        return self._backbones[name]


_SESSION: Session | None = None


def session() -> Session:
    """Return the session of this process, made when it is first asked for."""
    global _SESSION
    if _SESSION is None:
        _SESSION = Session()
    return _SESSION
