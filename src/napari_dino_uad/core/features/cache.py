"""Embeddings on disk, so that a backbone runs once per scan.

An entry holds the embeddings of one scan by one backbone under one preprocessing, and is named
after the content of all three. It is a folder:

- ``entry.json``: what the name stands for and the shape; its time of change is its last use;
- ``features.f16``: (slices, V) in half precision, written slice by slice in any order: the maps
  of the backbone's layers, as `LayerLayout` says;
- ``checksums.bin``: 16 bytes for each slice, written after it; zeros where it is missing;
- ``complete``: an empty file, made when every slice that was asked for is there. Slices without
  tissue are not asked for.

A slice counts only if its checksum matches. Remains of a killed process, a full disk or an edit
are therefore computed again, and two processes may fill one entry together. An entry that
a living process uses is neither evicted nor cleared by any other (`cache_users`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache_entry import CHECKSUM_BYTES, CacheEntry
from napari_dino_uad.core.features.cache_users import in_use, sweep_users
from napari_dino_uad.core.storage.atomic import staged
from napari_dino_uad.core.storage.folders import FOLDER_VARIABLE, cache_home, own_folder
from napari_dino_uad.core.storage.records import read_object
from napari_dino_uad.core.storage.temporary import sweep

__all__ = [
    "DEFAULT_LIMIT_GB",
    "CacheEntry",
    "CacheKey",
    "CacheUsage",
    "FeatureCache",
    "content_digest",
    "open_cache",
]

#: Size above which the least recently used entries are removed.
DEFAULT_LIMIT_GB = 20.0

#: Environment variable: the size limit in GB.
LIMIT_VARIABLE = "NAPARI_DINO_UAD_CACHE_GB"

# Counts up whenever the same scan, backbone and preprocessing would give other embeddings or
# another layout on disk; older entries are then never asked for and age away.
_FEATURE_VERSION = 5

_LOCK_TIMEOUT_S = 60.0


def content_digest(array: NDArray[Any], spacing_mm: Sequence[float]) -> str:
    """Return a name for the content of a scan, independent of its file.

    Parameters
    ----------
    array : ndarray, (S, P, L)
        Voxel values.
    spacing_mm : sequence of float
        Along the axes of `array`.

    Returns
    -------
    str
        XXH3 with 128 bits, in hexadecimal digits. It excludes accidental collisions, which is all
        that is needed here; SHA-256 would delay the first map on screen.
    """
    spacing = [float(value) for value in spacing_mm]
    digest = xxh3_128(json.dumps([array.dtype.str, array.shape, spacing]).encode())
    # Slice by slice: a view with reversed axes would have to be copied as a whole.
    for plane in array:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class CacheKey:
    """Everything that embeddings depend on.

    Attributes
    ----------
    scan : str
        From `content_digest`.
    backbone : str
        Layers that are read, checksum of the weights, engine and precision.
    preprocessing : str
        Its settings as JSON.
    """

    scan: str
    backbone: str
    preprocessing: str

    @property
    def digest(self) -> str:
        """Name of the entry."""
        parts = [_FEATURE_VERSION, self.scan, self.backbone, self.preprocessing]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class CacheUsage:
    """How full the cache is.

    Attributes
    ----------
    entries, complete : int
        Number of scans, and of those with every requested slice.
    in_use : int
        Scans used by a living process, including this one; they are neither evicted nor
        cleared.
    size_bytes, limit_bytes : int
        Size on disk, and its limit.
    """

    entries: int
    complete: int
    in_use: int
    size_bytes: int
    limit_bytes: int


class FeatureCache:
    """A folder of embeddings with a size limit, which several processes may share.

    Parameters
    ----------
    folder : Path
        Created on first use.
    limit_gb : float
        Size in GB (1e9 bytes) above which the least recently used entries are removed.
        Entries in use stay, even if they exceed the limit.

    Raises
    ------
    InputError
        If the limit is not above 0.
    """

    def __init__(self, folder: Path, limit_gb: float = DEFAULT_LIMIT_GB) -> None:
        if not 0 < limit_gb < float("inf"):
            raise InputError(f"Expected a cache limit above 0 GB, got {limit_gb}; change it.")
        self.folder = folder
        self.limit_bytes = int(limit_gb * 1e9)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the cache against changes by other processes.

        Raises
        ------
        InputError
            If the folder cannot be written to, the disk is full or the lock stays taken.
        """
        from filelock import FileLock

        try:
            own_folder(self.folder)
            with FileLock(self.folder / ".lock", timeout=_LOCK_TIMEOUT_S):
                yield
        except OSError as error:
            raise InputError(
                f"The feature cache in {self.folder} cannot be written: "
                f"{error.strerror or type(error).__name__}; free some space, choose another "
                f"folder with {FOLDER_VARIABLE}, or switch it off with --no-cache."
            ) from error

    def entry(self, key: CacheKey, shape: tuple[int, int]) -> CacheEntry:
        """Open the entry of a key; create it if it is missing or damaged.

        Parameters
        ----------
        key : CacheKey
            Scan, backbone and preprocessing.
        shape : tuple of int
            (slices, V): V numbers for each slice.

        Returns
        -------
        CacheEntry
        """
        folder = self.folder / key.digest
        described = {
            "version": _FEATURE_VERSION,
            "scan": key.scan,
            "backbone": key.backbone,
            "preprocessing": key.preprocessing,
            "shape": list(shape),
        }
        size = 2 * int(np.prod(shape))
        with self.locked():
            if _is_sound(folder, described, size):
                os.utime(folder / "entry.json")
            else:
                _remove(folder)
                self._evict(size)
                self._begin(folder, described, size)
            return CacheEntry(self, folder, shape)

    def usage(self) -> CacheUsage:
        """Measure the cache."""
        entries = self._entries()
        return CacheUsage(
            entries=len(entries),
            complete=sum((entry / "complete").exists() for entry in entries),
            in_use=sum(map(in_use, entries)),
            size_bytes=sum(_size(entry) for entry in entries),
            limit_bytes=self.limit_bytes,
        )

    def clear(self) -> int:
        """Remove every entry that is not in use and return the number of bytes freed."""
        if not self.folder.is_dir():
            return 0
        before = self.usage().size_bytes
        with self.locked():
            for folder in self.folder.iterdir():
                if folder.is_dir() and _is_ours(folder) and not in_use(folder):
                    _remove(folder)
            self._sweep()
        return before - self.usage().size_bytes

    def _entries(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if (path / "entry.json").is_file()]

    def _begin(self, folder: Path, described: dict[str, Any], size: int) -> None:
        with staged(self.folder) as partial:
            new = partial / folder.name
            new.mkdir()
            for name, length in (
                ("features.f16", size),
                ("checksums.bin", described["shape"][0] * CHECKSUM_BYTES),
            ):
                with (new / name).open("wb") as file:
                    file.truncate(length)
            (new / "entry.json").write_text(json.dumps(described, indent=1), encoding="utf-8")

    def _sweep(self) -> None:
        """Remove the remains of killed processes."""
        sweep(self.folder)
        sweep_users(self.folder)

    def _evict(self, needed: int) -> None:
        """Remove the least recently used entries until there is room for a new one."""
        self._sweep()
        entries = self._entries()
        sizes = {entry: _size(entry) for entry in entries}
        excess = sum(sizes.values()) + needed - self.limit_bytes
        for entry in sorted(entries, key=_last_use):
            if excess <= 0:
                break
            if not in_use(entry) and _remove(entry):
                excess -= sizes[entry]


