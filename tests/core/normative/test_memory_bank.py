from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative.memory_bank import (
    MemoryBank,
    MemoryBankConfig,
    _farthest_first,
)
from napari_dino_uad.core.progress import drain

CHANNELS = 12


@pytest.fixture
def features():
    found = FeatureSet(Context(normalise="none", neighbourhood=1), (CHANNELS,))
    rng = np.random.default_rng(0)
    for _ in range(3):
        values = rng.normal(size=(4, CHANNELS, 6, 6)).astype(np.float16)
        found.add(values, rng.random((4, 6, 6)) > 0.3)
    return found


def fitted(features, **settings):
    model = MemoryBank(MemoryBankConfig(**settings))
    drain(model.fit(features, features))
    return model


def test_scores_equal_a_plain_cosine_search(features):
    model = fitted(features, patches=100)
    query = torch.randn(2, CHANNELS, 5, 7, generator=torch.Generator().manual_seed(1))
    flat = query.permute(0, 2, 3, 1).reshape(-1, CHANNELS).numpy()
    search = NearestNeighbors(n_neighbors=1, metric="cosine").fit(model.bank_.float().numpy())
    distance, index = search.kneighbors(flat)
    scores = model.score(query)
    assert scores.shape == (2, 5, 7)
    np.testing.assert_allclose(scores.reshape(-1), distance[:, 0], atol=2e-3)
    np.testing.assert_array_equal(model.explain(query)["neighbour"].reshape(-1), index[:, 0])


def test_patches_of_the_bank_are_healthy(features):
    total = sum(int(mask.sum()) for _, mask in features.chunks)
    model = fitted(features, patches=total)
    assert len(model.bank_) == total
    values, mask = features.chunks[0]
    scores = model.score(torch.from_numpy(values).float()).numpy()
    assert scores[mask].max() < 2e-3


def test_the_seed_decides(features):
    first, again, other = (fitted(features, patches=50, seed=seed).bank_ for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_greedy_choice_is_the_obvious_one():
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))
    chosen = list(_farthest_first(points, 8, torch.Generator().manual_seed(0)))
    expected = [chosen[0]]
    while len(expected) < 8:
        gaps = [min(float((p - points[k]).norm()) for k in expected) for p in points]
        expected.append(int(np.argmax(gaps)))
    assert chosen == expected


def test_a_coreset_covers_better_than_chance(features):
    greedy = fitted(features, patches=40, subsampling="greedy")
    chance = fitted(features, patches=40)
    everything = fitted(features, patches=10_000, candidates=10_000).bank_.float()

    def radius(model):
        return float((1 - (everything @ model.bank_.float().T).amax(1)).max())

    assert radius(greedy) < radius(chance)


def test_restored_bank_scores_alike(features):
    model = fitted(features, patches=60)
    again = MemoryBank.restore(model.config(), model.tensors())
    query = torch.randn(1, CHANNELS, 4, 4)
    assert torch.equal(model.score(query), again.score(query))
    assert "60 patches" in again.summary()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patches": 0}, "1 patch or more"),
        ({"subsampling": "best"}, "random or greedy"),
        ({"patches": 10, "candidates": 5}, "cannot be chosen"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        MemoryBankConfig(**settings)
