"""From slices to patch embeddings, and the healthy embeddings a model learns from."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.cache import CacheEntry, CacheKey, FeatureCache
from napari_dino_uad.core.layer_maps import LayerLayout
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch, sharing_cores

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones import Backbone
    from napari_dino_uad.core.normative.context import Context
    from napari_dino_uad.core.slices import PatchGrid, PreparedScan

__all__ = [
    "FeatureSet",
    "JoinedSlices",
    "cache_entry",
    "collect_features",
    "extract_features",
    "features_key",
    "outwards",
    "scored_slices",
]

# A patch counts as tissue when this share of it is foreground.
PATCH_FOREGROUND = 0.25

# Cached slices read, and so scored, at once.
_CACHED_BATCH = 8


def outwards(indices: Iterable[int], first: int) -> list[int]:
    """Order slices from one outwards, so that what is on screen comes first.

    Parameters
    ----------
    indices : iterable of int
        Slice numbers.
    first : int
        Slice to start at.

    Returns
    -------
    list of int
        The same, nearest to `first` first.
    """
    return sorted(map(int, indices), key=lambda index: (abs(index - first), index))


def scored_slices(scan: PreparedScan, grid: PatchGrid) -> NDArray[np.int64]:
    """Return the slices that may hold a patch of tissue: no others are embedded to be scored."""
    return np.flatnonzero(grid.may_exceed(scan.foreground, PATCH_FOREGROUND))


def features_key(backbone: Backbone) -> str:
    """Name what embeddings depend on: the layers read, the weights and the engine."""
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
        The scan's content, from `content_digest`.
    scan, grid, backbone
        As in `extract_features`.
    """
    if cache is None:
        return None
    settings = json.dumps(scan.preprocessing.to_dict(), sort_keys=True)
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
    """Read or compute what a backbone makes of some slices, batch by batch.

    Slices are prepared in one thread while the backbone runs in another and a third keeps what it
    gave, so that neither it nor whoever takes the embeddings waits longer than need be; a few
    batches at most are in memory.

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
    entry : CacheEntry, optional
        Where embeddings are looked for first, and kept.

    Yields
    ------
    tuple of (list of int, ndarray of float16 (B, V)), or None
        Slice numbers and the maps of the backbone's layers, which `LayerLayout.join` makes
        embeddings of; None every tenth of a second in which none came.
    """
    inputs = prefetch(_inputs(scan, grid, order, batch, first_batch, entry), ahead=2)
    # Two ahead: one that waits to be taken while the next is made.
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
    """Give what the cache holds, and the network's input for what it does not."""
    known = np.zeros(len(scan), dtype=bool) if entry is None else entry.known()
    resized: dict[int, torch.Tensor] = {}
    start = 0
    waited = 0.0
    while start < len(order):
        cached = bool(known[order[start]])
        size = first_batch if start == 0 and first_batch else _CACHED_BATCH if cached else batch
        # A batch is cached or not as a whole.
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
    """Embed what is not embedded yet, and say which was computed."""
    # One batch is begun while the one before is waited for, so that between them nothing is idle.
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
    """Wait for maps and bring them to the processor's memory, in half precision."""
    return np.asarray(maps().half().cpu().numpy())


def _kept(
    embedded: Iterable[tuple[list[int], NDArray[np.float16], bool] | None],
    entry: CacheEntry | None,
) -> Iterator[tuple[list[int], NDArray[np.float16]]]:
    """Keep what was computed."""
    for item in embedded:
        assert item is not None
        indices, features, computed = item
        if computed and entry is not None:
            entry.write(indices, features)
        yield indices, features
    if entry is not None:
        entry.finish()


@dataclass(frozen=True)
class JoinedSlices:
    """Embeddings of some slices, joined from the maps of layers as they are asked for.

    Attributes
    ----------
    maps : ndarray of float16, (slices, V)
        Of all slices; of a cache entry mapped into memory.
    indices : ndarray of int64
        Which of them.
    layout : LayerLayout
        What the maps are.
    entry : CacheEntry, optional
        Where they lie; held, so that it is not evicted meanwhile.
    """

    maps: NDArray[np.float16]
    indices: NDArray[np.int64]
    layout: LayerLayout
    entry: CacheEntry | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as of an array, (n, C, h, w)."""
        return len(self.indices), sum(self.layout.channels), *self.layout.grid

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        import torch

        maps = torch.from_numpy(np.asarray(self.maps[self.indices[part]]))
        return np.asarray(self.layout.join(maps).numpy())


def collect_features(
    scan: PreparedScan,
    grid: PatchGrid,
    backbone: Backbone,
    indices: NDArray[np.int64],
    batch: int = 2,
    entry: CacheEntry | None = None,
) -> Generator[None, None, JoinedSlices]:
    """Bring together the embeddings of some slices of a scan.

    Parameters
    ----------
    scan, grid, backbone, batch, entry
        As in `extract_features`.
    indices : ndarray of int64
        Slice numbers, n of them.

    Yields
    ------
    None
        At every batch and every tenth of a second.

    Returns
    -------
    JoinedSlices
        Of n slices; on disk if there is a cache, so that a cohort need not fit in memory.
    """
    layout = LayerLayout.of(backbone.spec, grid.shape)
    kept = np.empty((len(indices) if entry is None else 0, layout.size), np.float16)
    done = 0
    for item in extract_features(scan, grid, backbone, indices.tolist(), batch, entry=entry):
        if item is not None:
            if entry is None:
                kept[done : done + len(item[0])] = item[1]
            done += len(item[0])
        yield
    if entry is None:
        return JoinedSlices(kept, np.arange(len(indices)), layout)
    return JoinedSlices(entry.array(), indices, layout, entry)


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
        One for each scan, in memory or on disk; the mask says which patches are tissue.
    """

    context: Context
    levels: tuple[int, ...]
    chunks: list[tuple[NDArray[np.float16] | JoinedSlices, NDArray[np.bool_]]] = field(
        default_factory=list
    )

    def add(self, features: NDArray[np.float16] | JoinedSlices, mask: NDArray[np.bool_]) -> None:
        """Add the slices of one scan, (n, C, h, w) and (n, h, w)."""
        self.chunks.append((features, mask))

    def __len__(self) -> int:
        return sum(len(features) for features, _ in self.chunks)

    def transformed(
        self, size: int = 16, step: int = 1
    ) -> Iterator[tuple[torch.Tensor, NDArray[np.bool_], int]]:
        """Yield (features (B, C, h, w), mask (B, h, w), scan number), in order.

        Parameters
        ----------
        size : int
            Slices at once, B at most.
        step : int
            Only the first of every so many slices.
        """
        import torch

        before = 0
        for scan, (features, mask) in enumerate(self.chunks):
            own = range(-before % step, len(features), step)
            before += len(features)
            for start in range(0, len(own), size):
                part = slice(own[start], own[start : start + size].stop, step)
                values = torch.from_numpy(np.asarray(features[part])).float()
                yield self.context.apply(values, self.levels), mask[part], scan
