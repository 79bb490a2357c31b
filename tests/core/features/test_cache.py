"""The cache of embeddings: what it believes, shares, evicts and forgets."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import (
    LIMIT_VARIABLE,
    CacheKey,
    FeatureCache,
    content_digest,
    open_cache,
)
from napari_dino_uad.core.storage.folders import FOLDER_VARIABLE

SHAPE = (6, 60)


def key(scan: str = "scan") -> CacheKey:
    return CacheKey(scan, "weights cpu", "{}")


def embeddings(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float16)


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


def filled(cache: FeatureCache, scan: str = "scan"):
    entry = cache.entry(key(scan), SHAPE)
    entry.write(range(6), embeddings())
    entry.finish()
    return entry


def test_slices_come_back_bit_for_bit_in_any_order(cache):
    entry = filled(cache)
    assert np.array_equal(entry.read([4, 0, 2]), embeddings()[[4, 0, 2]])
    assert np.array_equal(entry.read(range(6)), embeddings())


def test_entry_grows_slice_by_slice(cache):
    cache.entry(key(), SHAPE).write([3, 1], embeddings()[[3, 1]])
    entry = cache.entry(key(), SHAPE)
    assert entry.known().tolist() == [False, True, False, True, False, False]
    assert entry.read([0, 1]) is None
    assert np.array_equal(entry.read([1, 3]), embeddings()[[1, 3]])
    assert not entry.complete
    entry.write([0, 2, 4], embeddings()[[0, 2, 4]])
    assert not entry.complete
    entry.finish()
    assert cache.entry(key(), SHAPE).complete


@pytest.mark.parametrize("name", ["features.f16", "checksums.bin"])
def test_a_changed_bit_is_not_believed(cache, name):
    entry = filled(cache)
    path = entry.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = cache.entry(key(), SHAPE)
    trusted = [index for index in range(6) if again.read([index]) is not None]
    assert len(trusted) == 5
    assert np.array_equal(again.read(trusted), embeddings()[trusted])


def test_slices_that_changed_places_are_not_believed(cache):
    entry = filled(cache)
    for name in ("features.f16", "checksums.bin"):
        content = (entry.folder / name).read_bytes()
        half = len(content) // 2
        (entry.folder / name).write_bytes(content[half:] + content[:half])
    assert all(entry.read([index]) is None for index in range(6))


@pytest.mark.parametrize("name", ["features.f16", "checksums.bin", "entry.json"])
def test_a_truncated_entry_is_begun_anew(cache, name):
    path = filled(cache).folder / name
    path.write_bytes(path.read_bytes()[:-7])
    again = cache.entry(key(), SHAPE)
    assert not again.known().any()
    assert not again.complete


def test_the_entries_not_used_for_longest_go_first(tmp_path):
    alone = FeatureCache(tmp_path / "alone")
    filled(alone)
    cache = FeatureCache(tmp_path / "cache", limit_gb=3.5 * alone.usage().size_bytes / 1e9)
    folders = []
    for age, scan in enumerate("abc"):
        folders.append(filled(cache, scan).folder)
        os.utime(folders[-1] / "entry.json", (1000 + age, 1000 + age))
    # Used again, the oldest is the youngest.
    cache.entry(key("a"), SHAPE)
    filled(cache, "d")
    assert [folder.exists() for folder in folders] == [True, False, True]
    assert cache.usage().size_bytes <= cache.limit_bytes


def test_what_is_in_use_is_not_evicted(tmp_path):
    cache = FeatureCache(tmp_path, limit_gb=1e-9)
    held = filled(cache, "held")
    filled(cache, "other")
    assert np.array_equal(held.read([0]), embeddings()[[0]])
    assert cache.usage().entries == 2
    filled(cache, "third")
    assert cache.usage().entries == 2


def test_clearing_removes_entries_and_nothing_else(cache):
    filled(cache)
    (cache.folder / "thesis").mkdir()
    assert cache.usage().complete == 1
    assert cache.clear() > 0
    assert cache.usage().entries == 0
    assert (cache.folder / "thesis").is_dir()


def _fill(folder: Path, indices: list[int], rounds: int) -> None:
    entry = FeatureCache(folder).entry(key(), SHAPE)
    for _ in range(rounds):
        for index in indices:
            entry.write([index], embeddings()[[index]])
    entry.finish()


def test_two_processes_fill_one_entry(cache):
    context = multiprocessing.get_context("spawn")
    orders = [list(range(6)), list(reversed(range(6)))]
    processes = [context.Process(target=_fill, args=(cache.folder, one, 20)) for one in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    entry = cache.entry(key(), SHAPE)
    assert entry.complete
    assert np.array_equal(entry.read(range(6)), embeddings())


def test_a_scan_is_named_after_its_content(cache):
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    name = content_digest(array, (1, 1, 1))
    assert content_digest(np.asfortranarray(array), (1.0, 1.0, 1.0)) == name
    assert content_digest(array, (1, 1, 2)) != name
    assert content_digest(array.reshape(3, 5, 4), (1, 1, 1)) != name
    changed = array.copy()
    changed[2, 3, 4] += 1
    assert content_digest(changed, (1, 1, 1)) != name


def test_the_environment_chooses_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(LIMIT_VARIABLE, "2")
    cache = open_cache()
    assert cache.folder.parent == tmp_path
    assert cache.limit_bytes == 2_000_000_000
    assert open_cache(False) is None
    monkeypatch.setenv(FOLDER_VARIABLE, "off")
    assert open_cache() is None
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for wrong in ("plenty", "0"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(InputError):
            open_cache()


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="--no-cache"):
        FeatureCache(tmp_path / "file" / "cache").entry(key(), SHAPE)
