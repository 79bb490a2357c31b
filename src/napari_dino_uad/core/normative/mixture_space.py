"""The space a mixture lives in: embeddings, reduced, with their place in the slice."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.features import FeatureSet

__all__ = ["EmbeddingSpace", "draw_patches", "with_position"]


def with_position(features: torch.Tensor) -> torch.Tensor:
    """Append each patch's row and column, both in [-1, 1], (B, C, h, w) -> (B, C + 2, h, w).

    A grid of one row or column lies at 0.
    """
    batch, _, height, width = features.shape
    rows, columns = (
        torch.linspace(-1, 1, size, device=features.device, dtype=features.dtype)
        if size > 1
        else torch.zeros(1, device=features.device, dtype=features.dtype)
        for size in (height, width)
    )
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([features, places.expand(batch, -1, -1, -1)], dim=1)


@dataclass(frozen=True)
class EmbeddingSpace:
    """What is done to embeddings before they meet the components.

    Attributes
    ----------
    position : float
        Weight of the appended coordinates; 0 leaves them out.
    unit_length : bool
        Whether the result is brought to unit length, last.
    mean : torch.Tensor, (C,), or None
        Mean of the embeddings, where they are reduced.
    projection : torch.Tensor, (C, P), or None
        Their first principal axes.
    """

    position: float = 0.0
    unit_length: bool = False
    mean: torch.Tensor | None = None
    projection: torch.Tensor | None = None

    @classmethod
    def fit(
        cls, patches: torch.Tensor, pca: int, position: float, unit_length: bool
    ) -> EmbeddingSpace:
        """Learn the projection.

        Parameters
        ----------
        patches : torch.Tensor, (N, C) or (N, C + 2) with positions
        pca : int
            Principal components; 0 for none.
        position, unit_length
            As in the class.

        Raises
        ------
        InputError
            If there are fewer channels than components asked for.
        """
        if pca == 0:
            return cls(position, unit_length)
        embeddings = patches[:, :-2] if position else patches
        if pca > min(embeddings.shape):
            raise InputError(
                f"{pca} principal components were asked for, but the embeddings have "
                f"{embeddings.shape[1]} channels and there are {len(embeddings)} patches; ask "
                "for fewer."
            )
        mean = embeddings.mean(0)
        scatter = torch.zeros(embeddings.shape[1], embeddings.shape[1], device=patches.device)
        for part in embeddings.split(8192):
            centred = part - mean
            scatter.addmm_(centred.T, centred)
        # eigh sorts ascending; on the CPU, where every build of torch has it.
        axes = torch.linalg.eigh(scatter.cpu().double()).eigenvectors
        projection = axes[:, -pca:].flip(1).to(mean).contiguous()
        return cls(position, unit_length, mean, projection)

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        """Bring patches into the space, (N, C) or (N, C + 2) with positions -> (N, D)."""
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
        """Bring embeddings on a grid into the space, (B, C, h, w) -> (B h w, D)."""
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


def draw_patches(
    features: FeatureSet, limit: int, seed: int, foreground: bool, position: bool, step: str
) -> Generator[Progress, None, torch.Tensor]:
    """Draw patches at random, without replacement.

    Parameters
    ----------
    features : FeatureSet
        Healthy slices.
    limit : int
        How many at most.
    seed : int
        Source of chance.
    foreground : bool
        Whether only tissue is drawn.
    position : bool
        Whether the two grid coordinates are appended.
    step : str
        What the user reads meanwhile.

    Yields
    ------
    Progress
        After every batch of slices.

    Returns
    -------
    torch.Tensor of float32, (N, C) or (N, C + 2)

    Raises
    ------
    InputError
        If there is no patch to draw.
    """
    total = sum(int(mask.sum()) if foreground else mask.size for _, mask in features.chunks)
    if total == 0:
        raise InputError(
            "No healthy slice with enough tissue is left; check the masks, the window and the "
            "foreground threshold."
        )
    chosen = torch.zeros(total, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    chosen[torch.randperm(total, generator=generator)[:limit]] = True
    out: torch.Tensor | None = None
    start = filled = slices = 0
    for batch, mask, _ in features.transformed():
        if position:
            batch = with_position(batch)
        inside = torch.from_numpy(mask) if foreground else torch.ones(mask.shape, dtype=torch.bool)
        places = torch.nonzero(inside)
        used = places[chosen[start : start + len(places)]]
        drawn = batch[used[:, 0], :, used[:, 1], used[:, 2]]
        if out is None:
            out = torch.empty(int(chosen.sum()), drawn.shape[1])
        out[filled : filled + len(drawn)] = drawn
        start, filled, slices = start + len(places), filled + len(drawn), slices + len(mask)
        yield Progress(step, slices, len(features))
    assert out is not None
    return out
