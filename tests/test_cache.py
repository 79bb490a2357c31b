"""Embeddings on disk: what is trusted, what is computed again, and that nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dino_uad import Case, detect, drain, fit, load_backbone, load_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.backbones import Backbone
from napari_dino_uad.core.cache import CacheKey, FeatureCache, content_digest, open_cache
from napari_dino_uad.core.errors import InputError

SMALL = {"components": 40, "epochs": 2, "max_patches": 8000}
SHAPE = (5, 3, 4, 4)


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "features")


def key(name="scan"):
    return CacheKey(name, "backbone", "{}")


def slices(count=5, seed=0):
    return np.random.default_rng(seed).random((count, *SHAPE[1:])).astype(np.float16)


def test_what_was_written_is_read(cache):
    entry = cache.entry(key(), SHAPE)
    assert not entry.known().any()
    assert entry.read([0]) is None
    values = slices()
    entry.write([3, 1], values[[3, 1]])
    assert entry.known().tolist() == [False, True, False, True, False]
    assert not entry.complete
    again = FeatureCache(cache.folder).entry(key(), SHAPE)
    np.testing.assert_array_equal(again.read([1, 3]), values[[1, 3]])
    assert again.read([1, 2]) is None
    again.write([0, 2, 4], values[[0, 2, 4]])
    assert again.complete
    np.testing.assert_array_equal(again.array(), values)


def test_another_scan_backbone_or_setting_is_another_entry(cache):
    keys = [
        CacheKey("a", "b", "c"), CacheKey("x", "b", "c"), CacheKey("a", "x", "c"),
        CacheKey("a", "b", "x"),
    ]  # fmt: skip
    assert len({one.digest for one in keys}) == 4


def test_the_digest_follows_content_and_spacing():
    array = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    first = content_digest(array, (1, 1, 1))
    assert content_digest(array.copy(), (1, 1, 1)) == first
    assert content_digest(array, (2, 1, 1)) != first
    assert content_digest(array.reshape(5, 4, 6), (1, 1, 1)) != first
    array[0, 0, 0] += 1
    assert content_digest(array, (1, 1, 1)) != first


def test_a_changed_byte_is_not_trusted(cache):
    entry = cache.entry(key(), SHAPE)
    entry.write(range(5), slices())
    path = entry.folder / "features.f16"
    data = bytearray(path.read_bytes())
    data[2 * 3 * 4 * 4 * 2 + 5] ^= 1
    path.write_bytes(data)
    assert entry.read([1]) is not None
    assert entry.read([2]) is None


def test_a_truncated_entry_begins_anew(cache):
    entry = cache.entry(key(), SHAPE)
    entry.write(range(5), slices())
    path = entry.folder / "features.f16"
    path.write_bytes(path.read_bytes()[:-10])
    assert not cache.entry(key(), SHAPE).known().any()


def test_the_entries_not_used_for_longest_go_first(tmp_path):
    size = 2 * int(np.prod(SHAPE))
    cache = FeatureCache(tmp_path, limit_gb=3.6 * size / 1e9)
    now = time.time()
    for age, name in ((30, "old"), (20, "middle"), (10, "new")):
        entry = cache.entry(key(name), SHAPE)
        entry.write(range(5), slices())
        os.utime(entry.folder / "entry.json", (now - age, now - age))
        del entry
    cache.entry(key("middle"), SHAPE)
    cache.entry(key("another"), SHAPE)
    left = {path.name for path in cache.folder.iterdir() if path.is_dir()}
    assert key("old").digest not in left
    assert key("middle").digest in left


def test_two_processes_fill_one_entry(cache):
    code = """
import sys, numpy as np
from pathlib import Path
from napari_dino_uad.core.cache import CacheKey, FeatureCache
start, folder = int(sys.argv[1]), Path(sys.argv[2])
entry = FeatureCache(folder).entry(CacheKey("scan", "backbone", "{}"), (40, 3, 4, 4))
for index in range(start, 40, 2):
    entry.write([index], np.full((1, 3, 4, 4), index, np.float16))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(start), str(cache.folder)])
        for start in (0, 1)
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    entry = cache.entry(key(), (40, 3, 4, 4))
    assert entry.complete
    values = entry.read(range(40))
    assert values[:, 0, 0, 0].tolist() == list(range(40))


