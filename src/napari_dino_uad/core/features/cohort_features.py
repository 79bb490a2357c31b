"""Embeddings of the healthy slices of a cohort, scan by scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.features.cache import FeatureCache, content_digest
from napari_dino_uad.core.features.extract import PATCH_FOREGROUND, cache_entry
from napari_dino_uad.core.features.feature_set import FeatureSet, collect_features
from napari_dino_uad.core.features.object_mask import within_objects
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cases import Case, read_cases
from napari_dino_uad.core.slices.healthy import healthy_slices, tissue_slices
from napari_dino_uad.core.slices.prepared import PreparedScan, prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone

__all__ = ["ReusedSlices", "UsedSlices", "collect_cohort"]

#: Digest of each scan's content and the numbers of the slices taken from it.
UsedSlices = list[tuple[str, list[int]]]


@dataclass(frozen=True)
class ReusedSlices:
    """How many slices of a cohort were embedded before, out of all."""

    reused: int
    total: int


@dataclass(frozen=True)
class _HealthyScan:
    """A prepared scan: its number in the cohort, healthy slices, digest, and a note to the user."""

    number: int
    scan: PreparedScan
    indices: NDArray[np.int64]
    digest: str
    note: str


def collect_cohort(
    cases: Sequence[Case],
    features: FeatureSet,
    backbone: Backbone,
    preprocessing: Preprocessing,
    batch: int,
    step: str,
    cache: FeatureCache | None,
    noted: list[str],
) -> Generator[Progress, None, UsedSlices]:
    """Add the healthy slices of scans to a feature set.

    Parameters
    ----------
    cases : sequence of Case
        Scans to read.
    features : FeatureSet
        Set to add to.
    backbone, preprocessing, batch, cache
        As in `extract_features` and `prepare`.
    step : str
        Name of the step, for the user.
    noted : list of str
        Notes that were given before; new ones are appended.

    Yields
    ------
    Progress
        After every batch and every tenth of a second; the last has `ReusedSlices` as its result.

    Returns
    -------
    list of (str, list of int)
        Digest and slice numbers of each scan that has healthy slices.
    """
    used: UsedSlices = []
    reused = 0
    waiting = Progress(step, 0, len(cases), cases[0].name if cases else "")
    yield waiting
    for item in prefetch(_healthy_scans(cases, preprocessing, noted), patience_s=PATIENCE_S):
        if item is None:
            yield waiting
            continue
        waiting = Progress(step, item.number, len(cases), cases[item.number].name)
        yield dataclasses.replace(waiting, note=item.note)
        none_left = dataclasses.replace(
            waiting,
            note=f"Note: {waiting.detail} has no healthy slice with enough tissue to learn from.",
        )
        if not len(item.indices):
            yield none_left
            continue
        grid = item.scan.grid(backbone.spec.stride, backbone.spec.multiple)
        entry = cache_entry(cache, item.digest, item.scan, grid, backbone)
        if entry is not None:
            reused += int(entry.known()[item.indices].sum())
        narrowing = Inner(within_objects(item.scan, grid, backbone, item.indices, batch, entry))
        for _ in narrowing:
            yield dataclasses.replace(waiting, note=backbone.engine.take_note())
        scan = narrowing.value
        indices = item.indices
        if scan is not item.scan:
            indices = indices[tissue_slices(scan)[indices]]
        if not len(indices):
            yield none_left
            continue
        collecting = Inner(collect_features(scan, grid, backbone, indices, batch, entry))
        for _ in collecting:
            yield dataclasses.replace(waiting, note=backbone.engine.take_note())
        mask = grid.to_grid(scan.foreground[indices]) > PATCH_FOREGROUND
        features.add(collecting.value, mask, scan.brightness(indices.tolist(), grid))
        used.append((item.digest, indices.tolist()))
    total = sum(len(numbers) for _, numbers in used)
    yield Progress(step, len(cases), len(cases), result=ReusedSlices(reused, total))
    return used


def _healthy_scans(
    cases: Sequence[Case], preprocessing: Preprocessing, noted: list[str]
) -> Iterator[_HealthyScan]:
    """Read and prepare scans."""
    for number, volume, mask, note in read_cases(cases, noted):
        scan = prepare(volume, preprocessing)
        indices = healthy_slices(scan, mask, preprocessing.plane)
        digest = content_digest(volume.content, volume.spacing_mm)
        yield _HealthyScan(number, scan, indices, digest, note)
