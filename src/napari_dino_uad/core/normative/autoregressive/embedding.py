"""Standardisation of embeddings before the autoregressive network sees and predicts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.storage.tensor_schema import TensorSpec

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["Embedding", "Standardise", "embedded_slices"]

Standardise = Literal["none", "unit", "channel", "pca"]


class Embedding:
    """An affine map from the backbone's channels to those that the network predicts.

    Parameters
    ----------
    mean : torch.Tensor, (C,)
        Subtracted first.
    scale : torch.Tensor, (C,) or (P, C)
        A factor for each channel, or a projection matrix.

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
        """Fit the map on healthy patches.

        Parameters
        ----------
        patches : torch.Tensor, (N, C)
        kind : {"none", "unit", "channel", "pca"}
            Keep channels unchanged; multiply them by the root of their number, so that embeddings
            of unit length have a mean square of 1; standardise each to zero mean and unit
            variance; or project on principal components.
        components : int
            Maximum number of principal components, P.
        power : float
            Each component is divided by its standard deviation to this power: 0 keeps the
            variances, 1 makes all equal.
        """
        count, channels = patches.shape
        if kind in ("none", "unit"):
            factor = channels**0.5 if kind == "unit" else 1.0
            return cls(torch.zeros(channels), torch.full((channels,), factor))
        mean = patches.mean(0)
        if kind == "channel":
            # A floor keeps constant channels from exploding.
            deviation = patches.std(0)
            floor = 1e-3 * float(deviation.mean()) + 1e-12
            return cls(mean, 1 / deviation.clamp_min(floor))
        centred = patches - mean
        values, vectors = torch.linalg.eigh((centred.T @ centred).double() / max(1, count - 1))
        kept = min(components, channels, count)
        values, vectors = values.flip(0)[:kept], vectors.flip(1)[:, :kept]
        # The sign of an eigenvector is arbitrary and may differ between machines.
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        deviation = values.clamp_min(1e-6 * float(values[0]) + 1e-24).sqrt()
        # One overall factor keeps the network's input near unit size for every power.
        rows = (vectors * signs / deviation**power).T
        size = (values / deviation ** (2 * power)).mean().sqrt().clamp_min(1e-12)
        return cls(mean, (rows / size).float().contiguous())

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """Map embeddings, (B, C, h, w) -> (B, P, h, w)."""
        centred = features - self.mean[:, None, None]
        if self.scale.ndim == 1:
            return centred * self.scale[:, None, None]
        return F.conv2d(centred, self.scale[:, :, None, None])

    @staticmethod
    def described(kind: Standardise, components: int, channels: int) -> dict[str, TensorSpec]:
        """Return what a file must hold of the map, from C channels to P.

        Parameters
        ----------
        kind, components
            See `fit`.
        channels : int
            C.
        """

        def projects(rows: torch.Tensor) -> str:
            if len(rows) > components:
                return f"has more rows than the {components} components of the settings"
            return "" if bool(rows.any(dim=1).all()) else "has a row of zeros"

        if kind == "pca":
            scale = TensorSpec(("P", channels), rule=projects)
        else:
            scale = TensorSpec(("P",), above=0, rule=lambda scale: _as_many(scale, channels))
        return {"mean": TensorSpec((channels,)), "scale": scale}

    def to(self, device: torch.device) -> Embedding:
        """Return the same map on another device."""
        return Embedding(self.mean.to(device), self.scale.to(device))


def _as_many(scale: torch.Tensor, channels: int) -> str:
    return "" if len(scale) == channels else f"has {len(scale)} channels, expected {channels}"


def embedded_slices(
    features: FeatureSet, embedding: Embedding
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Map cached features once, to be read in every epoch.

    Parameters
    ----------
    features : FeatureSet
        Healthy slices.
    embedding : Embedding
        The map.

    Yields
    ------
    tuple of (torch.Tensor of float16 (B, P, h, w), torch.Tensor of bool (B, h, w))
        A batch of slices and their tissue. Half precision halves the memory, without measurable
        loss.

    Raises
    ------
    InputError
        If no slice contains tissue.
    """
    tissue = False
    for part, mask, _ in features.transformed():
        inside = torch.from_numpy(np.ascontiguousarray(mask))
        tissue = tissue or bool(inside.any())
        yield embedding.apply(part).half(), inside
    if not tissue:
        raise InputError(
            "Expected healthy slices with enough tissue, got none; check the masks, the window and "
            "the foreground threshold."
        )
