"""What one process reads from the cache no other takes away, and what is read is checked."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dino_uad.cli import app
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import CacheKey, FeatureCache
from napari_dino_uad.core.features.feature_set import JoinedSlices

SHAPE = (6, 60)


def key(scan: str = "scan") -> CacheKey:
    return CacheKey(scan, "weights cpu", "{}")


def embeddings() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float16)


def filled(cache: FeatureCache, scan: str = "scan"):
    entry = cache.entry(key(scan), SHAPE)
    entry.write(range(6), embeddings())
    entry.finish()
    return entry


def _use(folder: Path, ready, go_on) -> None:
    entry = filled(FeatureCache(folder))
    ready.set()
    go_on.wait(60)
    found = entry.read(range(6))
    assert found is not None
    assert np.array_equal(found, embeddings())


@pytest.fixture
def user(tmp_path):
    """A process that holds an entry, and what lets it go on."""
    context = multiprocessing.get_context("spawn")
    ready, go_on = context.Event(), context.Event()
    process = context.Process(target=_use, args=(tmp_path / "features", ready, go_on))
    process.start()
    assert ready.wait(60)
    yield process, go_on
    process.kill()
    process.join()


def test_clear_keeps_what_another_process_uses(user, tmp_path, monkeypatch):
    process, go_on = user
    cache = FeatureCache(tmp_path / "features")
    filled(cache, "other")
    assert cache.usage().in_use == 1
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path))
    told = CliRunner().invoke(app, ["cache", "clear"]).output
    assert "1 scan is in use by another run; its embeddings were kept." in told
    assert cache.usage().entries == 1
    go_on.set()
    process.join(60)
    assert process.exitcode == 0
    assert cache.usage().in_use == 0
    assert cache.clear() > 0
    assert cache.usage().entries == 0


def test_eviction_keeps_what_another_process_uses(user, tmp_path):
    process, go_on = user
    cache = FeatureCache(tmp_path / "features", limit_gb=1e-9)
    filled(cache, "second")
    filled(cache, "third")
    go_on.set()
    process.join(60)
    assert process.exitcode == 0


def test_a_killed_process_uses_nothing(user, tmp_path):
    process, _ = user
    process.kill()
    process.join()
    cache = FeatureCache(tmp_path / "features")
    assert cache.usage().entries == 1
    assert cache.usage().in_use == 0
    assert cache.clear() > 0
    assert not list((cache.folder / ".users").iterdir())


def test_an_entry_let_go_of_is_not_in_use(tmp_path):
    cache = FeatureCache(tmp_path)
    first, second = filled(cache), cache.entry(key(), SHAPE)
    del first
    assert cache.usage().in_use == 1
    assert cache.clear() == 0
    del second
    assert cache.usage().in_use == 0


def test_slices_begun_anew_are_not_learned_from(tmp_path):
    cache = FeatureCache(tmp_path)
    entry = filled(cache)
    joined = JoinedSlices(entry, np.arange(6), None)
    # By hand, since no process of ours does so.
    shutil.rmtree(entry.folder)
    with pytest.raises(InputError, match="removed or damaged while they were being used"):
        joined[0:3]
    begun = cache.entry(key(), SHAPE)
    assert not begun.known().any()
    with pytest.raises(InputError, match="removed or damaged while they were being used"):
        joined[0:3]


def test_an_entry_removed_by_hand_ends_nothing(tmp_path):
    entry = filled(FeatureCache(tmp_path))
    shutil.rmtree(entry.folder)
    assert not entry.known().any()
    assert entry.read([0]) is None
    entry.write([0], embeddings()[[0]])
    entry.finish()
    assert not entry.folder.exists()


def test_many_threads_take_and_leave_an_entry(tmp_path):
    cache = FeatureCache(tmp_path)

    def run() -> None:
        for _ in range(20):
            cache.entry(key(), SHAPE)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.usage().in_use == 0


_SCRIPT = """
import sys, time
from pathlib import Path
from napari_dino_uad.core.pipeline import prefetch

def items():
    yield 1
    time.sleep(1)
    Path(sys.argv[1]).touch()
    yield 2

walk = prefetch(items(), ahead=2)
next(walk)
raise SystemExit(2)
"""


def test_threads_end_before_python_does(tmp_path):
    # Ended by force within torch, a thread would bring the process down with it.
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "done")]
    assert subprocess.run(command, check=False).returncode == 2
    assert (tmp_path / "done").exists()
