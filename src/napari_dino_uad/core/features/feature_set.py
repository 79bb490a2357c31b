"""Embeddings of healthy slices, as a model reads them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import CacheEntry

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.features.context import Context
    from napari_dino_uad.core.slices.patch_grid import PatchGrid
    from napari_dino_uad.core.slices.prepared import PreparedScan
from napari_dino_uad.core.features.extract import extract_features

__all__ = ["FeatureSet", "JoinedSlices", "collect_features"]


@dataclass(frozen=True)
class JoinedSlices:
    """Embeddings of some slices, joined from layer maps on access.

    Attributes
    ----------
    maps : ndarray of float16, (slices, V), or CacheEntry
        Maps of all slices, in memory or on disk. Holding an entry prevents its eviction and
        clearing; what is read from it is checked every time.
    indices : ndarray of int64
        Which slices to use.
    layout : LayerLayout
        Layout of the maps.
    """

    maps: NDArray[np.float16] | CacheEntry
    indices: NDArray[np.int64]
    layout: LayerLayout

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the equivalent array, (n, C, h, w)."""
        return len(self.indices), sum(self.layout.channels), *self.layout.grid

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        """Return the embeddings of some slices, (B, C, h, w).

        Raises
        ------
        InputError
            If they are no longer what was kept on disk.
        """
        import torch

        indices = self.indices[part]
        if isinstance(self.maps, CacheEntry):
            maps = self.maps.read(indices.tolist())
            if maps is None:
                raise InputError(
                    f"The embeddings in {self.maps.folder} were removed or damaged while they were "
                    "being used; run this again, and check the disk if that does not help."
                )
        else:
            maps = self.maps[indices]
        return np.asarray(self.layout.join(torch.from_numpy(maps)).numpy())


def collect_features(
    scan: PreparedScan,
    grid: PatchGrid,
    backbone: Backbone,
    indices: NDArray[np.int64],
    batch: int = 2,
    entry: CacheEntry | None = None,
) -> Generator[None, None, JoinedSlices]:
    """Collect the embeddings of some slices of a scan.

    Parameters
    ----------
    scan, grid, backbone, batch, entry
        As in `extract_features`.
    indices : ndarray of int64
        Slice numbers, n of them.

    Yields
    ------
    None
        After every batch and every tenth of a second.

    Returns
    -------
    JoinedSlices
        Embeddings of n slices. With a cache they stay on disk, so a cohort may exceed memory.
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
    return JoinedSlices(entry, indices, layout)


@dataclass
class FeatureSet:
    """Embeddings of healthy slices, read batch by batch for fitting.

    Attributes
    ----------
    context : Context
        Normalisation and averaging applied to embeddings before fitting.
    levels : tuple of int
        Channels of each layer read from the backbone.
    chunks : list of (features (n, C, h, w) float16, mask (n, h, w) bool)
        One per scan, in memory or on disk; the mask is True for tissue patches.
    brightness : list of (ndarray of float32 (n, h, w) or None)
        Mean intensity of each patch, one array per scan; None if it is not known.
    """

    context: Context
    levels: tuple[int, ...]
    chunks: list[tuple[NDArray[np.float16] | JoinedSlices, NDArray[np.bool_]]] = field(
        default_factory=list
    )
    brightness: list[NDArray[np.float32] | None] = field(default_factory=list)

    def add(
        self,
        features: NDArray[np.float16] | JoinedSlices,
        mask: NDArray[np.bool_],
        brightness: NDArray[np.float32] | None = None,
    ) -> None:
        """Add the slices of one scan, (n, C, h, w), (n, h, w) and (n, h, w)."""
        self.chunks.append((features, mask))
        self.brightness.append(brightness)

    def __len__(self) -> int:
        return sum(len(features) for features, _ in self.chunks)

    def transformed(
        self, size: int = 16, step: int = 1
    ) -> Iterator[tuple[torch.Tensor, NDArray[np.bool_], int]]:
        """Yield (features (B, C, h, w), mask (B, h, w), scan number), in order.

        Parameters
        ----------
        size : int
            Maximum number of slices per batch, B.
        step : int
            Use only every n-th slice.
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
