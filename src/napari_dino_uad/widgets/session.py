"""What the widgets of one window share: loaded models and backbones."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_dino_uad.core.progress import Progress

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
        self._loaded: dict[tuple[str, Path | None], Backbone] = {}
        self._placed: dict[tuple[str, Path | None, int], Backbone] = {}
        self._placing = threading.Lock()

    def add_model(self, name: str, model: FittedModel) -> str:
        """Add a model under a name that is free, and return that name."""
        unique, number = name, 2
        while unique in self.models and self.models[unique] is not model:
            unique, number = f"{name} ({number})", number + 1
        self.models[unique] = model
        self.model_added.emit(unique)
        return unique

    def backbone(
        self, key: str, weights: Path | None = None, input_size: int | None = None
    ) -> Generator[Progress, None, Backbone]:
        """Load a backbone and find the engine that runs it, each once.

        Run in worker threads: it takes seconds.

        Parameters
        ----------
        key : str
            The backbone.
        weights : Path, optional
            A file of weights.
        input_size : int, optional
            Shorter edge of the input in pixels; the backbone's own if not given.

        Yields
        ------
        Progress
            The last one with a note on what runs where.

        Returns
        -------
        Backbone
        """
        from napari_dino_uad.core.backbones import backbone_spec, load_backbone
        from napari_dino_uad.core.engine_choice import choose_engine, describe_place

        waiting = Progress("Loading the backbone", 0, 1, key)
        yield waiting
        name = (key, weights)
        place = (*name, input_size or backbone_spec(key).input_size)
        # Two widgets that measure beside each other would measure each other.
        while not self._placing.acquire(timeout=0.1):
            yield waiting
        try:
            if name not in self._loaded:
                self._loaded[name] = load_backbone(key, weights)
            if place not in self._placed:
                choosing = choose_engine(self._loaded[name], input_size=place[-1])
                self._placed[place] = yield from choosing
        finally:
            self._placing.release()
        placed = self._placed[place]
        yield Progress("Loading the backbone", 1, 1, key, note=describe_place(placed))
        return placed


_SESSION: Session | None = None


def session() -> Session:
    """Return the session of this process, made when it is first asked for."""
    global _SESSION
    if _SESSION is None:
        _SESSION = Session()
    return _SESSION
