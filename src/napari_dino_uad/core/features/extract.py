"""Patch embeddings of slices, and the healthy embeddings that a model learns from."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.features.cache import CacheEntry, CacheKey, FeatureCache
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch, sharing_cores

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.slices.patch_grid import PatchGrid
    from napari_dino_uad.core.slices.prepared import PreparedScan

__all__ = ["cache_entry", "extract_features", "features_key", "outwards", "scored_slices"]

# A patch counts as tissue if more than this share of it is foreground.
PATCH_FOREGROUND = 0.25

# Cached slices read, and therefore scored, in one batch.
_CACHED_BATCH = 8


def outwards(indices: Iterable[int], first: int) -> list[int]:
    """Sort slices by distance from one slice, so that the slice on screen comes first.

    Parameters
    ----------
    indices : iterable of int
        Slice numbers.
    first : int
        Slice to start at.

    Returns
    -------
    list of int
        The same numbers, nearest to `first` first.
    """
    return sorted(map(int, indices), key=lambda index: (abs(index - first), index))


def scored_slices(scan: PreparedScan, grid: PatchGrid) -> NDArray[np.int64]:
    """Return the slices that may contain a patch of tissue; only these are embedded and scored."""
    return np.flatnonzero(grid.may_exceed(scan.foreground, PATCH_FOREGROUND))


def features_key(backbone: Backbone) -> str:
    """Return a key for what embeddings depend on: the layers read, the weights and the engine."""
    return f"{backbone.spec.key} {backbone.sha256} {backbone.engine.spec.description}"


def cache_entry(
    cache: FeatureCache | None,
    digest: str,
    scan: PreparedScan,
    grid: PatchGrid,
    backbone: Backbone,
) -> CacheEntry | None:
    """Open the cached embeddings of a scan, or None without a cache.

    Parameters
    ----------
    cache : FeatureCache or None
        From `open_cache`.
    digest : str
        Digest of the scan's content, from `content_digest`.
    scan, grid, backbone
        As in `extract_features`.
    """
    if cache is None:
        return None
    # The object is found by the embeddings, which are the same with and without.
    embedded = dataclasses.replace(scan.preprocessing, object_mask=False)
    settings = json.dumps(embedded.to_dict(), sort_keys=True)
    key = CacheKey(digest, features_key(backbone), settings)
    return cache.entry(key, (len(scan), LayerLayout.of(backbone.spec, grid.shape).size))


def extract_features(
    scan: PreparedScan,
    grid: PatchGrid,
    backbone: Backbone,
    order: Sequence[int],
    batch: int = 2,
    first_batch: int | None = None,
    entry: CacheEntry | None = None,
) -> Generator[tuple[list[int], NDArray[np.float16]] | None, None, None]:
    """Read from the cache, or compute, the maps of the backbone's layers, batch by batch.

    One thread prepares slices, a second runs the backbone, and a third writes to the cache, so
    that neither the backbone nor the consumer waits for the others. At most a few batches are in
    memory.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    grid : PatchGrid
        The scan's patch grid for this backbone.
    backbone : Backbone
        A loaded backbone.
    order : sequence of int
        Slices to compute, in this order.
    batch : int
        Slices per batch.
    first_batch : int, optional
        Slices in the first batch; fewer give a quicker first result.
    entry : CacheEntry, optional
        Cache entry to read embeddings from and write them to.

    Yields
    ------
    tuple of (list of int, ndarray of float16 (B, V)), or None
        Slice numbers and the maps of the backbone's layers, which `LayerLayout.join` turns into
        embeddings; None after every tenth of a second without a batch.
    """
    inputs = prefetch(_inputs(scan, grid, order, batch, first_batch, entry), ahead=2)
    # Two ahead: one waits to be consumed while the next is computed.
    embedded = prefetch(_embedded(inputs, backbone), ahead=2)
    yield from prefetch(_kept(embedded, entry), ahead=2, patience_s=PATIENCE_S)


def _inputs(
    scan: PreparedScan,
    grid: PatchGrid,
    order: Sequence[int],
    batch: int,
    first_batch: int | None,
    entry: CacheEntry | None,
) -> Iterator[tuple[list[int], NDArray[np.float16] | torch.Tensor]]:
    """Yield cached maps, and the network's input for slices that are not cached."""
    known = np.zeros(len(scan), dtype=bool) if entry is None else entry.known()
    resized: dict[int, torch.Tensor] = {}
    start = 0
    waited = 0.0
    while start < len(order):
        cached = bool(known[order[start]])
        size = first_batch if start == 0 and first_batch else _CACHED_BATCH if cached else batch
        # All slices of a batch are cached, or none.
        alike = known if cached else ~known
        indices = list(takewhile(alike.__getitem__, order[start : start + size]))
        start += len(indices)
        features = entry.read(indices) if entry is not None and cached else None
        if features is not None:
            yield indices, features
            continue
        for place in range(0, len(indices), batch):
            part = indices[place : place + batch]
            with sharing_cores(waited):
                images = scan.images(part, grid, resized)
            clock = time.perf_counter()
            yield part, images
            waited = time.perf_counter() - clock


def _embedded(
    inputs: Iterable[tuple[list[int], NDArray[np.float16] | torch.Tensor] | None],
    backbone: Backbone,
) -> Iterator[tuple[list[int], NDArray[np.float16], bool]]:
    """Embed the inputs that are not cached; the flag says whether a batch was computed."""
    # Start a batch before waiting for the previous one, so that the engine is never idle.
    begun: deque[tuple[list[int], Callable[[], NDArray[np.float16]], bool]] = deque()
    for item in inputs:
        assert item is not None
        indices, content = item
        if isinstance(content, np.ndarray):
            begun.append((indices, partial(np.asarray, content), False))
        else:
            begun.append((indices, partial(_fetched, backbone.start(content)), True))
        if len(begun) > 1:
            done, maps, computed = begun.popleft()
            yield done, maps(), computed
    for done, maps, computed in begun:
        yield done, maps(), computed


def _fetched(maps: Callable[[], torch.Tensor]) -> NDArray[np.float16]:
    """Wait for maps and copy them to main memory, in half precision."""
    return np.asarray(maps().half().cpu().numpy())


def _kept(
    embedded: Iterable[tuple[list[int], NDArray[np.float16], bool] | None],
    entry: CacheEntry | None,
) -> Iterator[tuple[list[int], NDArray[np.float16]]]:
    """Write computed batches to the cache and pass everything on."""
    for item in embedded:
        assert item is not None
        indices, features, computed = item
        if computed and entry is not None:
            entry.write(indices, features)
        yield indices, features
    if entry is not None:
        entry.finish()
