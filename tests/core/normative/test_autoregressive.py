from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative.autoregressive.embedding import Embedding
from napari_dino_uad.core.normative.autoregressive.errors import (
    ErrorScale,
    cosine_error,
    gaussian_nll,
    position_mean,
)
from napari_dino_uad.core.normative.autoregressive.model import Autoregressive, AutoregressiveConfig
from napari_dino_uad.core.normative.autoregressive.network import (
    LiveConv,
    live_taps,
    position_features,
    seen_offsets,
)

CHANNELS, EDGE = 12, 10
SMALL = {
    "hidden": 16,
    "depth": 3,
    "dilations": (2, 1),
    "components": 8,
    "epochs": 3,
    "batch_slices": 4,
    "mode": "causal",
    "position": 0,
    "first_kernel_size": 3,
    "kernel_size": 3,
    "hole": 0,
    "combine": "none",
    "standardise": "pca",
    "loss": "mse",
    "score": "mse",
    "noise_probability": 0.2,
    "whitening": "channel",
    "whitening_power": 1.0,
    "root": False,
    "shrinkage": 0.0,
    "position_map": True,
    "precision": "float32",
}


def settings(**changes) -> AutoregressiveConfig:
    return AutoregressiveConfig(**{**SMALL, **changes})


def healthy(slices: int, seed: int, shape: tuple[int, int] = (EDGE, EDGE)) -> FeatureSet:
    """Smooth fields that depend on the position, so that neighbours foretell each other."""
    rng = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    anatomy = F.interpolate(torch.randn(1, CHANNELS, 4, 4, generator=fixed), size=shape)
    noise = torch.randn(slices, CHANNELS, *shape, generator=rng)
    smooth = F.avg_pool2d(noise, 5, stride=1, padding=2)
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (CHANNELS,))
    mask = np.ones((slices, *shape), dtype=bool)
    mask[:, 0] = False
    half = slices // 2
    values = (anatomy + smooth + 0.1 * noise).half().numpy()
    features.add(values[:half], mask[:half])
    features.add(values[half:], mask[half:])
    return features


def fitted(train_seed: int = 0, **changes) -> Autoregressive:
    model = Autoregressive(settings(**changes))
    list(model.fit(healthy(12, train_seed), healthy(4, 1)))
    return model


def untrained(**changes) -> Autoregressive:
    """Random weights, no scaling of errors: the bare network."""
    model = Autoregressive(settings(standardise="none", **changes))
    model._embedding = Embedding(torch.zeros(CHANNELS), torch.ones(CHANNELS))
    model._networks = model._build(CHANNELS)
    model._scales = [ErrorScale() for _ in model._networks]
    return model


def moved_outputs(model: Autoregressive, direction: int, at: tuple[int, int]) -> np.ndarray:
    """Which predictions change when the embedding at one position does."""
    generator = torch.Generator().manual_seed(3)
    edge = 25
    x = torch.randn(1, CHANNELS, edge, edge, generator=generator)
    other = x.clone()
    other[:, :, at[0], at[1]] += 5
    with torch.inference_mode():
        before, after = (model._predict(direction, value)[0] for value in (x, other))
    return (before != after).any(1)[0].numpy()


# What a prediction sees --------------------------------------------------------------------


