"""Loads model files for Detect, and the backbone at the start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_dino_uad.widgets.detect.pipelines import loader
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.progress import Progress

__all__ = ["ModelLoader"]


class ModelLoader(Job):
    """A job that loads model files into the session.

    Signals
    -------
    said, complained, remarked : str
        A message, an error, and a remark on the engine, for the user.
    """

    said = Signal(str)
    complained = Signal(str)
    remarked = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.path: Path | None = None
        self._remembered = False
        self.progressed.connect(self._on_progress)
        self.succeeded.connect(self._on_loaded)
        self.failed.connect(self.complained)

    def load(self, path: Path | None, *, remembered: bool = False) -> None:
        """Load a model file and its backbone; without a file only the default backbone.

        Parameters
        ----------
        path : Path or None
        remembered : bool
            Whether nobody asked for it just now: then it gives way to a model that was loaded or
            fitted in the meantime.
        """
        self.path, self._remembered = path, remembered
        if path is not None:
            self.said.emit(f"Loading {path.name}…")
        self.start(loader(path))

    def _on_progress(self, progress: Progress) -> None:
        self.remarked.emit(progress.note)

    def _on_loaded(self, result: tuple[str, FittedModel, str] | None) -> None:
        if result is None:
            self.said.emit("")
            return
        name, model, problem = result
        self.said.emit("")
        if self._remembered and session().models:
            return
        session().add_model(name, model)
        if problem:
            self.complained.emit(problem)
