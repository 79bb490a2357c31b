"""Models and backbones that all docks share."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.settings import (
    apply_cache_settings,
    recall,
    remember_model,
    setting,
)

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.explain.pictures import HealthyPictures
    from napari_dino_uad.core.model import FittedModel

__all__ = ["Session", "read_model", "session", "weights_setting"]


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
        self._pictures: list[tuple[FittedModel, HealthyPictures]] = []
        self._backbones: dict[tuple[str, str | None], Backbone] = {}
        self._placed: dict[tuple[str, str, int, str], Backbone] = {}
        self._loading = threading.Lock()
        self._placing = threading.Lock()

    def add_model(self, name: str, model: FittedModel) -> str:
        """Add a model under a name that is free, and return that name."""
        unique, number = name, 2
        while unique in self.models and self.models[unique] is not model:
            unique, number = f"{name} ({number})", number + 1
        self.models[unique] = model
        self.model_added.emit(unique)
        return unique

    def keep_pictures(self, model: FittedModel, pictures: HealthyPictures) -> None:
        """Keep the pictures of healthy patches that belong to a model."""
        others = [one for one in self._pictures if one[0] is not model]
        self._pictures = [*others, (model, pictures)]

    def pictures_of(self, model: FittedModel) -> HealthyPictures | None:
        """Return the pictures that belong to a model, or None if they are not stored."""
        return next((pictures for one, pictures in self._pictures if one is model), None)

    def backbone(self, key: str, weights: Path | None = None) -> Backbone:
        """Return a backbone; it is loaded once. Call it in a worker thread: loading takes seconds.

        If no file of weights is given, and neither the installation nor the hub's cache has the
        weights, the file last chosen for this backbone is used. A computer without internet then
        needs the choice only once.
        """
        from napari_dino_uad.core.backbones.backbone import load_backbone

        weights = weights or self._known_file(key)
        name = (key, None if weights is None else str(weights))
        with self._loading:
            if name not in self._backbones:
                self._backbones[name] = load_backbone(key, weights)
            return self._backbones[name]

    def fetch(self, key: str, weights: Path | None = None) -> Generator[Progress, None, None]:
        """Download the weights that `backbone` needs, if they are not on this computer."""
        from napari_dino_uad.core.backbones.backbone import backbone_spec
        from napari_dino_uad.core.backbones.hub import fetch_weights

        spec = backbone_spec(key)
        if not spec.embedded and weights is None and self._known_file(key) is None:
            yield from fetch_weights(spec)

    def backbone_of(self, model: FittedModel) -> Generator[Progress, None, Backbone]:
        """Return the backbone that a model was fitted on, downloaded if needed, and checked.

        The engine is chosen for the model's input size.
        """
        size = model.preprocessing.input_size
        for loaded in self._backbones.values():
            if (loaded.spec.key, loaded.sha256) == (model.backbone_key, model.backbone_sha256):
                return (yield from self.place(loaded, size))
        yield from self.fetch(model.backbone_key)
        yield Progress("Loading the backbone", 0, 1, model.backbone_key)
        backbone = self.backbone(model.backbone_key)
        model.check_backbone(backbone)
        return (yield from self.place(backbone, size))

    def place(
        self, backbone: Backbone, input_size: int | None = None
    ) -> Generator[Progress, None, Backbone]:
        """Choose the engine that runs a backbone, once for each input size.

        Parameters
        ----------
        backbone : Backbone
            A loaded backbone.
        input_size : int, optional
            Shorter edge of the input in pixels; the backbone's own if not given.

        Yields
        ------
        Progress
            The last one has a note on the engine and the device.

        Returns
        -------
        Backbone
        """
        from napari_dino_uad.core.backbones.engines.choice import choose_engine, describe_place

        apply_cache_settings()
        size = input_size or backbone.spec.input_size
        device = setting("device")
        name = (backbone.spec.key, backbone.sha256, size, device)
        # Two measurements at the same time would slow each other down.
        while not self._placing.acquire(timeout=0.1):
            yield Progress("Loading the backbone", 0, 1, backbone.spec.key)
        try:
            if name not in self._placed:
                self._placed[name] = yield from choose_engine(backbone, device, input_size=size)
        finally:
            self._placing.release()
        placed = self._placed[name]
        yield Progress(
            "Loading the backbone", 1, 1, placed.spec.key, note=describe_place(placed, device)
        )
        return placed

    def _known_file(self, key: str) -> Path | None:
        from napari_dino_uad.core.backbones.backbone import backbone_spec
        from napari_dino_uad.core.backbones.hub import weights_here

        spec = backbone_spec(key)
        chosen = recall(weights_setting(spec.name))
        if not chosen or weights_here(spec) or not Path(chosen).is_file():
            return None
        return Path(chosen)


def read_model(path: Path) -> Generator[Progress, None, tuple[str, FittedModel]]:
    """Load a model file; return what to call the model, and the model.

    A file that is open already gives the model that is open.
    """
    from napari_dino_uad.core.explain.pictures import load_pictures
    from napari_dino_uad.core.model_file import load_model, model_checksum

    yield Progress("Loading the model", 0, 1, path.stem)
    model = load_model(path)
    there = session().models.get(path.stem)
    if there is not None and model_checksum(there) == model_checksum(model):
        model = there
    try:
        pictures = load_pictures(path)
        if pictures is not None:
            session().keep_pictures(model, pictures)
    except InputError as error:
        yield Progress("Loading", 1, 1, note=str(error))
    remember_model(path)
    return path.stem, model


def weights_setting(name: str) -> str:
    """Return the name of the setting that keeps a backbone's file of weights."""
    return f"weights of {name}"


_SESSION: Session | None = None


def session() -> Session:
    """Return the session of this process; it is made at the first call."""
    global _SESSION
    if _SESSION is None:
        _SESSION = Session()
    return _SESSION
