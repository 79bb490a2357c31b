from __future__ import annotations

import dataclasses
import itertools
import json
import math
import threading
import time

import numpy as np
import pytest
import torch
from scipy.special import digamma, ive, logsumexp
from scipy.stats import multivariate_normal, vonmises_fisher

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative.mixture.dpmm import DPMM, SCORES, DPMMConfig
from napari_dino_uad.core.normative.mixture.mixture import Mixture
from napari_dino_uad.core.normative.mixture.settings import COVARIANCES
from napari_dino_uad.core.normative.mixture.start import kmeans
from napari_dino_uad.core.normative.mixture.training import Training
from napari_dino_uad.core.normative.mixture.vmf import concentration_from_length, log_bessel
from napari_dino_uad.core.normative.mixture.weights import log_stick_weights, update_concentration
from napari_dino_uad.core.progress import Inner, Progress

CHANNELS, EDGE = 6, 12
SMALL = {"components": 5, "batch_patches": 200, "epochs": 3, "prior_patches": 10.0}
CPU = torch.device("cpu")


def clustered(slices: int, seed: int, channels: int = CHANNELS) -> FeatureSet:
    """Patches about five centres, away from the origin; the first row is background."""
    centres = 4 + 2 * torch.randn(5, channels, generator=torch.Generator().manual_seed(99))
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (slices, EDGE, EDGE), generator=rng)
    noise = torch.randn(slices, EDGE, EDGE, channels, generator=rng)
    values = (centres[labels] + 0.3 * noise).permute(0, 3, 1, 2)
    mask = np.ones((slices, EDGE, EDGE), dtype=bool)
    mask[:, 0] = False
    values[:, :, 0] = -50
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (channels,))
    features.add(values.half().numpy(), mask)
    return features


def fitted(**changes) -> DPMM:
    model = DPMM(DPMMConfig(**{**SMALL, **changes}))
    list(model.fit(clustered(8, 0), clustered(3, 1)))
    return model


def patches(seed: int = 3) -> torch.Tensor:
    """Embeddings of tissue and some that are far from it, (2, C, h, w)."""
    ((values, _mask),) = clustered(2, seed).chunks
    return torch.from_numpy(values).float()


def flat(features: torch.Tensor) -> np.ndarray:
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double().numpy()


def spreads(mixture: Mixture) -> list[np.ndarray]:
    """Covariance of each component as a matrix, or its concentration."""
    components, channels = mixture.components, mixture.means.shape[1]
    if hasattr(components, "concentrations"):
        return [np.float64(kappa) for kappa in components.concentrations]
    if hasattr(components, "covariance"):
        return [components.covariance(k).double().numpy() for k in range(len(components))]
    return [np.diag(np.broadcast_to(v.double().numpy(), channels)) for v in components.variances]