@pytest.mark.parametrize("dilations", [(1,), (4,), (2, 1), (1, 3, 2)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_causal_network_ignores_later_positions(dilations, kernel, precision):
    model = untrained(
        dilations=dilations, kernel_size=kernel, first_kernel_size=kernel, precision=precision
    )
    at = (12, 11)
    moved = moved_outputs(model, 0, at)
    rows, cols = np.nonzero(moved)
    assert moved.any()
    assert all((r, c) > at for r, c in zip(rows, cols, strict=True))
    # Of the patches right after it, the one a dilation further on sees it.
    assert moved[at[0], at[1] + dilations[0]]


def test_backward_network_sees_only_what_comes_after():
    model = untrained(combine="mean")
    at = (12, 11)
    rows, cols = np.nonzero(moved_outputs(model, 1, at))
    assert len(rows)
    assert all((r, c) < at for r, c in zip(rows, cols, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "causal"},
        {"mode": "causal", "dilations": (4,)},
        {"mode": "bidirectional", "dilations": (6, 2, 1)},
        {"mode": "bidirectional", "dilations": (1,)},
        {"mode": "bidirectional", "dilations": (2, 1), "first_kernel_size": 9, "hole": 2},
        {"mode": "standard"},
    ],
)
def test_seen_positions_follow_from_the_taps(changes):
    model = untrained(**changes)
    config = model.settings
    seen = seen_offsets(
        [
            (live_taps(config.mode, kernel, index == 0, config.hole), dilation)
            for index, (kernel, dilation) in enumerate(
                zip(config.kernels, config.layer_dilations, strict=True)
            )
        ]
    )
    middle, reach = 12, len(seen) // 2
    moved = moved_outputs(model, 0, (middle, middle))
    for row, col in itertools.product(range(25), repeat=2):
        # The output at (row, col) sees the perturbed position at this offset.
        down, right = middle - row, middle - col
        inside = max(abs(down), abs(right)) <= reach
        expected = bool(inside and seen[reach + down, reach + right])
        # A ReLU may hide a dependence but never make one.
        assert not moved[row, col] or expected
        if expected and max(abs(down), abs(right)) <= 2:
            assert moved[row, col]


def test_wide_first_dilation_hides_a_square():
    config = settings(mode="bidirectional", dilations=(6, 2, 1))
    assert config.blind_radius == 6 - 3 - 1
    moved = moved_outputs(untrained(mode="bidirectional", dilations=(6, 2, 1)), 0, (12, 12))
    assert not moved[10:15, 10:15].any()
    # It sees on all sides.
    assert moved[12, 6] and moved[12, 18] and moved[6, 12] and moved[18, 12]


def test_papers_bidirectional_network_sees_target():
    config = settings(mode="bidirectional", dilations=(4,))
    assert config.blind_radius == -1
    assert moved_outputs(untrained(mode="bidirectional", dilations=(4,)), 0, (12, 12))[12, 12]


def test_blind_radius():
    assert settings(mode="causal", dilations=(1,)).blind_radius == 0
    assert settings(mode="causal", dilations=(4,)).blind_radius == 3
    assert settings(mode="standard").blind_radius == -1
    wide = settings(mode="bidirectional", first_kernel_size=9, hole=2, dilations=(2, 1))
    assert wide.blind_radius == 2 * 3 - 2 - 1


def test_masks_are_those_of_the_paper():
    assert live_taps("causal", 3, first=True).sum() == 4
    assert live_taps("causal", 3, first=False).sum() == 5
    assert live_taps("bidirectional", 3, first=True).sum() == 8
    assert live_taps("bidirectional", 3, first=False).all()
    assert live_taps("standard", 3, first=True).all()
    assert live_taps("bidirectional", 9, first=True, hole=2).sum() == 81 - 25


# Convolutions and formulas against slow references -----------------------------------------


@pytest.mark.parametrize("mode", ["causal", "bidirectional", "standard"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 4), (5, 2)])
def test_live_convolution_equals_a_loop_over_taps(mode, first, kernel, dilation):
    if kernel == 1 and first and mode != "standard":
        pytest.skip("a single hidden tap sees nothing")
    taps = live_taps(mode, kernel, first)
    conv = LiveConv(3, 5, taps, dilation, torch.Generator().manual_seed(0)).double()
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    weights = conv.kernel().detach()
    assert not weights[:, :, ~torch.from_numpy(taps)].any()
    expected = conv.bias.detach().view(1, -1, 1, 1).expand(2, 5, 9, 11).clone()
    for i, j in itertools.product(range(kernel), repeat=2):
        for row, col in itertools.product(range(9), range(11)):
            r = row + (i - kernel // 2) * dilation
            c = col + (j - kernel // 2) * dilation
            if taps[i, j] and 0 <= r < 9 and 0 <= c < 11:
                expected[:, :, row, col] += x[:, :, r, c] @ weights[:, :, i, j].T
    assert torch.allclose(conv(x.permute(0, 2, 3, 1)), expected.permute(0, 2, 3, 1), atol=1e-12)


@pytest.mark.parametrize("mode", ["causal", "bidirectional", "standard"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 4), (5, 2), (3, 7)])
def test_live_convolution_has_masked_gradients(mode, first, kernel, dilation):
    taps = live_taps(mode, kernel, first)
    conv = LiveConv(3, 5, taps, dilation, torch.Generator().manual_seed(0)).double()
    x = torch.randn(2, 6, 8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, x)
    pull = torch.randn(2, 6, 8, 5, dtype=torch.float64)
    names = ["weight", "bias"]
    own = torch.autograd.grad((conv(x) * pull).sum(), [x, *(getattr(conv, n) for n in names)])
    dense = F.conv2d(
        x.permute(0, 3, 1, 2),
        conv.kernel(),
        conv.bias,
        padding=kernel // 2 * dilation,
        dilation=dilation,
    ).permute(0, 2, 3, 1)
    theirs = torch.autograd.grad((dense * pull).sum(), [x, *(getattr(conv, n) for n in names)])
    for mine, reference in zip(own, theirs, strict=True):
        assert torch.allclose(mine, reference, atol=1e-12)


def test_bfloat16_products_err_by_rounding_only():
    conv = LiveConv(64, 32, live_taps("causal", 3, False), 2, torch.Generator().manual_seed(0))
    x = torch.randn(2, 9, 11, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    coarse, fine = conv(x), conv(x.float())
    assert coarse.dtype == torch.bfloat16 and fine.dtype == torch.float32
    # Weights and sum are each rounded to 8 bits; the sum itself is not.
    assert float((coarse - fine).detach().abs().max()) < 2**-7 * float(fine.detach().abs().max())
    coarse.float().square().sum().backward()
    rounded = conv.weight.grad.clone()
    conv.weight.grad = None
    fine.square().sum().backward()
    assert rounded.dtype == torch.float32
    assert F.cosine_similarity(rounded.flatten(), conv.weight.grad.flatten(), dim=0) > 0.999


def test_dead_taps_of_a_causal_kernel_are_not_stored():
    conv = LiveConv(3, 5, live_taps("causal", 3, first=True), 4, torch.Generator())
    assert sum(value.numel() for value in conv.parameters()) == 4 * 3 * 5 + 5


def test_gaussian_nll_equals_the_density():
    x, mean = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    log_variance = torch.randn(2, 4, 3, 3)
    density = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    expected = -density.log_prob(x).mean(1)
    assert torch.allclose(gaussian_nll(x, mean, log_variance), expected, atol=1e-5)


def test_cosine_error_by_hand():
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    y = torch.tensor([4.0, 3.0]).view(1, 2, 1, 1)
    assert cosine_error(x, y).item() == pytest.approx(1 - 24 / 25)
    assert cosine_error(x, 2 * x).item() == pytest.approx(0, abs=1e-6)
    assert cosine_error(x, -x).item() == pytest.approx(2)


@pytest.mark.parametrize("kind", ["channel", "full"])
def test_whitened_healthy_errors_have_unit_variance(kind):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator)
    errors = torch.randn(5000, 6, generator=generator) @ mix
    moment = (errors.T @ errors).double() / len(errors)
    scale = ErrorScale(ErrorScale.whiten_from(moment, kind, 0.0))
    grid = errors.T.reshape(1, 6, 50, 100)
    assert scale.squared(grid).mean().item() == pytest.approx(1, rel=1e-3)
    if kind == "full":
        inverse = torch.linalg.inv(moment)
        expected = torch.einsum("nc,cd,nd->n", errors.double(), inverse, errors.double()) / 6
        assert torch.allclose(scale.squared(grid).flatten().double(), expected, rtol=1e-3)
    else:
        expected = (errors.double().square() / moment.diagonal()).mean(1)
        assert torch.allclose(scale.squared(grid).flatten().double(), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["channel", "full"])
def test_partial_whitening_leaves_a_part_of_the_deviation(kind):
    deviations = torch.tensor([0.5, 1.0, 4.0])
    moment = torch.diag(deviations.square()).double()
    whitening = ErrorScale.whiten_from(moment, kind, 0.0, 0.25)
    scale = ErrorScale(whitening)
    error = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    left = error / deviations.view(3, 1, 1) ** 0.25
    assert torch.allclose(scale.squared(error), left.square().mean(1), rtol=1e-4)
    unchanged = ErrorScale(ErrorScale.whiten_from(moment, kind, 0.0, 0.0))
    assert torch.allclose(unchanged.squared(error), error.square().mean(1), rtol=1e-4)


def test_full_shrinkage_leaves_plain_squared_errors():
    moment = torch.diag(torch.tensor([1.0, 3.0])).double()
    error = torch.randn(1, 2, 4, 4)
    for kind in ("channel", "full"):
        scale = ErrorScale(ErrorScale.whiten_from(moment, kind, 1.0))
        assert torch.allclose(scale.squared(error), error.square().mean(1) / 2, rtol=1e-4)


def test_position_mean_falls_back_to_overall_mean():
    count = torch.zeros(20, 20, dtype=torch.float64)
    count[:10] = 10_000
    total = count * torch.linspace(1, 3, 20, dtype=torch.float64)
    mean = position_mean(total, count, 0.0)
    assert torch.allclose(mean[0], torch.linspace(1, 3, 20), rtol=1e-3)
    assert torch.allclose(mean[19], torch.tensor(2.0), rtol=1e-3)
    smooth = position_mean(total, count, 1.0)
    # A linear ramp stays itself under smoothing, also at the border of the tissue.
    assert torch.allclose(smooth[9, 5:15], mean[9, 5:15], rtol=1e-2)


def test_scores_are_compared_at_their_position_on_any_grid():
    position = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    scores = torch.full((3, 2, 2), 8.0)
    assert torch.equal(ErrorScale(position=position).compare(scores)[0], 8 / position)
    lower = ErrorScale(position=position, relative=False).compare(scores)
    assert torch.equal(lower[0], 8 - position)
    other = ErrorScale(position=position).expected((4, 6))
    assert other.shape == (4, 6)
    assert other[0, 0] == 1 and other[-1, -1] == 8


def test_position_features_span_the_grid_whatever_its_size():
    small, large = position_features((4, 6), 2), position_features((8, 12), 2)
    assert small.shape == (1, 10, 4, 6)
    assert torch.allclose(F.avg_pool2d(large[:, :2], 2), small[:, :2], atol=1e-6)
    assert float(small[0, 0].max()) < 1
    assert torch.allclose(small[0, 0, 0], -small[0, 0, -1])


def test_whitened_components_are_uncorrelated():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    grid = x.T.reshape(1, 6, 40, 100)
    out = Embedding.fit(x, "pca", 4, 1.0).apply(grid).reshape(4, -1)
    assert torch.allclose(torch.cov(out), torch.eye(4), atol=1e-3)
    plain = Embedding.fit(x, "pca", 6, 0.0).apply(grid).reshape(6, -1)
    factor = torch.trace(torch.cov(plain)) / torch.trace(torch.cov(x.T))
    # A rotation and one factor: distances keep their proportions.
    assert torch.allclose(
        torch.cdist(plain.T[:50], plain.T[:50]),
        factor.sqrt() * torch.cdist(x[:50], x[:50]),
        rtol=1e-2,
        atol=1e-2,
    )


# The model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "bidirectional", "dilations": (4, 1)},
        {"mode": "standard", "loss": "cosine", "score": "cosine"},
        {"loss": "nll", "score": "nll", "position": 2},
        {"loss": "nll", "score": "mse", "whitening": "full", "shrinkage": 0.1},
        {"combine": "mean", "standardise": "channel", "dropout": 0.2},
        {"combine": "min", "standardise": "none", "position_map": False, "schedule": "constant"},
        {"kernel_size": 1, "first_kernel_size": 7, "mode": "bidirectional", "hole": 1},
        {"precision": "bfloat16", "position": 2, "dropout": 0.1},
        {"root": True, "whitening_power": 0.25, "combine": "mean"},
        {"root": True, "whitening": "full", "whitening_power": 0.5, "standardise": "unit"},
    ],
)
def test_fit_score_save_and_restore(changes):
    model = fitted(**changes)
    assert len(model.history_) == len(model.train_history_) == 3
    assert model.best_epoch_ == 1 + int(np.argmin(model.history_))
    x = torch.from_numpy(healthy(3, 5).chunks[0][0]).float()
    scores = model.score(x)
    assert scores.shape == (len(x), EDGE, EDGE)
    assert torch.isfinite(scores).all()
    # What a file holds is JSON and plain tensors.
    config = json.loads(json.dumps(model.config()))
    again = Autoregressive.restore(config, {k: v.clone() for k, v in model.tensors().items()})
    assert torch.equal(again.score(x), scores)
    assert again.config() == model.config()
    assert again.history_ == pytest.approx(model.history_)
    assert again.summary() == model.summary()
    for name, values in model.explain(x).items():
        assert values.shape == scores.shape, name
        assert torch.equal(values, again.explain(x)[name])


