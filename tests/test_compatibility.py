"""Model files and caches that earlier versions wrote, from `scripts/make_fixtures.py`."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_dino_uad import detect, drain, load_backbone, load_model
from napari_dino_uad.core.backbones.backbone import Backbone
from napari_dino_uad.core.features.cache import FeatureCache

FIXTURES = Path(__file__).parent / "fixtures"
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "make_fixtures.py"
VERSIONS = sorted(path.name for path in FIXTURES.iterdir())
METHODS = ("dpmm", "ar", "memory-bank", "fusion")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_fixtures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def backbone(script):
    return load_backbone(script.BACKBONE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("version", VERSIONS)
def test_old_models_score_as_before(script, backbone, version, method):
    model = load_model(FIXTURES / version / f"{method}.safetensors")
    scores = drain(detect(script.make_scan(9), model, backbone=backbone, cache=False))
    expected = np.load(FIXTURES / version / f"{method}_scores.npy")
    # Another processor rounds embeddings otherwise, and p-values move in steps.
    np.testing.assert_allclose(scores.planes[0].scores, expected, rtol=0.02, atol=0.1)
    assert np.abs(scores.planes[0].scores - expected).mean() < 0.005


@pytest.mark.parametrize("version", VERSIONS)
def test_old_caches_are_read(script, backbone, version, tmp_path, monkeypatch):
    shutil.copytree(FIXTURES / version / "cache", tmp_path / "cache")
    model = load_model(FIXTURES / version / "dpmm.safetensors")
    # Without it only the cache can answer.
    monkeypatch.setattr(Backbone, "start", None)
    cache = FeatureCache(tmp_path / "cache")
    scores = drain(detect(script.make_scan(9), model, backbone=backbone, cache=cache))
    expected = np.load(FIXTURES / version / "dpmm_scores.npy")
    np.testing.assert_allclose(scores.planes[0].scores, expected, rtol=0.02, atol=0.02)