def slow_log_density(x: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    if np.ndim(spread) == 0:
        return vonmises_fisher(mean / np.linalg.norm(mean), float(spread)).logpdf(x)
    return multivariate_normal(mean, spread).logpdf(x)


def slow_joint(mixture: Mixture, x: np.ndarray) -> np.ndarray:
    columns = [
        slow_log_density(x, mean, spread) + float(weight)
        for mean, spread, weight in zip(
            mixture.means.double().numpy(), spreads(mixture), mixture.log_weights, strict=True
        )
    ]
    return np.stack(columns, axis=1)


def in_space(model: DPMM, features: torch.Tensor) -> np.ndarray:
    x = flat(features)
    if model.settings.covariance == "vmf":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_densities_equal_scipy(covariance):
    model = fitted(covariance=covariance)
    x = in_space(model, patches()[:, :, 1:])
    found = model.mixture.joint(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(found, slow_joint(model.mixture, x), rtol=2e-4, atol=2e-2)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("score", SCORES)
def test_scores_equal_slow_ones(covariance, score):
    model = fitted(covariance=covariance, score=score)
    features = patches()[:, :, 1:]
    x, mixture = in_space(model, features), model.mixture
    means = mixture.means.double().numpy()
    if score == "cosine":
        cosines = [x @ mean / np.linalg.norm(x, axis=1) / np.linalg.norm(mean) for mean in means]
        expected = 1 - np.max(cosines, axis=0)
    elif score == "euclidean":
        expected = np.min([np.linalg.norm(x - mean, axis=1) for mean in means], axis=0)
    elif score == "mahalanobis":
        squared = []
        for mean, spread in zip(means, spreads(mixture), strict=True):
            inverse = spread * np.eye(CHANNELS) if np.ndim(spread) == 0 else np.linalg.inv(spread)
            squared.append(np.einsum("nc,cd,nd->n", x - mean, inverse, x - mean))
        expected = np.sqrt(np.min(squared, axis=0))
    else:
        expected = -logsumexp(slow_joint(mixture, x), axis=1)
    found = model.score(features).flatten().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)


def slow_em_step(mixture, statistics, x, rho, prior, kind):
    """The formulas of the paper and the prior, one component and one patch at a time."""
    joint = slow_joint(mixture, x)
    posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    mass = (1 - rho) * statistics[0] + rho * posterior.mean(0)
    channels = x.shape[1]
    means, own = [], []
    for k in range(len(mass)):
        first = (1 - rho) * statistics[1][k]
        second = (1 - rho) * statistics[2][k]
        for n in range(len(x)):
            first = first + rho * posterior[n, k] * x[n] / len(x)
            second = second + rho * posterior[n, k] * np.outer(x[n], x[n]) / len(x)
        means.append(first / mass[k])
        within = second / mass[k] - np.outer(means[k], means[k])
        if kind != "full":
            within = np.diag(np.diag(within))
        if kind == "spherical":
            within = np.eye(channels) * np.trace(within) / channels
        own.append(within)
    pooled = sum(r * s for r, s in zip(mass, own, strict=True)) / mass.sum()
    counts = prior.patches * mass
    covariances = [
        (n * s + prior.strength * pooled) / (n + prior.strength) + prior.ridge * np.eye(channels)
        for n, s in zip(counts, own, strict=True)
    ]
    return mass, np.stack(means), covariances


def started(covariance: str, count: int = 5, **changes) -> Training:
    generator = torch.Generator().manual_seed(5)
    centres = 2 * torch.randn(count, 4, generator=generator)
    x = centres.repeat(60, 1) + torch.randn(60 * count, 4, generator=generator)
    if covariance == "vmf":
        x = torch.nn.functional.normalize(x, dim=1)
    settings = DPMMConfig(
        **{**SMALL, "components": count, "covariance": covariance, "batch_patches": 100, **changes}
    )
    training = Training(settings, x.clone(), x[:50].clone(), CPU)
    list(training.start())
    return training


def present(training: Training) -> Mixture:
    """The mixture in the space of the centred patches, in the order of its sticks."""
    zero = torch.zeros(training._patches.shape[1])
    return Mixture(training._components, training._log_weights, zero, training._concentration)


@pytest.mark.parametrize("covariance", ["diag", "spherical", "full"])
@pytest.mark.parametrize("rho", [0.2, 1.0])
def test_em_step_equals_slow_formulas(covariance, rho):
    training = started(covariance)
    x = training._patches[:80]
    mixture, statistics = present(training), training._statistics
    means = mixture.means.double().numpy()
    mass = statistics.mass.double().numpy()
    # The seconds are remade from the clusters' patches as whole matrices.
    labels, second = nearest_labels(training), np.zeros((5, 4, 4))
    every = training._patches.double().numpy()
    for k in range(5):
        own = every[labels == k]
        second[k] = own.T @ own / len(every)
        np.testing.assert_allclose(own.mean(0), means[k], atol=1e-4)
    slow = slow_em_step(
        mixture,
        (mass, mass[:, None] * means, second),
        x.double().numpy(),
        rho,
        training._prior,
        covariance,
    )
    training.step(x, rho)
    after = present(training)
    np.testing.assert_allclose(training._statistics.mass, slow[0], atol=1e-5)
    np.testing.assert_allclose(after.means, slow[1], atol=1e-4)
    for found, expected in zip(spreads(after), slow[2], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def nearest_labels(training: Training) -> np.ndarray:
    distances = torch.cdist(training._patches, training._components.means)
    return distances.argmin(1).numpy()


def test_em_step_of_von_mises_fisher_equals_slow_formulas():
    training = started("vmf", prior_patches=0.0)
    mixture, x = present(training), training._patches[:80]
    joint = slow_joint(mixture, x.double().numpy())
    posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    resultant = posterior.T @ x.double().numpy()
    length = np.linalg.norm(resultant, axis=1) / posterior.sum(0)
    training.step(x, 1.0)
    after = present(training)
    directions = resultant / np.linalg.norm(resultant, axis=1, keepdims=True)
    np.testing.assert_allclose(after.means, directions, atol=1e-4)
    kappa = after.components.concentrations.double().numpy()
    # A(kappa) must give back the length of the mean.
    np.testing.assert_allclose(ive(2, kappa) / ive(1, kappa), length, atol=1e-4)


def test_sparse_and_dense_statistics_agree():
    for covariance in COVARIANCES:
        training = started(covariance)
        components, x = training._components, training._patches
        posterior = torch.softmax(10 * components.log_density(x), dim=1)
        dense, sparse = (components.empty(5, 4, CPU) for _ in range(2))
        scaled = posterior.T / len(x)
        dense.mass += scaled.sum(1)
        dense.first += scaled @ x
        components._add_second(dense.second, x, scaled)
        rows, columns = torch.nonzero(posterior > 1e-9, as_tuple=True)
        components.add_pairs(sparse, x[rows], columns, posterior[rows, columns] / len(x))
        for name in ("mass", "first", "second"):
            torch.testing.assert_close(
                getattr(dense, name), getattr(sparse, name), atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_sticks_and_concentration_equal_slow_formulas(alpha):
    mass, n, truncation = np.array([0.5, 0.3, 0.15, 0.05]), 100, 6
    full = np.concatenate([mass, np.zeros(2)])
    tails = [full[k + 1 :].sum() for k in range(truncation)]
    rest, weights = 1.0, []
    for k in range(4):
        stick = min(full[k] / (full[k] + (alpha - 1) / n + tails[k]), 1 - 1e-12)
        weights.append(stick * rest)
        rest *= 1 - stick
    found = log_stick_weights(torch.tensor(mass), alpha, n, truncation)
    np.testing.assert_allclose(found.exp(), weights, rtol=1e-6, atol=1e-9)
    gaps = [
        digamma(n * (full[k] + tails[k]) + alpha + 1) - digamma(n * tails[k] + alpha)
        for k in range(truncation - 1)
    ]
    expected = (truncation - 1) / sum(gaps)
    assert update_concentration(torch.tensor(mass), alpha, n, truncation) == pytest.approx(expected)


def test_concentration_is_learned_or_fixed():
    assert fitted(concentration=3.0).mixture.concentration == 3.0
    assert fitted().mixture.concentration != 2.0


def test_bessel_of_large_order_equals_the_recurrence():
    # I_{v-1} - I_{v+1} = (2 v / x) I_v ties three orders together.
    for order, x in itertools.product((20.0, 235.0), (5.0, 300.0, 9000.0)):
        below, at, above = (log_bessel(order + shift, x) for shift in (-1, 0, 1))
        left = np.exp(below - at) - np.exp(above - at)
        assert left == pytest.approx(2 * order / x, rel=1e-5, abs=1e-8)


def test_concentration_of_a_length_is_inverted():
    for kappa in (10.0, 400.0, 3000.0):
        length = np.exp(log_bessel(236, kappa) - log_bessel(235, kappa))
        assert concentration_from_length(length, 472, 1e6) == pytest.approx(kappa, rel=1e-4)


def test_decaying_step_and_settings_are_checked():
    settings = DPMMConfig(schedule="decaying", step_size=0.6)
    assert settings.step(1) == 1.0
    assert settings.step(32) == pytest.approx(32**-0.6)
    fitted(schedule="decaying", step_size=0.6)
    fitted(step_size=1.0)
    for wrong in (
        {"components": 1},
        {"covariance": "banded"},
        {"step_size": 0.0},
        {"concentration": -1.0},
        {"held_out_share": 1.5},
        {"ridge": 0.0},
        {"patience": 0},
        {"epochs": math.nan},
    ):
        with pytest.raises(InputError):
            DPMMConfig(**wrong)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_same_seed_same_model(covariance):
    one, two = (fitted(covariance=covariance, seed=4) for _ in range(2))
    assert one.history_ == two.history_
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, two.tensors()[name])
    assert fitted(covariance=covariance, seed=5).history_ != one.history_


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("start", ["kmeans", "random"])
def test_continued_fit_equals_one_never_stopped(covariance, start):
    changes = {"covariance": covariance, "start": start, "epochs": 4, "patience": None}
    whole = fitted(**changes)
    stopped = DPMM(DPMMConfig(**{**SMALL, **changes}))
    for progress in stopped.fit(clustered(8, 0), clustered(3, 1)):
        if progress.detail.startswith("epoch 3"):
            break
    other = DPMM(stopped.settings)
    other.resume_from({name: value.clone() for name, value in stopped.training_state().items()})
    list(other.fit(clustered(8, 0), clustered(3, 1)))
    assert other.history_ == whole.history_
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, other.tensors()[name])


def test_stopped_fit_refuses_other_slices():
    stopped = DPMM(DPMMConfig(**SMALL))
    with pytest.raises(InputError, match="no stopped fit"):
        stopped.training_state()
    for progress in stopped.fit(clustered(8, 0), clustered(3, 1)):
        if progress.detail.startswith("epoch 2"):
            break
    with pytest.raises(InputError, match="other slices"):
        list(stopped.fit(clustered(8, 7), clustered(3, 1)))


def overfit_history(**changes) -> list[float]:
    """Few patches a component, many channels."""
    model = DPMM(
        DPMMConfig(
            components=20, epochs=10, patience=None, batch_patches=300, step_size=0.3, **changes
        )
    )
    list(model.fit(clustered(6, 0, 60), clustered(4, 1, 60)))
    return model.history_


def test_prior_stops_overfitting():
    prior, plain = overfit_history(), overfit_history(prior_patches=0.0)
    assert min(prior) < min(plain)
    assert prior[-1] < min(prior) + 0.5
    shared = overfit_history(shared_spread=True)
    assert shared[-1] < plain[-1]


def test_best_epoch_is_kept_and_patience_stops():
    model = fitted(epochs=50)
    assert len(model.history_) < 50
    assert model.best_epoch_ == 1 + int(np.argmin(model.history_))
    assert len(fitted(epochs=6, patience=None).history_) == 6


def test_random_start_collapses_and_kmeans_lives():
    """Many dimensions: a good part of the paper's components dies, none from k-means."""

    def living(start: str) -> int:
        settings = DPMMConfig(
            components=40,
            start=start,
            step_size=0.5,
            batch_patches=400,
            epochs=8,
            patience=None,
            prior_patches=0.0,
        )
        model = DPMM(settings)
        list(model.fit(clustered(10, 0, 100), clustered(3, 1, 100)))
        return len(model.mixture.components)

    assert living("kmeans") == 40
    assert living("random") < 30


def test_dead_components_are_dropped():
    training = started("full", components=5)
    training._statistics.mass[2] = 0
    training._statistics.first[2] = 0
    training._statistics.second[2] = 0
    training._maximise()
    training._drop_dead()
    assert len(training._components) == len(training._log_weights) == 4
    assert float(training._log_weights.exp().sum()) == pytest.approx(1, abs=1e-5)


def scans_of(centres: list[list[int]], seed: int, slices: int = 8) -> FeatureSet:
    """A scan for each list, whose patches lie about the centres of these numbers."""
    places = 4 * torch.randn(8, CHANNELS, generator=torch.Generator().manual_seed(5))
    rng = torch.Generator().manual_seed(seed)
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (CHANNELS,))
    for numbers in centres:
        shape = (slices, EDGE, EDGE)
        labels = torch.tensor(numbers)[torch.randint(len(numbers), shape, generator=rng)]
        noise = torch.randn(*shape, CHANNELS, generator=rng)
        values = (places[labels] + 0.3 * noise).permute(0, 3, 1, 2)
        features.add(values.half().numpy(), np.ones(shape, dtype=bool))
    return features


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_what_nobody_else_shows_is_dropped(covariance):
    # One scan to fit on has tissue of its own, the centres 6 and 7.
    train = scans_of([[0, 1, 2, 3], [2, 3, 4, 5], [0, 5, 6, 7]], 0)
    valid = scans_of([[0, 1, 2, 3, 4, 5]] * 3, 1)
    kept = {}
    for share in (0.0, 0.3):
        changes = {"components": 8, "covariance": covariance, "held_out_share": share}
        model = DPMM(DPMMConfig(**{**SMALL, **changes}))
        list(model.fit(train, valid))
        kept[share] = len(model.mixture.components)
        assert float(model.mixture.log_weights.exp().sum()) == pytest.approx(1, abs=1e-4)
    assert 6 <= kept[0.3] < kept[0.0] == 8


