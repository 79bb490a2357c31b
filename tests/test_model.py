"""Scoring through a fitted model: only tissue need be scored, and nothing changes by that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dino_uad.core.features import FeatureSet
from napari_dino_uad.core.model import _score_tissue
from napari_dino_uad.core.normative.context import Context
from napari_dino_uad.core.normative.methods import new_normative

SETTINGS = {
    "dpmm": {"components": 8, "epochs": 1},
    "memory-bank": {"patches": 100},
    "ar": {"epochs": 1, "components": 8, "hidden": 8},
}


def healthy(seed: int) -> FeatureSet:
    features = FeatureSet(Context(), (16,))
    chance = np.random.default_rng(seed)
    for _ in range(2):
        grid = chance.normal(size=(6, 16, 12, 14)).astype(np.float16)
        features.add(grid, np.ones((6, 12, 14), dtype=bool))
    return features


@pytest.mark.parametrize("method", ["dpmm", "memory-bank", "ar"])
def test_tissue_scores_as_it_does_in_the_whole_slice(method):
    normative = new_normative(method, 0, SETTINGS[method])
    for _ in normative.fit(healthy(0), healthy(1)):
        pass
    assert normative.patchwise is (method != "ar")
    chance = np.random.default_rng(2)
    features = torch.from_numpy(chance.normal(size=(2, 16, 12, 14)).astype(np.float32))
    tissue = chance.uniform(size=(2, 12, 14)) > 0.6
    with torch.inference_mode():
        whole = normative.score(features).numpy()
        found = _score_tissue(normative, features, tissue)
        nothing = _score_tissue(normative, features, np.zeros_like(tissue))
    np.testing.assert_allclose(found[tissue], whole[tissue], atol=1e-5)
    assert found.shape == nothing.shape == tissue.shape
    if normative.patchwise:
        assert not nothing.any()


def test_what_depends_on_its_place_is_scored_with_its_slice():
    assert not new_normative("dpmm", 0, {"position": 0.5}).patchwise
    fusion = new_normative("fusion", 0, {})
    fusion.members_ = {name: new_normative(name, 0, {}) for name in ("dpmm", "memory-bank")}
    assert fusion.patchwise
    fusion.members_["ar"] = new_normative("ar", 0, {})
    assert not fusion.patchwise
