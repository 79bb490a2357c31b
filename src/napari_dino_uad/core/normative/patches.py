"""Patches of slices: random draws, and their position."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import torch

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["draw_patches", "with_position"]


def with_position(features: torch.Tensor) -> torch.Tensor:
    """Append the row and column of each patch, in [-1, 1], (B, C, h, w) -> (B, C + 2, h, w).

    On a grid with one row or column, that coordinate is 0.
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


def draw_patches(
    features: FeatureSet, limit: int, seed: int, foreground: bool, position: bool, step: str
) -> Generator[Progress, None, torch.Tensor]:
    """Draw patches at random, without replacement.

    Parameters
    ----------
    features : FeatureSet
        Healthy slices.
    limit : int
        Maximum number of patches.
    seed : int
        Seed of the random choice.
    foreground : bool
        Whether to draw only tissue.
    position : bool
        Whether to append the two grid coordinates.
    step : str
        Description of the step, shown to the user.

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
            "Expected healthy slices with enough tissue, got none; check the masks, the window and "
            "the foreground threshold."
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