def open_cache(choice: FeatureCache | bool = True) -> FeatureCache | None:
    """Return the cache to use.

    Parameters
    ----------
    choice : FeatureCache or bool
        True is the user's own, in the folder that `cache_home` returns (none if it is "off"),
        with the limit of ``NAPARI_DINO_UAD_CACHE_GB``. False is none.

    Returns
    -------
    FeatureCache or None

    Raises
    ------
    InputError
        If the limit in the environment is not a number above 0.
    """
    if isinstance(choice, FeatureCache):
        return choice
    home = cache_home()
    if not choice or home is None:
        return None
    text = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT_GB))
    try:
        limit = float(text)
    except ValueError as error:
        raise InputError(
            f"Expected {LIMIT_VARIABLE} to be a number of GB, got {text!r}; change it."
        ) from error
    return FeatureCache(home / "features", limit)


def _is_sound(folder: Path, described: dict[str, Any], size: int) -> bool:
    """Return whether an entry matches its description; slices are not checked."""
    try:
        return (
            read_object(folder / "entry.json") == described
            and (folder / "features.f16").stat().st_size == size
            and (folder / "checksums.bin").stat().st_size == described["shape"][0] * CHECKSUM_BYTES
        )
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    return len(folder.name) == 40 and set(folder.name) <= set("0123456789abcdef")


def _last_use(folder: Path) -> float:
    try:
        return (folder / "entry.json").stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError:
        return 0


def _remove(folder: Path) -> bool:
    """Remove an entry; return whether it is gone, as Windows keeps files that are mapped."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