def test_training_lowers_the_loss_and_a_lesion_stands_out():
    model = fitted(epochs=12, batch_slices=2, learning_rate=3e-3)
    assert model.history_[-1] < 0.9 * model.history_[0]
    x = torch.from_numpy(healthy(2, 7).chunks[0][0]).float()
    lesion = x.clone()
    lesion[:, :, 5, 5] += 4 * torch.randn(CHANNELS, generator=torch.Generator().manual_seed(1))
    assert (model.score(lesion)[:, 5, 5] > 3 * model.score(x)[:, 5, 5]).all()


def test_the_root_of_the_error_is_the_score():
    x = torch.from_numpy(healthy(3, 5).chunks[0][0]).float()
    squared, root = (fitted(root=root, position_map=False).score(x) for root in (False, True))
    assert torch.allclose(root, squared.sqrt(), rtol=1e-4)


def test_unit_embeddings_have_a_mean_square_of_one():
    x = F.normalize(torch.randn(50, CHANNELS, generator=torch.Generator().manual_seed(0)), dim=1)
    out = Embedding.fit(x, "unit", 4, 0.5).apply(x.T.reshape(1, CHANNELS, 5, 10))
    assert torch.allclose(out.square().mean(1), torch.ones(1, 5, 10))


def test_the_preset_of_the_paper_is_its_published_network():
    config = AutoregressiveConfig.paper()
    assert config.layer_dilations == [4] * 5
    assert (config.hidden, config.epochs, config.batch_slices) == (256, 40, 64)
    assert (config.mode, config.combination, config.loss, config.score) == (
        "causal", "none", "mse", "mse",
    )  # fmt: skip
    model = Autoregressive(AutoregressiveConfig.paper(epochs=1, hidden=8, seed=3))
    list(model.fit(healthy(12, 0), healthy(4, 1)))
    # All channels, and nothing is known of healthy errors.
    assert {name for name in model.tensors() if not name.startswith("network")} == {
        "embedding.mean", "embedding.scale", "history", "train_history",
    }  # fmt: skip
    x = torch.from_numpy(healthy(3, 5).chunks[0][0]).float()
    inputs = x * CHANNELS**0.5
    expected = (inputs - model._predict(0, inputs)[0]).square().mean(1)
    assert torch.allclose(model.score(x), expected, rtol=1e-4)


