"""Typical healthy patches, which tell a scan of another kind whatever model looks for lesions.

A model of lesions may know its way around scans it was never shown: an autoregressive one foretells
smooth tissue of any sequence well. How far the patches of a scan lie from typical healthy ones
does not depend on it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_dino_uad.core.normative.mixture_scores import Directions
from napari_dino_uad.core.normative.mixture_start import kmeans
from napari_dino_uad.core.normative.patches import draw_patches
from napari_dino_uad.core.progress import Inner, Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.features import FeatureSet

__all__ = ["fit_prototypes", "prototype_distance"]

# As many tell scans of another kind as well as twice as many, and take 0.1 MB of a model's file.
_PROTOTYPES = 128

# Patches they are found among.
_PATCHES = 20_000


def fit_prototypes(healthy: FeatureSet, seed: int) -> Generator[Progress, None, torch.Tensor]:
    """Find typical healthy patches: centres of a spherical k-means.

    Parameters
    ----------
    healthy : FeatureSet
        Healthy slices.
    seed : int
        Makes them repeatable.

    Yields
    ------
    Progress

    Returns
    -------
    torch.Tensor of float32, (K, C)
        Of unit length; 128, or as many as there are patches.
    """
    step = "Finding typical patches"
    patches = yield from draw_patches(healthy, _PATCHES, seed, True, False, step)
    patches = F.normalize(patches, dim=1)
    count = min(_PROTOTYPES, len(patches))
    generator = torch.Generator().manual_seed(seed)
    clustering = Inner(kmeans(patches, count, generator, spherical=True))
    for done, total in clustering:
        yield Progress(step, done, total)
    return F.normalize(clustering.value.centres, dim=1)


def prototype_distance(patches: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Return 1 - the largest cosine of patches (N, C) with a prototype (K, C), as (N,)."""
    return Directions.of(prototypes).search(patches)[0]
