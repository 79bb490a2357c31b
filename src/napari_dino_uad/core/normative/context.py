"""What is done to backbone embeddings before a model sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """Normalise embeddings and average them over their neighbourhood.

    Attributes
    ----------
    normalise : {"l2", "none"}
        "l2" brings every level of the backbone to unit length, so that no level drowns the
        others, and the whole embedding likewise.
    neighbourhood : int
        Odd edge of the square of patches that is averaged; 1 leaves patches alone. A patch and
        its surroundings say more than the patch (PatchCore, CVPR 2022, Eq. 2).
    """

    normalise: Literal["l2", "none"] = "l2"
    neighbourhood: int = 3

    def __post_init__(self) -> None:
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise InputError(
                "The neighbourhood is an odd number of patches from 1 up, but "
                f"{self.neighbourhood} came."
            )

    def apply(self, features: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
        """Transform embeddings.

        Parameters
        ----------
        features : torch.Tensor of float32, (B, C, h, w)
            As the backbone gives them.
        levels : tuple of int
            Channels of each backbone level; they sum to C.

        Returns
        -------
        torch.Tensor of float32, (B, C, h, w)
        """
        import torch
        import torch.nn.functional as F

        # A patch's channels side by side: all that follows works along them, four times as fast.
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
        """Bring what `apply` gave to unit length, (B, C, h, w); "l2" has left it so."""
        import torch.nn.functional as F

        return features if self.normalise == "l2" else F.normalize(features, dim=1)


def _normalise(features: torch.Tensor) -> torch.Tensor:
    """Bring embeddings (B, C, h, w) to unit length, in place: half the memory to move."""
    import torch

    length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features.div_(length.clamp_min_(1e-12))