def test_detecting_again_does_not_touch_the_backbone(cache, model, ill, monkeypatch):
    first = drain(detect(ill.volume, model, cache=cache)).scores
    uncached = drain(detect(ill.volume, model, cache=False)).scores
    np.testing.assert_array_equal(first, uncached)

    def forbidden(*_):
        raise AssertionError("the backbone was used")

    monkeypatch.setattr(Backbone, "embed", forbidden)
    # Scored in larger batches, whose sums round otherwise.
    again = drain(detect(ill.volume, model, cache=cache)).scores
    np.testing.assert_allclose(again, first, atol=1e-5)
    with pytest.raises(AssertionError):
        drain(detect(ill.volume, model, cache=False))


def test_a_second_method_is_fitted_without_the_backbone(cache, healthy, monkeypatch):
    cases = [Case(head.volume) for head in healthy]
    drain(fit(cases, settings=SMALL, cache=cache))
    monkeypatch.setattr(Backbone, "embed", None)
    settings = {"epochs": 1, "components": 16, "hidden": 16}
    assert drain(fit(cases, method="ar", settings=settings, cache=cache)).normative.method == "ar"


def test_tampered_embeddings_are_computed_again(cache, model, ill):
    first = drain(detect(ill.volume, model, cache=cache)).scores
    [features] = cache.folder.glob("*/features.f16")
    data = bytearray(features.read_bytes())
    for place in range(0, len(data), len(data) // 7):
        data[place] ^= 0xFF
    features.write_bytes(data)
    again = drain(detect(ill.volume, model, cache=cache)).scores
    np.testing.assert_allclose(again, first, atol=1e-5)


def test_a_killed_fit_goes_on_and_gives_the_same_model(heads, tmp_path):
    code = [sys.executable, "-m", "napari_dino_uad", "fit", str(heads / "healthy")]
    settings = [f"--set={name}={value}" for name, value in SMALL.items()]
    whole = tmp_path / "whole.safetensors"
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "NAPARI_DINO_UAD_CACHE": str(tmp_path / "killed")}
    process = subprocess.Popen(
        [*code, "--out", str(tmp_path / "m.safetensors"), *settings], env=environment, **options
    )
    killed = FeatureCache(tmp_path / "killed" / "features")
    deadline = time.monotonic() + 120
    while killed.usage().complete < 1 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "m.safetensors").exists()
    done = {
        path.parent: path.stat().st_mtime_ns
        for path in killed.folder.glob("*/features.f16")
        if (path.parent / "complete").exists()
    }
    assert done
    subprocess.run(
        [*code, "--out", str(tmp_path / "m.safetensors"), *settings],
        env=environment, check=True, **options,
    )  # fmt: skip
    for folder, stamp in done.items():
        assert (folder / "features.f16").stat().st_mtime_ns == stamp
    subprocess.run([*code, "--out", str(whole), "--no-cache", *settings], check=True, **options)
    first, second = load_model(tmp_path / "m.safetensors"), load_model(whole)
    for name, tensor in first.normative.tensors().items():
        np.testing.assert_array_equal(tensor.numpy(), second.normative.tensors()[name].numpy())


def test_the_environment_chooses_the_folder_the_limit_and_off(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", "off")
    assert open_cache() is None
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path))
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE_GB", "2")
    assert open_cache().limit_bytes == 2e9
    assert open_cache(False) is None
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE_GB", "much")
    with pytest.raises(InputError, match="'much' came"):
        open_cache()


def test_cache_info_and_clear(monkeypatch, tmp_path, model, ill):
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path))
    drain(detect(ill.volume, model, backbone=load_backbone()))
    told = CliRunner().invoke(app, ["cache", "info"])
    assert told.exit_code == 0
    assert "1, 1 of them complete" in told.output
    assert "0.03" in CliRunner().invoke(app, ["cache", "clear"]).output
    assert open_cache().usage().entries == 0