def test_healthy_scores_average_one_at_every_position():
    model = fitted(position_smoothing=0.0)
    maps = torch.cat(
        [
            model.score(torch.from_numpy(part).float())
            for seed, count in ((0, 12), (1, 4))
            for part, _ in healthy(count, seed).chunks
        ]
    )
    # The first row is no tissue. The prior draws each mean a little to the overall one.
    assert maps[:, 1:].mean().item() == pytest.approx(1, abs=0.05)


def test_pair_is_the_mean_or_the_minimum_of_its_directions():
    model = fitted(combine="mean")
    x = torch.from_numpy(healthy(3, 5).chunks[0][0]).float()
    parts = model.explain(x)
    both = torch.stack([parts["forward"], parts["backward"]])
    assert torch.allclose(model.score(x), both.mean(0))
    model.settings = dataclasses.replace(model.settings, combine="min")
    assert torch.equal(model.score(x), both.amin(0))


def test_backward_network_turns_the_grid():
    model = untrained(combine="mean")
    model._networks[1].load_state_dict(model._networks[0].state_dict())
    x = torch.randn(1, CHANNELS, 9, 9)
    turned = model._predict(0, x.flip(-2, -1))[0].flip(-2, -1)
    assert torch.equal(model._predict(1, x)[0], turned)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_model(precision):
    changes = {"dropout": 0.1, "precision": precision}
    first, second = fitted(**changes), fitted(**changes)
    assert first.history_ == second.history_
    for name, value in first.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name
    assert fitted(seed=1, **changes).history_ != first.history_