@pytest.mark.parametrize(("scans", "slices"), [(2, 12), (4, 1)])
def test_few_held_out_scans_drop_nothing(scans, slices):
    train = scans_of([[0, 1, 2, 3], [2, 3, 4, 5], [0, 5, 6, 7]], 0)
    model = DPMM(DPMMConfig(**{**SMALL, "components": 8}))
    list(model.fit(train, scans_of([[0, 1, 2, 3, 4, 5]] * scans, 1, slices)))
    assert len(model.mixture.components) == 8


@pytest.mark.parametrize("spherical", [False, True])
def test_kmeans_finds_clusters_and_refills_empty_ones(spherical):
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4) * 5
    x = centres.repeat(50, 1) + 0.1 * torch.randn(200, 4, generator=generator)
    if spherical:
        x = torch.nn.functional.normalize(x, dim=1)
    run = Inner(kmeans(x, 4, generator, spherical))
    steps = list(run)
    assert steps[-1][0] == steps[-1][1]
    assert torch.bincount(run.value.labels).tolist() == [50] * 4
    same = Inner(kmeans(torch.ones(30, 2), 3, generator, False))
    list(same)
    assert torch.isfinite(same.value.centres).all()


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("changes", [{}, {"pca": 3, "position": 0.5}])
def test_scores_survive_the_file(covariance, changes):
    """Half precision: to 0.5 % of a score or of 1, the likelihood to 1 %."""
    model = fitted(covariance=covariance, **changes)
    config = json.loads(json.dumps(model.config()))
    again = DPMM.restore(config, model.tensors())
    assert again.summary() == model.summary()
    assert again.history_ == pytest.approx(model.history_)
    # The Mahalanobis distance to a narrow direction on the sphere loses a digit to its angle.
    narrow = 1e-2 if covariance == "vmf" else 5e-3
    tolerance = {"cosine": 5e-3, "euclidean": 5e-3, "mahalanobis": narrow, "likelihood": 1e-2}
    for score in SCORES:
        for each in (model, again):
            each.settings = dataclasses.replace(each.settings, score=score)
        one, two = model.score(patches()), again.score(patches())
        assert two.dtype == torch.float32
        scale = one.abs().clamp_min(1)
        assert float(((one - two).abs() / scale).max()) < tolerance[score]


