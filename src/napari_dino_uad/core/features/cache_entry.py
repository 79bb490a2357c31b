"""One entry of the cache: the embeddings of a scan, read and written slice by slice."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from napari_dino_uad.core.features.cache_users import release, use
from napari_dino_uad.core.storage.atomic import sync_file, sync_folder

if TYPE_CHECKING:
    from napari_dino_uad.core.features.cache import FeatureCache

__all__ = ["CHECKSUM_BYTES", "CacheEntry"]

#: Bytes of an XXH3 checksum with 128 bits.
CHECKSUM_BYTES = 16
_MISSING = bytes(CHECKSUM_BYTES)


class CacheEntry:
    """The embeddings of one scan; slices may be missing.

    Built by `FeatureCache.entry`, with the cache locked. While this object exists, no process
    evicts or clears the entry.

    Attributes
    ----------
    folder : Path
        Folder of the entry.
    shape : tuple of int
        (slices, V).
    """

    def __init__(self, cache: FeatureCache, folder: Path, shape: tuple[int, int]) -> None:
        self._cache = cache
        self.folder = folder
        self.shape = shape
        self._slice_bytes = 2 * shape[1]
        use(folder)
        weakref.finalize(self, release, folder, os.getpid())

    def known(self) -> NDArray[np.bool_]:
        """Return which slices have a checksum, (slices,) of bool; `read` compares it."""
        known = np.zeros(self.shape[0], dtype=bool)
        try:
            content = (self.folder / "checksums.bin").read_bytes()
        except OSError:
            # The folder was removed by hand.
            return known
        if len(content) == self.shape[0] * CHECKSUM_BYTES:
            stored = np.frombuffer(content, dtype=np.uint8)
            known[:] = stored.reshape(-1, CHECKSUM_BYTES).any(axis=1)
        return known

    @property
    def complete(self) -> bool:
        """Whether all slices requested so far were written; others may be missing."""
        return (self.folder / "complete").exists()

    def read(self, indices: Sequence[int]) -> NDArray[np.float16] | None:
        """Read slices and check them.

        Parameters
        ----------
        indices : sequence of int
            Slice numbers.

        Returns
        -------
        ndarray of float16, (B, V), or None
            None if a slice is missing, cannot be read or does not have its checksum.
        """
        out = np.empty((len(indices), self.shape[1]), dtype=np.float16)
        try:
            # Read, not mapped: mapped files count as memory of the process, and may change after
            # the check.
            with (
                (self.folder / "features.f16").open("rb") as features,
                (self.folder / "checksums.bin").open("rb") as checksums,
            ):
                for place, index in enumerate(indices):
                    checksums.seek(index * CHECKSUM_BYTES)
                    expected = checksums.read(CHECKSUM_BYTES)
                    if expected in (_MISSING, b""):
                        return None
                    features.seek(index * self._slice_bytes)
                    view = memoryview(out[place]).cast("B")
                    if features.readinto(view) != self._slice_bytes:
                        return None
                    if self._checksum(index, view) != expected:
                        return None
        except OSError:
            return None
        return out

    def write(self, indices: Sequence[int], features: NDArray[np.float16]) -> None:
        """Write computed slices.

        Parameters
        ----------
        indices : sequence of int
            Slice numbers.
        features : ndarray of float16, (B, V)
            Their maps.

        Raises
        ------
        InputError
            If the disk is full or the folder cannot be written to.
        """
        features = np.ascontiguousarray(features, dtype=np.float16)
        views = [memoryview(part).cast("B") for part in features]
        sums = [self._checksum(*pair) for pair in zip(indices, views, strict=True)]
        with self._cache.locked():
            try:
                with (
                    (self.folder / "features.f16").open("r+b") as file,
                    (self.folder / "checksums.bin").open("r+b") as table,
                ):
                    for index, view in zip(indices, views, strict=True):
                        file.seek(index * self._slice_bytes)
                        file.write(view)
                    file.flush()
                    for index, checksum in zip(indices, sums, strict=True):
                        table.seek(index * CHECKSUM_BYTES)
                        table.write(checksum)
            except FileNotFoundError:
                # The folder was removed by hand; the next request creates the entry again.
                return

    def finish(self) -> None:
        """Mark the entry as complete: every requested slice is there.

        Raises
        ------
        InputError
            If the disk is full or the folder cannot be written to.
        """
        if self.complete:
            return
        with self._cache.locked():
            try:
                marker = self.folder / "complete"
                marker.touch()
                sync_file(marker)
                sync_folder(self.folder)
            except FileNotFoundError:
                # The folder was removed by hand.
                return

    def _checksum(self, index: int, view: memoryview) -> bytes:
        # It covers the entry's name and the slice's number, so that no slice passes for another.
        # XXH3 detects damage as well as SHA-256 in a tenth of the time. Neither stops an attacker,
        # who could write a new checksum too.
        digest = xxh3_128(f"{self.folder.name} {index} ".encode())
        digest.update(view)
        return digest.digest()