def test_bfloat16_comes_near_float32():
    exact, coarse = (fitted(precision=precision) for precision in ("float32", "bfloat16"))
    assert coarse.history_ == pytest.approx(exact.history_, rel=1e-2)
    x = torch.from_numpy(healthy(3, 5).chunks[0][0]).float()
    assert torch.allclose(coarse.score(x), exact.score(x), rtol=0.05)
    assert coarse.score(x).dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in coarse.tensors().values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_fit_goes_on_to_the_same_model(tmp_path, precision):
    from safetensors.torch import load_file, save_file

    changes = {"dropout": 0.1, "precision": precision}
    whole = fitted(**changes)
    stopped = Autoregressive(settings(**changes))
    steps = stopped.fit(healthy(12, 0), healthy(4, 1))
    for progress in steps:
        if progress.detail.startswith("epoch 2 of 3") and progress.step.startswith("Training"):
            break
    steps.close()
    with pytest.raises(InputError, match="not fitted"):
        stopped.score(torch.zeros(1, CHANNELS, EDGE, EDGE))
    save_file(stopped.training_state(), tmp_path / "state.safetensors")
    fresh = Autoregressive(settings(**changes))
    fresh.resume_from(load_file(tmp_path / "state.safetensors"))
    for model in (stopped, fresh):
        first = next(
            progress
            for progress in model.fit(healthy(12, 0), healthy(4, 1))
            if progress.step.startswith("Training")
        )
        assert first.done > 3, "it begins after the first epoch"
    fresh.resume_from(load_file(tmp_path / "state.safetensors"))
    for model in (stopped, fresh):
        list(model.fit(healthy(12, 0), healthy(4, 1)))
        assert model.history_ == whole.history_
        for name, value in whole.tensors().items():
            assert torch.equal(value, model.tensors()[name]), name
    with pytest.raises(InputError, match="no stopped fit"):
        fresh.training_state()


