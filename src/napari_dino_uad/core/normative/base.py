"""The interface of all models of normal appearance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.features.feature_set import FeatureSet
    from napari_dino_uad.core.storage.tensor_schema import TensorSpec

__all__ = ["NormativeModel", "tensors_under"]


def tensors_under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names start with a prefix, without that prefix."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


class NormativeModel(Protocol):
    """A model of what healthy patch embeddings look like.

    Attributes
    ----------
    method : str
        Key of the method, as in a model file.
    saved : tuple of type
        Dataclasses whose fields together are the result of `config`: the settings and the fitted
        numbers that are not tensors. Each checks its ranges when it is made.
    """

    method: ClassVar[str]
    saved: ClassVar[tuple[type[Any], ...]]

    @property
    def patchwise(self) -> bool:
        """Whether the score of a patch depends only on that patch, not on its position."""
        ...

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Fit on healthy embeddings, yielding progress after every batch.

        Parameters
        ----------
        train, valid : FeatureSet
            Healthy slices to fit on, and others to choose the best epoch.
        """
        ...

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Score embeddings: higher is more abnormal.

        Parameters
        ----------
        features : torch.Tensor of float32, (B, C, h, w)

        Returns
        -------
        torch.Tensor of float32, (B, h, w)
        """
        ...

    def score_tissue(self, features: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
        """Score only tissue; skips the air if the model scores each patch by itself.

        Parameters
        ----------
        features : torch.Tensor of float32, (B, C, h, w)
        tissue : torch.Tensor of bool, (B, h, w)
            Mask of the N tissue patches.

        Returns
        -------
        torch.Tensor of float32, (N,)
        """
        if not self.patchwise:
            return self.score(features)[tissue]
        # Pass the patches as a slice with one row.
        row = features.permute(0, 2, 3, 1)[tissue].T[None, :, None]
        return self.score(row)[0, 0]

    def explain(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return named maps that explain a score, each (B, ..., h, w)."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the fitted state to save."""
        ...

    def config(self) -> dict[str, Any]:
        """Return the settings to save, as plain values."""
        ...

    @classmethod
    def described(cls, saved: tuple[Any, ...], channels: int) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold.

        Parameters
        ----------
        saved : tuple
            One of each dataclass of `cls.saved`.
        channels : int
            Of the embeddings, C.
        """
        ...

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> NormativeModel:
        """Build a fitted model from the output of `config` and `tensors`.

        `model_schema.check_model` has checked the tensors against `described`.

        Raises
        ------
        InputError
            If the settings are not valid, or the tensors do not fit them.
        """
        ...

    def summary(self) -> str:
        """Describe the fitted model in one line."""
        ...
