"""Normalisation and averaging applied to embeddings before fitting and scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["Context"]

# Wider than a slice of 512 pixels is in patches of 8.
_LARGEST_NEIGHBOURHOOD = 99


@dataclass(frozen=True)
class Context:
    """Settings that normalise embeddings and average them over their neighbourhood.

    Attributes
    ----------
    normalise : {"l2", "none"}
        "l2" scales every layer of the backbone to unit length, so that no layer dominates, and
        then the whole embedding.
    neighbourhood : int
        Odd edge of the square of patches to average; 1 turns averaging off. A patch with its
        surroundings is more informative than the patch alone (PatchCore, CVPR 2022, Eq. 2).
    """

    normalise: Literal["l2", "none"] = "l2"
    neighbourhood: int = 3

    def __post_init__(self) -> None:
        if self.normalise not in ("l2", "none"):
            raise InputError(f"Embeddings are normalised by l2 or none, got {self.normalise!r}.")
        if self.neighbourhood > _LARGEST_NEIGHBOURHOOD:
            raise InputError(
                f"The neighbourhood is {_LARGEST_NEIGHBOURHOOD} patches wide at most, got "
                f"{self.neighbourhood}."
            )
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise InputError(
                "The neighbourhood must be an odd number of patches from 1 up, got "
                f"{self.neighbourhood}; change it."
            )

    def apply(self, features: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
        """Transform embeddings.

        Parameters
        ----------
        features : torch.Tensor of float32, (B, C, h, w)
            Output of the backbone.
        levels : tuple of int
            Channels of each layer; they sum to C.

        Returns
        -------
        torch.Tensor of float32, (B, C, h, w)
        """
        import torch
        import torch.nn.functional as F

        # Channels last: all that follows works along channels, and is four times as fast.
        features = features.clone(memory_format=torch.channels_last)
        if self.normalise == "l2":
            for level in features.split(levels, dim=1):
                _normalise(level)
        if self.neighbourhood > 1:
            features = F.avg_pool2d(
                features,
                self.neighbourhood,
                stride=1,
                padding=self.neighbourhood // 2,
                count_include_pad=False,
            )
        return _normalise(features) if self.normalise == "l2" else features

    def to_unit(self, features: torch.Tensor) -> torch.Tensor:
        """Scale the output of `apply` to unit length, (B, C, h, w); with "l2" it already is."""
        import torch.nn.functional as F

        return features if self.normalise == "l2" else F.normalize(features, dim=1)


def _normalise(features: torch.Tensor) -> torch.Tensor:
    """Scale embeddings (B, C, h, w) to unit length, in place to save memory traffic."""
    import torch

    length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features.div_(length.clamp_min_(1e-12))