def test_stopped_fit_refuses_other_settings():
    model = Autoregressive(settings())
    steps = model.fit(healthy(12, 0), healthy(4, 1))
    while model._state is None:
        next(steps)
    state = model.training_state()
    with pytest.raises(InputError, match="slices it began with"):
        list(model.fit(healthy(12, 4), healthy(4, 1)))
    other = Autoregressive(settings(hidden=8))
    other.resume_from(state)
    with pytest.raises(InputError, match="settings it began with"):
        list(other.fit(healthy(12, 0), healthy(4, 1)))


def test_noise_reaches_the_input_and_never_the_target():
    model = untrained(noise_probability=1.0, noise_scale=0.5)
    seen = []

    def losses(inputs, targets, dropout=0.0, generator=None):
        seen.append((inputs.clone(), targets.clone()))
        return model._networks[0](inputs).square().mean(1)

    from napari_dino_uad.core.normative.autoregressive.training import Training

    training = Training(
        model._networks, losses, model.settings, torch.device("cpu"), torch.zeros(1)
    )
    x = torch.randn(2, CHANNELS, 32, 32)
    training._step(x, torch.ones(2, 32, 32, dtype=torch.bool))
    inputs, targets = seen[0]
    assert torch.equal(targets, x)
    relative = (inputs - x).std((-2, -1)) / x.std((-2, -1))
    assert relative.mean().item() == pytest.approx(0.5, rel=0.05)


