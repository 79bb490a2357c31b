"""From slices to patch embeddings, and the healthy embeddings a model learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones import Backbone
    from napari_dino_uad.core.normative.context import Context
    from napari_dino_uad.core.slices import PatchGrid, PreparedScan

__all__ = ["FeatureSet", "extract_features", "outwards"]

# A patch counts as tissue when this share of it is foreground.
PATCH_FOREGROUND = 0.25


def outwards(count: int, first: int) -> list[int]:
    """Order slices from one outwards, so that what is on screen comes first.

    Parameters
    ----------
    count : int
        Number of slices.
    first : int
        Slice to start at.

    Returns
    -------
    list of int
        All of 0 to count - 1, nearest to `first` first.
    """
    return sorted(range(count), key=lambda index: (abs(index - first), index))


def extract_features(
    scan: PreparedScan,
    grid: PatchGrid,
    backbone: Backbone,
    order: Sequence[int],
    batch: int = 2,
    first_batch: int | None = None,
) -> Iterator[tuple[list[int], NDArray[np.float16]]]:
    """Compute the embeddings of some slices, batch by batch.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    grid : PatchGrid
        Its patch grid under this backbone.
    backbone : Backbone
        A loaded backbone.
    order : sequence of int
        Slices to compute, in this order.
    batch : int
        Slices at once.
    first_batch : int, optional
        Slices in the first batch, fewer for a quick first answer.

    Yields
    ------
    tuple of (list of int, ndarray of float16 (B, C, h, w))
        Slice numbers and their embeddings.
    """
    start = 0
    while start < len(order):
        size = first_batch if start == 0 and first_batch else batch
        indices = list(order[start : start + size])
        features = backbone.embed(scan.images(indices, grid))
        yield indices, features.half().cpu().numpy()
        start += size


@dataclass
class FeatureSet:
    """Embeddings of healthy slices, as a model wants to read them.

    Attributes
    ----------
    context : Context
        What is done to embeddings before a model sees them.
    levels : tuple of int
        Channels of each backbone level.
    chunks : list of (features (n, C, h, w) float16, mask (n, h, w) bool)
        One for each scan; the mask says which patches are tissue.
    """

    context: Context
    levels: tuple[int, ...]
    chunks: list[tuple[NDArray[np.float16], NDArray[np.bool_]]] = field(default_factory=list)

    def add(self, features: NDArray[np.float16], mask: NDArray[np.bool_]) -> None:
        """Add the slices of one scan, (n, C, h, w) and (n, h, w)."""
        self.chunks.append((features, mask))

    def __len__(self) -> int:
        return sum(len(features) for features, _ in self.chunks)

    def transformed(self, size: int = 16) -> Iterator[tuple[torch.Tensor, NDArray[np.bool_], int]]:
        """Yield (features (B, C, h, w), mask (B, h, w), scan number), in order."""
        import torch

        for scan, (features, mask) in enumerate(self.chunks):
            for start in range(0, len(features), size):
                part = torch.from_numpy(np.asarray(features[start : start + size])).float()
                transformed = self.context.apply(part, self.levels)
                yield transformed, mask[start : start + size], scan

    def patches(self, limit: int, generator: torch.Generator) -> torch.Tensor:
        """Draw tissue patches at random, without replacement.

        Parameters
        ----------
        limit : int
            How many at most.
        generator : torch.Generator
            Source of chance.

        Returns
        -------
        torch.Tensor of float32, (N, C)

        Raises
        ------
        InputError
            If no slice holds tissue.
        """
        import torch

        total = sum(int(mask.sum()) for _, mask in self.chunks)
        if total == 0:
            raise InputError(
                "No healthy slice with enough tissue is left; check the masks, the window and "
                "the foreground threshold."
            )
        chosen = torch.zeros(total, dtype=torch.bool)
        chosen[torch.randperm(total, generator=generator)[:limit]] = True
        out = []
        start = 0
        for features, mask, _ in self.transformed():
            inside = features.permute(0, 2, 3, 1)[torch.from_numpy(mask)]
            out.append(inside[chosen[start : start + len(inside)]])
            start += len(inside)
        return torch.cat(out)
