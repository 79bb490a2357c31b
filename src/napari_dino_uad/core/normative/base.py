"""What every model of normal appearance has in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.features import FeatureSet

__all__ = ["NormativeModel", "tensors_under"]


def tensors_under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, named without it."""
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
        Name of the kind of model, as in a model file.
    """

    method: ClassVar[str]

    @property
    def patchwise(self) -> bool:
        """Whether the score of a patch depends on that patch alone, not on where it lies."""
        ...

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Learn from healthy embeddings, yielding progress at every batch.

        Parameters
        ----------
        train, valid : FeatureSet
            Healthy slices to learn from, and others to choose the best epoch with.
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
        """Score the tissue in embeddings, which leaves out the air where that changes nothing.

        Parameters
        ----------
        features : torch.Tensor of float32, (B, C, h, w)
        tissue : torch.Tensor of bool, (B, h, w)
            N patches of it.

        Returns
        -------
        torch.Tensor of float32, (N,)
        """
        if not self.patchwise:
            return self.score(features)[tissue]
        # As a slice of one row.
        row = features.permute(0, 2, 3, 1)[tissue].T[None, :, None]
        return self.score(row)[0, 0]

    def explain(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return named maps that say where a score comes from, each (B, ..., h, w)."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the fitted state to save."""
        ...

    def config(self) -> dict[str, Any]:
        """Return the settings to save, as plain values."""
        ...

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> NormativeModel:
        """Build a fitted model from what `config` and `tensors` gave."""
        ...

    def summary(self) -> str:
        """Say in one line what was fitted."""
        ...
