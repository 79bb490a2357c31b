"""Scoring through a fitted model: only tissue need be scored, and nothing changes by that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.maps.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.maps.symmetry import mirror_distance
from napari_dino_uad.core.model import FittedModel, View
from napari_dino_uad.core.normative.methods import new_normative
from napari_dino_uad.core.slices.preprocessing import Preprocessing

SETTINGS = {
    "dpmm": {"components": 8, "epochs": 1},
    "memory-bank": {"patches": 100},
    "ar": {"epochs": 1, "components": 8, "hidden": 8},
}


PROTOTYPES = F.normalize(torch.randn(5, 384, generator=torch.Generator().manual_seed(7)), dim=1)


def healthy(seed: int, channels: int) -> FeatureSet:
    features = FeatureSet(Context(), (channels,))
    chance = np.random.default_rng(seed)
    for _ in range(2):
        grid = chance.normal(size=(6, channels, 12, 14)).astype(np.float16)
        features.add(grid, np.ones((6, 12, 14), dtype=bool))
    return features


def one_view(normative, scale: ScoreScale) -> FittedModel:
    unused = Calibration(np.array([1.0]), np.array([0.0]), 0, np.array([[1.0]]))
    return FittedModel(
        views=(View(Preprocessing(), normative, scale, PROTOTYPES),),
        backbone_key="dinov2-vits14",
        backbone_sha256="0" * 64,
        context=Context(),
        maps=MapSettings(),
        calibration=unused,
        levels=unused,
    )


@pytest.mark.parametrize("method", ["dpmm", "memory-bank", "ar"])
@pytest.mark.parametrize("columns", [slice(3, 9), slice(0, 14)], ids=["head", "full"])
def test_air_around_the_tissue_changes_no_score(method, columns):
    """Scores and asymmetry in the box of the tissue, against those of the whole slice."""
    normative = new_normative(method, 0, SETTINGS[method])
    for _ in normative.fit(healthy(0, 384), healthy(1, 384)):
        pass
    assert normative.patchwise is (method != "ar")
    chance = np.random.default_rng(2)
    features = chance.normal(size=(2, 384, 12, 14)).astype(np.float16)
    tissue = np.zeros((2, 12, 14), dtype=bool)
    tissue[:, 2:8, columns] = chance.uniform(size=tissue[:, 2:8, columns].shape) > 0.3
    scale = ScoreScale(0.2, 0.7, 0.4, 0.3, symmetry=0.5)
    model = one_view(normative, scale)
    with torch.inference_mode():
        whole = model.context.apply(torch.from_numpy(features).float(), (384,))
        mirror = mirror_distance(whole, torch.from_numpy(tissue)).numpy()
        expected = scale.combine(normative.score(whole).numpy(), mirror)
    found, distances = model.score(features.transpose(0, 2, 3, 1).reshape(2, -1), tissue)
    assert np.ptp(expected[tissue]) > 0.1
    np.testing.assert_allclose(found[tissue], expected[tissue], atol=1e-4)
    cosine = np.einsum("kc,bchw->bkhw", PROTOTYPES, whole).max(1)
    np.testing.assert_allclose(distances[tissue], 1 - cosine[tissue], atol=1e-4)
    assert not distances[~tissue].any()
    told = np.array([False, True])
    again, some = model.score(features.transpose(0, 2, 3, 1).reshape(2, -1), tissue, told=told)
    assert np.array_equal(again, found)
    assert not some[0].any()
    np.testing.assert_allclose(some[1], distances[1], atol=1e-6)


@pytest.mark.parametrize("method", ["dpmm", "ar"])
def test_a_slice_of_air_has_no_score(method):
    model = one_view(new_normative(method, 0, SETTINGS[method]), ScoreScale(0.0, 1.0))
    nothing = np.zeros((2, 12, 14), dtype=bool)
    scores, distances = model.score(np.zeros((2, 384 * 12 * 14), np.float16), nothing)
    assert scores.shape == distances.shape == (2, 12, 14)
    assert not scores.any() and not distances.any()


def test_what_depends_on_its_place_is_scored_with_its_slice():
    assert not new_normative("dpmm", 0, {"position": 0.5}).patchwise
    fusion = new_normative("fusion", 0, {})
    fusion.members_ = {name: new_normative(name, 0, {}) for name in ("dpmm", "memory-bank")}
    assert fusion.patchwise
    fusion.members_["ar"] = new_normative("ar", 0, {})
    assert not fusion.patchwise
