from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import combine_pvalues

from napari_dino_uad import Case, detect, drain, fit, load_model, save_model
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.base import NormativeModel
from napari_dino_uad.core.normative.fusion import COMBINATIONS, Fusion, FusionConfig

PAIR = ("dpmm", "ar")


class Fixed(NormativeModel):
    """A member whose score is one channel."""

    def __init__(self, channel):
        self.channel = channel

    @property
    def patchwise(self):
        return self.channel == 0

    def score(self, features):
        return features[:, self.channel]


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    model = Fusion(FusionConfig(members=PAIR, combine="fisher"))
    model.members_ = {"dpmm": Fixed(0), "ar": Fixed(1)}
    model.calibrations_ = {
        "dpmm": Calibration.from_scans([rng.normal(size=200_000)]),
        "ar": Calibration.from_scans([rng.gamma(2, 10, 200_000)]),
    }
    return model


@pytest.mark.parametrize(("combine", "factor"), [("fisher", 0.5), ("stouffer", 1.0)])
def test_fisher_is_fisher_and_stouffer_is_stouffer(pair, combine, factor):
    pair.settings = FusionConfig(members=PAIR, combine=combine)
    features = torch.tensor([[0.5, 30.0], [2.0, 5.0], [-1.0, 60.0]]).reshape(3, 2, 1, 1)
    maps = pair.explain(features)
    p = torch.stack([maps["p_dpmm"], maps["p_ar"]]).numpy()[:, :, 0, 0]
    expected = [factor * combine_pvalues(p[:, n], method=combine).statistic for n in range(3)]
    np.testing.assert_allclose(pair.score(features)[:, 0, 0], expected, rtol=1e-3)


def test_rank_is_the_mean_rank(pair):
    pair.settings = FusionConfig(members=PAIR, combine="rank")
    features = torch.tensor([[0.5, 30.0], [2.0, 5.0]]).reshape(2, 2, 1, 1)
    maps = pair.explain(features)
    expected = 1 - (maps["p_dpmm"] + maps["p_ar"]) / 2
    np.testing.assert_allclose(pair.score(features), expected, rtol=1e-5)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_tissue_alone_scores_as_it_does_in_its_slice(pair, combine):
    pair.settings = FusionConfig(members=PAIR, combine=combine)
    features = 10 * torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    tissue = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    assert not pair.patchwise
    assert torch.equal(pair.score_tissue(features, tissue), pair.score(features)[tissue])


@pytest.mark.parametrize("combine", ["fisher", "stouffer"])
def test_order_holds_beyond_healthy_scores(pair, combine):
    pair.settings = FusionConfig(members=PAIR, combine=combine)
    features = torch.tensor([[8.0, 10.0], [9.0, 10.0], [30.0, 10.0]]).reshape(3, 2, 1, 1)
    scores = pair.score(features)[:, 0, 0]
    assert scores[0] < scores[1] < scores[2]


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_below_all_healthy_scores_nothing_is_infinite(pair, combine):
    pair.settings = FusionConfig(members=PAIR, combine=combine)
    assert torch.isfinite(pair.score(torch.tensor([-1e9, -1e9]).reshape(1, 2, 1, 1))).all()


def test_agreement_counts_the_members(pair):
    features = torch.tensor([[5.0, 200.0], [5.0, 1.0], [0.0, 1.0]]).reshape(3, 2, 1, 1)
    assert pair.explain(features)["agreement"][:, 0, 0].tolist() == [1.0, 0.5, 0.0]


@pytest.mark.backbone
def test_a_fusion_is_fitted_saved_and_detects(healthy, ill, tmp_path):
    cases = [Case(head.volume) for head in healthy]
    settings = {"members": ("dpmm", "memory-bank"), "combine": "rank"}
    model = drain(fit(cases, method="fusion", settings=settings))
    save_model(model, tmp_path / "fusion.safetensors")
    again = load_model(tmp_path / "fusion.safetensors")
    assert again.normative.settings.combine == "rank"
    first, second = (drain(detect(ill.volume, one)).scores for one in (model, again))
    np.testing.assert_allclose(first, second, atol=5e-3)
    inside = ill.volume.array > 100
    lesion = ill.lesion[inside]
    assert first[inside][lesion].mean() > first[inside][~lesion].mean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": ("dpmm",)}, "two or more"),
        ({"members": ("dpmm", "dpmm")}, "different"),
        ({"members": ("dpmm", "fusion")}, "member of itself"),
        ({"combine": "sum"}, "stouffer, fisher, rank"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        FusionConfig(**settings)