def test_gradient_is_clipped():
    model = untrained(clip=1e-3, noise_probability=0.0)
    from napari_dino_uad.core.normative.autoregressive.training import Training

    training = Training(
        model._networks, model._losses, model.settings, torch.device("cpu"), torch.zeros(1)
    )
    training._step(10 * torch.randn(2, CHANNELS, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool))
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model._networks.parameters()))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_grid_sizes_may_differ():
    train = healthy(8, 0)
    train.add(*healthy(4, 2, (8, 14)).chunks[0])
    model = Autoregressive(settings())
    list(model.fit(train, healthy(4, 1)))
    assert model._scales[0].position.shape == (EDGE, EDGE)
    assert model.score(torch.randn(1, CHANNELS, 8, 14)).shape == (1, 8, 14)


def test_no_tissue_is_an_input_error():
    empty = FeatureSet(Context(normalise="none", neighbourhood=1), (CHANNELS,))
    with pytest.raises(InputError, match="tissue"):
        list(Autoregressive(settings()).fit(empty, healthy(4, 1)))
    with pytest.raises(InputError, match="tissue"):
        list(Autoregressive(settings()).fit(healthy(4, 1), empty))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "sideways"}, "mode"),
        ({"kernel_size": 4}, "odd"),
        ({"first_kernel_size": 1}, "sees nothing"),
        ({"depth": 1}, "2 layers"),
        ({"dilations": ()}, "2 layers"),
        ({"hidden": 0}, "hidden"),
        ({"dropout": 1.0}, "Dropout"),
        ({"shrinkage": 2.0}, "Shrinkage"),
        ({"whitening_power": -1.0}, "Whitening power must be in"),
        ({"hole": 1}, "hole"),
        ({"mode": "bidirectional", "combine": "mean"}, "direction"),
        ({"score": "nll"}, "variance"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_bad_settings_are_input_errors(changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)


def test_a_damaged_file_is_an_input_error():
    model = fitted()
    tensors = model.tensors()
    tensors["network.0.layers.0.bias"] = torch.zeros(3)
    with pytest.raises(InputError, match="do not fit"):
        Autoregressive.restore(model.config(), tensors)


def test_other_weight_layout_is_an_input_error():
    model = fitted()
    tensors = model.tensors()
    tensors["network.0.layers.0.whole"] = tensors.pop("network.0.layers.0.weight")
    with pytest.raises(InputError, match="fit the model again"):
        Autoregressive.restore(model.config(), tensors)


def test_a_file_at_384_dimensions_is_small():
    for config in (AutoregressiveConfig(), AutoregressiveConfig(loss="nll", score="nll")):
        model = Autoregressive(config)
        kept = min(config.components, 384) if config.standardise == "pca" else 384
        weights = sum(value.numel() for value in model._build(kept).parameters())
        numbers = weights + 384 * (kept + 1) + kept**2 + 32 * 32
        assert 4 * numbers < 15e6


@pytest.mark.gpu
def test_another_device_gives_the_same_scores():
    device = "cuda" if torch.cuda.is_available() else "mps"
    if device == "mps" and not torch.backends.mps.is_available():
        pytest.skip("no CUDA or MPS device here")
    model = fitted()
    x = torch.from_numpy(healthy(3, 5).chunks[0][0]).float()
    here = model.score(x)
    assert torch.allclose(model.to(device).score(x), here, rtol=1e-3, atol=1e-4)
    elsewhere = Autoregressive(settings(), device)
    list(elsewhere.fit(healthy(12, 0), healthy(4, 1)))
    assert torch.isfinite(elsewhere.score(x)).all()


@pytest.mark.parametrize("mode", ["causal", "bidirectional", "standard"])
def test_only_causal_mode_reads_backwards(mode):
    model = Autoregressive(AutoregressiveConfig(mode=mode))
    assert model.settings.combination == ("mean" if mode == "causal" else "none")
    assert len(model._build(8)) == (2 if mode == "causal" else 1)


def test_few_slices_are_passed_over_more_often_unless_told():
    model = Autoregressive(settings(epochs=0, hidden=4, components=2))
    for progress in model.fit(healthy(8, 0), healthy(4, 1)):
        last = progress
    # Two steps a pass.
    assert len(model.history_) == 250
    assert last.done == last.total
    told = Autoregressive(settings(epochs=2, hidden=4, components=2))
    for _ in told.fit(healthy(8, 0), healthy(4, 1)):
        pass
    assert len(told.history_) == 2
