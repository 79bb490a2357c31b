"""How to load a backbone again, in another process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dino_uad.core.backbones.engines.choice import make_engine
from napari_dino_uad.core.backbones.engines.torch_engine import EngineSpec
from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone

__all__ = ["BackboneRecipe"]


@dataclass(frozen=True)
class BackboneRecipe:
    """How to load a backbone again, with the same weights and engine.

    Attributes
    ----------
    key : str
        As in `load_backbone`.
    weights : Path or None
        A file of weights.
    sha256 : str
        Checksum of the weights.
    engine : EngineSpec
        What runs it.
    """

    key: str
    weights: Path | None
    sha256: str
    engine: EngineSpec

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneRecipe:
        """Return the recipe of a loaded backbone."""
        weights = None if backbone.weights is None else backbone.weights.resolve()
        return cls(backbone.spec.key, weights, backbone.sha256, backbone.engine.spec)

    def load(self) -> Backbone:
        """Load the backbone, once in each process.

        Raises
        ------
        InputError
            If this machine lacks the weights or the engine, or has other weights.
        """
        return _load(self)


@lru_cache(maxsize=1)
def _load(recipe: BackboneRecipe) -> Backbone:
    from napari_dino_uad.core.backbones.backbone import load_backbone

    backbone = load_backbone(recipe.key, recipe.weights)
    if backbone.sha256 != recipe.sha256:
        raise InputError(
            f"The weights of {recipe.key} on another machine are not those used here; copy the "
            "same file to all machines."
        )
    return backbone.on(make_engine(recipe.engine, backbone))
