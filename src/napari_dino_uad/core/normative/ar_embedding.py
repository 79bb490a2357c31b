"""How embeddings are standardised before the autoregressive network sees and predicts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.features import FeatureSet

__all__ = ["Embedding", "Standardise", "embedded_slices"]

Standardise = Literal["none", "channel", "pca"]


class Embedding:
    """An affine map from backbone channels to what the network predicts.

    Parameters
    ----------
    mean : torch.Tensor, (C,)
        Subtracted first.
    scale : torch.Tensor, (C,) or (P, C)
        A factor for each channel, or the rows to project on.

    """

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        self.mean = mean
        self.scale = scale

    @property
    def channels(self) -> int:
        """Channels of the embeddings, P."""
        return len(self.scale)

    @classmethod
    def fit(
        cls, patches: torch.Tensor, kind: Standardise, components: int, power: float
    ) -> Embedding:
        """Find the map from healthy patches.

        Parameters
        ----------
        patches : torch.Tensor, (N, C)
        kind : {"none", "channel", "pca"}
            Leave channels alone; bring each to zero mean and unit variance; or project on
            principal components.
        components : int
            Principal components to keep at most, P.
        power : float
            Each component is divided by its standard deviation to this power: 0 keeps their
            own sizes, 1 gives all the same size.
        """
        count, channels = patches.shape
        if kind == "none":
            return cls(torch.zeros(channels), torch.ones(channels))
        mean = patches.mean(0)
        if kind == "channel":
            # A channel that never changes says nothing; a floor keeps it from exploding.
            deviation = patches.std(0)
            floor = 1e-3 * float(deviation.mean()) + 1e-12
            return cls(mean, 1 / deviation.clamp_min(floor))
        centred = patches - mean
        values, vectors = torch.linalg.eigh((centred.T @ centred).double() / max(1, count - 1))
        kept = min(components, channels, count)
        values, vectors = values.flip(0)[:kept], vectors.flip(1)[:, :kept]
        # An eigenvector's sign is arbitrary and may differ from machine to machine.
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        deviation = values.clamp_min(1e-6 * float(values[0]) + 1e-24).sqrt()
        # One overall factor keeps what the network sees near unit size whatever the power.
        rows = (vectors * signs / deviation**power).T
        size = (values / deviation ** (2 * power)).mean().sqrt().clamp_min(1e-12)
        return cls(mean, (rows / size).float().contiguous())

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """Map embeddings, (B, C, h, w) -> (B, P, h, w)."""
        centred = features - self.mean[:, None, None]
        if self.scale.ndim == 1:
            return centred * self.scale[:, None, None]
        return F.conv2d(centred, self.scale[:, :, None, None])

    def to(self, device: torch.device) -> Embedding:
        """Return the same on another device."""
        return Embedding(self.mean.to(device), self.scale.to(device))


def embedded_slices(
    features: FeatureSet, embedding: Embedding
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Embed cached features once, to be read in every epoch.

    Parameters
    ----------
    features : FeatureSet
        Healthy slices.
    embedding : Embedding
        The map.

    Yields
    ------
    tuple of (torch.Tensor of float16 (B, P, h, w), torch.Tensor of bool (B, h, w))
        Some slices and their tissue; half precision halves the memory and costs nothing that
        could be measured.

    Raises
    ------
    InputError
        If no slice holds tissue.
    """
    tissue = False
    for part, mask, _ in features.transformed():
        inside = torch.from_numpy(np.ascontiguousarray(mask))
        tissue = tissue or bool(inside.any())
        yield embedding.apply(part).half(), inside
    if not tissue:
        raise InputError(
            "No healthy slice with enough tissue is left; check the masks, the window and the "
            "foreground threshold."
        )
