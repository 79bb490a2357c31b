"""The mean embedding: a baseline that any model of several kinds of tissue must beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.base import NormativeModel
from napari_dino_uad.core.normative.patches import draw_patches
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, unit_rows

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["MeanConfig", "MeanEmbedding"]

_PATCHES = 100_000


@dataclass(frozen=True)
class MeanConfig:
    """Settings of a `MeanEmbedding`.

    Attributes
    ----------
    seed : int
        Seed of the choice of patches.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"The seed is 0 or more, got {self.seed}.")


class MeanEmbedding(NormativeModel):
    """The one mean of all healthy patches; the score is the cosine distance to it.

    Parameters
    ----------
    settings : MeanConfig, optional

    Attributes
    ----------
    mean_ : torch.Tensor, (1, C)
        Of unit length.
    """

    method: ClassVar[str] = "mean"
    saved = (MeanConfig,)
    patchwise = True

    def __init__(self, settings: MeanConfig | None = None) -> None:
        self.settings = settings or MeanConfig()
        self.mean_ = torch.empty(0, 0)

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Average healthy patches; `valid` is not used.

        Parameters
        ----------
        train, valid : FeatureSet
            Healthy slices.

        Yields
        ------
        Progress

        Raises
        ------
        InputError
            If no slice holds tissue.
        """
        step = "Averaging healthy patches"
        patches = yield from draw_patches(train, _PATCHES, self.settings.seed, True, False, step)
        self.mean_ = F.normalize(F.normalize(patches, dim=1).mean(0, keepdim=True), dim=1)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Return 1 - the cosine with the mean, (B, C, h, w) -> (B, h, w)."""
        return 1 - torch.einsum("bchw,c->bhw", F.normalize(features, dim=1), self.mean_[0])

    def explain(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return no maps: one vector explains nothing."""
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the mean."""
        return {"mean": self.mean_}

    def config(self) -> dict[str, Any]:
        """Return the settings."""
        return dataclasses.asdict(self.settings)

    @classmethod
    def described(cls, saved: tuple[MeanConfig], channels: int) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold."""
        return {"mean": TensorSpec((1, channels), rule=unit_rows)}

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> MeanEmbedding:
        """Build the model from its file."""
        from napari_dino_uad.core.normative.config import read_config

        model = cls(*read_config(cls.method, config))
        model.mean_ = tensors["mean"]
        return model

    def summary(self) -> str:
        """Describe the model in one line."""
        return f"Mean embedding of {self.mean_.shape[1]} channels"
