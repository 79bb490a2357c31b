"""Embed the scans of a cohort ahead of their use, by several processes, into a shared cache."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.backbones.recipe import BackboneRecipe
from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError
from napari_dino_uad.core.features.cache import FeatureCache, content_digest
from napari_dino_uad.core.features.extract import cache_entry, scored_slices
from napari_dino_uad.core.features.feature_set import collect_features
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.slices.healthy import healthy_slices
from napari_dino_uad.core.slices.prepared import prepare

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.crew import Crew
    from napari_dino_uad.core.scans.cases import Case
    from napari_dino_uad.core.slices.preprocessing import Preprocessing

__all__ = ["embed_ahead"]


@dataclass(frozen=True)
class _Shared:
    recipe: BackboneRecipe
    preprocessing: tuple[Preprocessing, ...]
    cache: FeatureCache
    batch: int


def embed_ahead(
    crew: Crew,
    healthy: Sequence[Case],
    whole: Sequence[Case],
    backbone: Backbone,
    preprocessing: Sequence[Preprocessing],
    cache: FeatureCache | None,
    batch: int,
) -> Generator[Progress, None, None]:
    """Embed scans into the cache, from which they are read when they are needed.

    Parameters
    ----------
    crew : Crew
        The processes.
    healthy, whole : sequence of Case
        Scans whose healthy slices are needed, and scans of which all tissue is.
    backbone : Backbone
    preprocessing : sequence of Preprocessing
        One for each plane.
    cache : FeatureCache or None
        In a folder that all processes share.
    batch : int
        Slices per batch.

    Yields
    ------
    Progress

    Raises
    ------
    InputError
        If there is no cache, or the processes end again and again.
    """
    if cache is None:
        raise InputError(
            "Several processes share embeddings through the cache, but it is switched off; leave "
            "out --no-cache, or ask for one job."
        )
    items = [(case, True) for case in healthy] + [(case, False) for case in whole]
    shared = _Shared(BackboneRecipe.of(backbone), tuple(preprocessing), cache, batch)
    done = 0
    yield Progress("Embedding scans", 0, len(items))
    for result in crew.run(_embed, shared, items):
        done += result is not None
        yield Progress("Embedding scans", done, len(items))


def _embed(shared: _Shared, item: tuple[Case, bool]) -> None:
    """Embed one scan; one that cannot be used is named where it is needed."""
    case, healthy = item
    backbone = shared.recipe.load()
    try:
        volume = case.read()
        mask = case.read_mask(volume) if healthy else None
    except OF_ONE_SCAN:
        return
    digest = content_digest(volume.content, volume.spacing_mm)
    for preprocessing in shared.preprocessing:
        scan = prepare(volume, preprocessing)
        grid = scan.grid(backbone.spec.stride, backbone.spec.multiple)
        wanted = scored_slices(scan, grid)
        if healthy:
            wanted = healthy_slices(scan, mask, preprocessing.plane)
        entry = cache_entry(shared.cache, digest, scan, grid, backbone)
        if entry is None or not len(wanted) or np.all(entry.known()[wanted]):
            continue
        for _ in collect_features(scan, grid, backbone, wanted, shared.batch, entry):
            pass