def test_file_of_500_diagonal_components_is_small():
    for channels in (384, 472):
        x = torch.randn(1500, channels, generator=torch.Generator().manual_seed(0))
        training = Training(DPMMConfig(components=500, epochs=1), x, x[:100].clone(), CPU)
        list(training.start())
        list(training.run())
        sizes = [t.numel() * t.element_size() for t in training.best().tensors().values()]
        assert sum(sizes) < 2e6


def test_damaged_tensors_are_refused():
    model = fitted()
    tensors = model.tensors()
    del tensors["deviations"]
    with pytest.raises(InputError, match="damaged"):
        DPMM.restore(model.config(), tensors)
    with pytest.raises(InputError, match="not fitted"):
        DPMM().score(patches())


def test_explain_maps():
    model = fitted(score="likelihood")
    maps = model.explain(patches(), components=[2, 0])
    x = flat(patches())
    joint = slow_joint(model.mixture, x)
    assert maps["component"].flatten().tolist() == joint.argmax(1).tolist()
    total = logsumexp(joint, axis=1)
    shape = (2, EDGE, EDGE)
    np.testing.assert_allclose(maps["log_likelihood"], total.reshape(shape), rtol=1e-3, atol=0.02)
    posterior = np.exp(joint - total[:, None])[:, [2, 0]].reshape(*shape, 2)
    np.testing.assert_allclose(maps["responsibility"], posterior.transpose(0, 3, 1, 2), atol=2e-2)
    density = joint - model.mixture.log_weights.double().numpy()
    np.testing.assert_allclose(
        maps["component_log_likelihood"][:, 0].flatten(), density[:, 2], rtol=1e-3, atol=0.05
    )
    assert set(model.explain(patches())) == {"component", "log_likelihood"}
    with pytest.raises(InputError, match="asked for"):
        model.explain(patches(), components=[99])


