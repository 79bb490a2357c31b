"""Detection: a scan and a fitted model give a calibrated anomaly map, slice by slice."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.cache import FeatureCache, content_digest, open_cache
from napari_dino_uad.core.engine_choice import choose_engine
from napari_dino_uad.core.features import (
    PATCH_FOREGROUND,
    cache_entry,
    extract_features,
    outwards,
)
from napari_dino_uad.core.model import FittedModel
from napari_dino_uad.core.pipeline import in_background
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.slices import PatchGrid, PreparedScan, from_plane, prepare, to_plane
from napari_dino_uad.core.smoothing import GrowingMaps

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones import Backbone
    from napari_dino_uad.core.volume import Volume

__all__ = ["AnomalyMap", "SliceMaps", "detect", "score_slices"]


@dataclass(frozen=True)
class SliceMaps:
    """Score maps of some slices, as soon as they are known.

    Attributes
    ----------
    indices : list of int
        Slice numbers in the model's plane.
    maps : ndarray of float32, (B, h, w)
        Smoothed scores on the patch grid.
    grid : PatchGrid
        How the grid lies over the slices.
    foreground : ndarray of bool, (B, rows, cols)
        Tissue in the slices.
    """

    indices: list[int]
    maps: NDArray[np.float32]
    grid: PatchGrid
    foreground: NDArray[np.bool_]


@dataclass(frozen=True)
class AnomalyMap:
    """Anomaly scores of a scan.

    Attributes
    ----------
    volume : Volume
        The scan.
    model : FittedModel
        What scored it, with the calibration.
    grid_scores : ndarray of float32, (slices, h, w)
        Smoothed scores on the patch grid of the model's plane.
    grid : PatchGrid
        How the grid lies over the slices.
    scan : PreparedScan
        The slices as the model saw them, with the foreground.
    seconds : dict
        Seconds spent in "prepare", "backbone" and "model".
    """

    volume: Volume
    model: FittedModel
    grid_scores: NDArray[np.float32]
    grid: PatchGrid
    scan: PreparedScan
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Scores on the volume's canonical grid, (S, P, L) of float32."""
        plane = self.model.preprocessing.plane
        full = np.empty(self.volume.shape, dtype=np.float32)
        slices = to_plane(full, plane)
        for start in range(0, len(slices), 16):
            slices[start : start + 16] = self.grid.to_slices(self.grid_scores[start : start + 16])
        return full

    @cached_property
    def foreground(self) -> NDArray[np.bool_]:
        """Tissue on the volume's canonical grid, (S, P, L)."""
        return np.ascontiguousarray(
            from_plane(self.scan.foreground, self.model.preprocessing.plane)
        )


def score_slices(
    scan: PreparedScan,
    model: FittedModel,
    grid: PatchGrid,
    batches: Iterable[tuple[list[int], NDArray[np.float16]] | None],
    seconds: dict[str, float] | None = None,
) -> Generator[tuple[SliceMaps | None, int], None, NDArray[np.float32]]:
    """Score the slices of a prepared scan as their embeddings come.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    model : FittedModel
        A fitted model.
    grid : PatchGrid
        How the patches lie over the slices.
    batches : iterable of (list of int, ndarray of float16 (B, C, h, w)) or None
        Slice numbers and their embeddings; None while they are being waited for.
    seconds : dict, optional
        Time spent waiting for embeddings ("backbone") and scoring ("model") is added to it.

    Yields
    ------
    tuple of (SliceMaps or None, int)
        The slices of a batch, smoothed over what is known so far, and how many are done; None
        for every None that came.

    Returns
    -------
    ndarray of float32, (slices, h, w)
        All maps, smoothed; slices that did not come are 0.
    """
    seconds = {} if seconds is None else seconds
    tissue = grid.to_grid(scan.foreground)
    spacing = (
        scan.spacing_mm[0],
        scan.spacing_mm[1] * grid.patch_pixels[0],
        scan.spacing_mm[2] * grid.patch_pixels[1],
    )
    # A patch with hardly any tissue has little say in its neighbours' scores.
    weights = np.where(tissue > PATCH_FOREGROUND, 1.0, 0.05).astype(np.float32)
    grown = GrowingMaps(weights, spacing, model.smoothing_mm)
    clock = time.perf_counter()
    for item in batches:
        if item is None:
            yield None, int(grown.known.sum())
            continue
        indices, features = item
        seconds["backbone"] = seconds.get("backbone", 0.0) + time.perf_counter() - clock
        clock = time.perf_counter()
        grown.add(indices, model.score(features))
        smoothed = grown.smoothed(indices)
        seconds["model"] = seconds.get("model", 0.0) + time.perf_counter() - clock
        yield (
            SliceMaps(indices, smoothed, grid, scan.foreground[indices]),
            int(grown.known.sum()),
        )
        clock = time.perf_counter()
    final = grown.smoothed(range(len(scan)))
    final[~grown.known] = 0
    return final


def detect(
    volume: Volume,
    model: FittedModel,
    *,
    backbone: Backbone | None = None,
    first_slice: int | None = None,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, AnomalyMap]:
    """Score a scan, the slice on screen first.

    Parameters
    ----------
    volume : Volume
        The scan.
    model : FittedModel
        A fitted model.
    backbone : Backbone, optional
        The model's backbone if it is loaded already; otherwise it is, and run by the engine
        that `choose_engine` finds.
    first_slice : int, optional
        Slice on screen, in the model's plane; the others follow from there outwards.
        The middle if not given.
    batch : int, optional
        Slices at once; as many as suit the backbone's engine if not given.
    cache : FeatureCache or bool
        Where embeddings are looked for and kept; True is the user's own cache, False none.

    Yields
    ------
    Progress
        With a `SliceMaps` as result after every batch, and without one while waiting.

    Returns
    -------
    AnomalyMap
    """
    clock = time.perf_counter()
    preparing = Progress("Preparing the scan", 0, 1, volume.name)
    yield preparing
    store = open_cache(cache)

    def load() -> Backbone:
        if backbone is None:
            return model.load_backbone()
        model.check_backbone(backbone)
        return backbone

    def digest() -> str:
        return "" if store is None else content_digest(volume.array, volume.spacing_mm)

    ready = Inner(in_background(load, lambda: prepare(volume, model.preprocessing), digest))
    for _ in ready:
        yield preparing
    network, scan, name = ready.value
    if backbone is None:
        network = yield from choose_engine(network, input_size=model.preprocessing.input_size)
    seconds = {"prepare": time.perf_counter() - clock}
    first = len(scan) // 2 if first_slice is None else min(max(first_slice, 0), len(scan) - 1)
    grid = scan.grid(network.spec.stride, network.spec.multiple)
    entry = cache_entry(store, name, scan, grid, network)
    order = outwards(len(scan), first)
    size = batch or network.engine.batch
    batches = extract_features(scan, grid, network, order, size, first_batch=1, entry=entry)
    scoring = Inner(score_slices(scan, model, grid, batches, seconds))
    for maps, done in scoring:
        note = network.engine.take_note()
        yield Progress("Detecting", done, len(scan), volume.name, maps, note)
    return AnomalyMap(volume, model, scoring.value, grid, scan, seconds)
