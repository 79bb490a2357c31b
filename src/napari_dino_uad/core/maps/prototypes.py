"""Typical healthy patches, used to recognise scans of another kind, whatever the method.

A method's own score may miss such scans: an autoregressive model predicts smooth tissue of any
sequence well. The distance of a scan's patches to typical healthy ones does not depend on the
method.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_dino_uad.core.normative.mixture.scores import Directions
from napari_dino_uad.core.normative.mixture.start import kmeans
from napari_dino_uad.core.normative.patches import draw_patches
from napari_dino_uad.core.progress import Inner, Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["fit_prototypes", "prototype_distance"]

# Twice as many recognise scans of another kind no better. 128 take 0.1 MB in a model file.
_PROTOTYPES = 128

# Number of patches clustered.
_PATCHES = 20_000


def fit_prototypes(healthy: FeatureSet, seed: int) -> Generator[Progress, None, torch.Tensor]:
    """Find typical healthy patches, as the centres of a spherical k-means.

    Parameters
    ----------
    healthy : FeatureSet
        Healthy slices.
    seed : int
        Seed of the random choices.

    Yields
    ------
    Progress

    Returns
    -------
    torch.Tensor of float32, (K, C)
        Prototypes of unit length; 128, or as many as there are patches.
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