def test_foreground_and_position():
    inside, everywhere = fitted(), fitted(foreground=False)
    background = torch.full((CHANNELS,), -50.0)

    def gap(model: DPMM) -> float:
        return float((model.mixture.means - background).norm(dim=1).min())

    assert gap(inside) > 50
    assert gap(everywhere) < 1
    placed = fitted(position=20.0, score="likelihood")
    same = torch.full((1, CHANNELS, EDGE, EDGE), 4.0)
    assert placed.score(same).std() > 0
    assert fitted(score="likelihood").score(same).std() < 1e-3


def test_too_few_patches_and_no_tissue():
    with pytest.raises(InputError, match="too few"):
        list(DPMM(DPMMConfig(components=5000)).fit(clustered(2, 0), clustered(2, 1)))
    empty = clustered(2, 0)
    empty.chunks = [(values, np.zeros_like(mask)) for values, mask in empty.chunks]
    with pytest.raises(InputError, match="tissue"):
        list(DPMM(DPMMConfig(**SMALL)).fit(empty, clustered(2, 1)))
    with pytest.raises(InputError, match="principal components"):
        fitted(pca=50)


def test_whoever_waits_for_slow_components_hears_something():
    now = Progress("Fitting", 1, 2)

    def step() -> int:
        time.sleep(0.35)
        return 7

    waiting = Inner(started("full").waiting_for(step, now))
    assert list(waiting) in ([now] * 2, [now] * 3)
    assert waiting.value == 7
    quick = Inner(started("diag").waiting_for(step, now))
    assert list(quick) == []
    assert quick.value == 7


def test_a_slow_fit_that_is_closed_in_a_step_ends_at_once(monkeypatch):
    entered, leave = threading.Event(), threading.Event()

    def step(*_) -> None:
        entered.set()
        leave.wait(30)

    monkeypatch.setattr(Training, "step", step)
    running = DPMM(DPMMConfig(**SMALL, covariance="full")).fit(clustered(8, 0), clustered(3, 1))
    for _ in running:
        if entered.is_set():
            break
    begun = time.perf_counter()
    running.close()
    # The step itself would have lasted half a minute.
    assert time.perf_counter() - begun < 10
    leave.set()
