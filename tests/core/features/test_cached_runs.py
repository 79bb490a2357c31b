"""Whole runs with the cache: what is cached is not computed again, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dino_uad import Case, detect, drain, fit, load_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.backbones.backbone import Backbone
from napari_dino_uad.core.features.cache import CacheKey, FeatureCache, open_cache

SMALL = {"components": 40, "epochs": 2, "max_patches": 8000}


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "features")


def test_detecting_again_does_not_touch_the_backbone(cache, model, ill, monkeypatch):
    first = drain(detect(ill.volume, model, cache=cache)).scores
    uncached = drain(detect(ill.volume, model, cache=False)).scores
    np.testing.assert_array_equal(first, uncached)

    def forbidden(*_):
        raise AssertionError("the backbone was used")

    monkeypatch.setattr(Backbone, "start", forbidden)
    # Scored in larger batches, whose sums round otherwise.
    again = drain(detect(ill.volume, model, cache=cache)).scores
    np.testing.assert_allclose(again, first, atol=1e-5)
    with pytest.raises(AssertionError):
        drain(detect(ill.volume, model, cache=False))


def test_a_second_method_is_fitted_without_the_backbone(cache, healthy, monkeypatch):
    cases = [Case(head.volume) for head in healthy]
    drain(fit(cases, settings=SMALL, cache=cache))
    monkeypatch.setattr(Backbone, "start", None)
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
    """Three whole fits, each in a process of its own."""
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


def test_cache_info_and_clear(monkeypatch, tmp_path, model, ill):
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path))
    drain(detect(ill.volume, model, backbone=model.load_backbone()))
    told = CliRunner().invoke(app, ["cache", "info"])
    assert told.exit_code == 0
    assert "1, 1 of them complete" in told.output
    # The maps of a phantom are too few to show in GB.
    open_cache().entry(CacheKey("large", "backbone", "{}"), (1, 4_000_000))
    assert "0.01 GB freed" in CliRunner().invoke(app, ["cache", "clear"]).output
    assert open_cache().usage().entries == 0
