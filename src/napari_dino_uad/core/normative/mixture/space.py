"""The space of the mixture: embeddings, optionally reduced and with their position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.patches import with_position

__all__ = ["EmbeddingSpace"]


@dataclass(frozen=True)
class EmbeddingSpace:
    """Map from embeddings to the space of the components.

    Attributes
    ----------
    position : float
        Weight of the appended grid coordinates; 0 leaves them out.
    unit_length : bool
        Whether to scale the result to unit length, as the last step.
    mean : torch.Tensor, (C,), or None
        Mean of the embeddings, if they are reduced.
    projection : torch.Tensor, (C, P), or None
        Their first principal axes, if they are reduced.
    """

    position: float = 0.0
    unit_length: bool = False
    mean: torch.Tensor | None = None
    projection: torch.Tensor | None = None

    @classmethod
    def fit(
        cls, patches: torch.Tensor, pca: int, position: float, unit_length: bool
    ) -> EmbeddingSpace:
        """Fit the projection.

        Parameters
        ----------
        patches : torch.Tensor, (N, C) or (N, C + 2) with positions
        pca : int
            Number of principal components; 0 for no reduction.
        position, unit_length
            As in the class.

        Raises
        ------
        InputError
            If there are fewer channels or patches than components.
        """
        if pca == 0:
            return cls(position, unit_length)
        embeddings = patches[:, :-2] if position else patches
        if pca > min(embeddings.shape):
            raise InputError(
                f"Expected at most {min(embeddings.shape)} principal components for "
                f"{embeddings.shape[1]} channels and {len(embeddings)} patches, got {pca}; ask "
                "for fewer."
            )
        mean = embeddings.mean(0)
        scatter = torch.zeros(embeddings.shape[1], embeddings.shape[1], device=patches.device)
        for part in embeddings.split(8192):
            centred = part - mean
            scatter.addmm_(centred.T, centred)
        # eigh sorts in ascending order. It runs on the CPU, where every build of torch has it.
        axes = torch.linalg.eigh(scatter.cpu().double()).eigenvectors
        projection = axes[:, -pca:].flip(1).to(mean).contiguous()
        return cls(position, unit_length, mean, projection)

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches to the space, (N, C) or (N, C + 2) with positions -> (N, D)."""
        if self.position:
            embeddings, places = patches[:, :-2], patches[:, -2:]
        else:
            embeddings, places = patches, None
        if self.projection is not None and self.mean is not None:
            embeddings = (embeddings - self.mean) @ self.projection
        if places is not None:
            embeddings = torch.cat([embeddings, self.position * places], dim=1)
        return F.normalize(embeddings, dim=1) if self.unit_length else embeddings

    def flatten(self, features: torch.Tensor) -> torch.Tensor:
        """Map embeddings on a grid to the space, (B, C, h, w) -> (B h w, D)."""
        if self.position:
            features = with_position(features)
        return self.project(features.permute(0, 2, 3, 1).flatten(0, 2))

    def to(self, device: torch.device) -> EmbeddingSpace:
        """Return the space on a device."""
        return EmbeddingSpace(
            self.position,
            self.unit_length,
            None if self.mean is None else self.mean.to(device),
            None if self.projection is None else self.projection.to(device),
        )
