"""Speed of the Dirichlet process mixture.

Times one EM step and one scoring of 2,048 x 384 embeddings with 500 diagonal components, against
the same formulas by broadcasting over patches, components and channels. Then compares fit time and
held-out log-likelihood with scikit-learn's `BayesianGaussianMixture`, and times the scoring of one
slice of 1,024 patches and, with --train, the default fit at the size of the LGG benchmark.

    python benchmarks/dpmm.py [--threads 2] [--train]

The last line is the main figure: the speed-up by matrix products.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative.mixture.components import DiagonalGaussians
from napari_dino_uad.core.normative.mixture.dpmm import DPMM, DPMMConfig
from napari_dino_uad.core.normative.mixture.mixture import Mixture
from napari_dino_uad.core.normative.mixture.training import Training

# Patches that the broadcasting implementation processes in one go: 64 x 500 x 384 floats are 49 MB.
# It is faster with this than with all at once.
_CHUNK = 64
_STEP = 0.05


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call after a warm-up."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def embeddings(count: int, channels: int, clusters: int, seed: int) -> torch.Tensor:
    """Draw unit vectors around centres, with spreads that differ between channels."""
    fixed = torch.Generator().manual_seed(123)
    centres = torch.randn(clusters, channels, generator=fixed)
    spread = 0.5 + torch.rand(channels, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(clusters, (count,), generator=generator)
    noise = torch.randn(count, channels, generator=generator)
    return F.normalize(centres[labels] + spread * noise, dim=1)


def as_features(x: torch.Tensor) -> FeatureSet:
    """Arrange patches as slices of 32 x 32."""
    slices = len(x) // 1024
    grid = x[: slices * 1024].reshape(slices, 32, 32, -1).permute(0, 3, 1, 2)
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (x.shape[1],))
    features.add(grid.half().numpy(), np.ones((slices, 32, 32), dtype=bool))
    return features


# The same formulas by broadcasting ---------------------------------------------------------


def direct_joint(
    x: torch.Tensor, means: torch.Tensor, variances: torch.Tensor, log_weights: torch.Tensor
) -> torch.Tensor:
    """Compute log pi_k + log N(x_n | mu_k, diag(s_k)) with a tensor of N x K x C."""
    difference = x[:, None, :] - means
    terms = difference.square() / variances + variances.log() + math.log(2 * math.pi)
    return log_weights - 0.5 * terms.sum(2)


def direct_step(
    x: torch.Tensor, training: Training, parameters: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return means and variances after one EM step."""
    statistics, prior = training._statistics, training._prior
    mass, first, second = (
        (1 - _STEP) * tensor for tensor in (statistics.mass, statistics.first, statistics.second)
    )
    for part in x.split(_CHUNK):
        posterior = torch.softmax(direct_joint(part, *parameters), dim=1)
        weighted = posterior[:, :, None] * part[:, None, :]
        mass += _STEP / len(x) * posterior.sum(0)
        first += _STEP / len(x) * weighted.sum(0)
        second += _STEP / len(x) * (weighted * part[:, None, :]).sum(0)
    means = first / mass[:, None]
    own = second / mass[:, None] - means.square()
    pooled = (mass[:, None] * own).sum(0) / mass.sum()
    count = prior.patches * mass[:, None]
    variances = (count * own + prior.strength * pooled) / (count + prior.strength) + prior.ridge
    return means, variances


def direct_score(x: torch.Tensor, parameters: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the negative log-likelihood of each patch."""
    return torch.cat(
        [-torch.logsumexp(direct_joint(part, *parameters), dim=1) for part in x.split(_CHUNK)]
    )


def compare_direct() -> float:
    """Time both implementations of a step and a scoring, and check that they agree."""
    x = embeddings(20_000, 384, 500, 0)
    training = Training(DPMMConfig(components=500), x.clone(), x[:100].clone(), torch.device("cpu"))
    for _ in training.start():
        pass
    batch = training._patches[:2048]
    components = training._components
    assert isinstance(components, DiagonalGaussians)
    parameters = (components.means, components.variances, training._log_weights)
    mixture = Mixture(components, training._log_weights, torch.zeros(384), 2.0)
    started = time.perf_counter()
    slow_score = direct_score(batch, parameters)
    slow_means, slow_variances = direct_step(batch, training, parameters)
    slow = time.perf_counter() - started
    score = -mixture.log_likelihood(batch)
    before = training._statistics.keep(torch.arange(500))
    training.step(batch, _STEP)
    pairs = {
        "score": (score, slow_score),
        "means": (components.means, slow_means),
        "variances": (components.variances, slow_variances),
    }
    for name, (found, expected) in pairs.items():
        error = float(((found - expected).abs() / expected.abs().amax()).max())
        print(f"largest relative difference of {name}: {error:.1e}")
        if error > 1e-4:
            raise SystemExit(f"The two implementations differ in {name}.")
    training._statistics = before

    def fast() -> None:
        training.step(batch, _STEP)
        joint = training._components.log_density(batch, training._log_weights)
        torch.logsumexp(joint, dim=1)

    quick = seconds(fast, 9)
    print(f"EM step and scoring, 2,048 x 384, K = 500: {slow:.2f} s direct, {quick * 1e3:.1f} ms")
    return slow / quick


def compare_sklearn() -> None:
    """Fit both on 8,192 x 64 embeddings with 40 components."""
    from sklearn.mixture import BayesianGaussianMixture

    train, valid, test = (
        embeddings(count, 64, 40, seed).half().float()
        for count, seed in ((8192, 1), (2048, 2), (4096, 3))
    )
    started = time.perf_counter()
    model = DPMM(DPMMConfig(components=40, batch_patches=1024, score="likelihood"))
    for _ in model.fit(as_features(train), as_features(valid)):
        pass
    ours = time.perf_counter() - started
    likelihood = float(model.mixture.log_likelihood(test).mean())
    started = time.perf_counter()
    reference = BayesianGaussianMixture(
        n_components=40, covariance_type="diag", max_iter=100, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.fit(train.double().numpy())
    theirs = time.perf_counter() - started
    print(
        f"8,192 x 64, 40 components: {ours:.2f} s, held-out log-likelihood {likelihood:.2f}; "
        f"scikit-learn {theirs:.2f} s, {reference.score(test.double().numpy()):.2f}"
    )


def time_slice() -> None:
    """Time the scoring of one slice of 1,024 patches at 472 channels."""
    x = embeddings(4096, 472, 500, 4)
    model = DPMM(DPMMConfig(components=500, epochs=1, batch_patches=1024))
    for _ in model.fit(as_features(x), as_features(x[:1024])):
        pass
    size = sum(t.numel() * t.element_size() for t in model.tensors().values())
    again = DPMM.restore(model.config(), model.tensors())
    features = F.normalize(torch.randn(1, 472, 32, 32), dim=1)
    spent = seconds(lambda: again.score(features), 50) * 1e3
    print(f"one slice of 1,024 patches at 472 channels: {spent:.2f} ms; file {size / 1e6:.2f} MB")


def train_default() -> None:
    """Time the default fit on 200,000 patches."""
    train, valid = (
        as_features(embeddings(n, 472, 2000, s)) for n, s in ((200_704, 5), (30_720, 6))
    )
    model = DPMM()
    started = last = time.perf_counter()
    longest, starting = 0.0, 0.0
    for progress in model.fit(train, valid):
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        if progress.step == "Starting the mixture":
            starting = now - started
    history = ", ".join(f"{loss:.1f}" for loss in model.history_)
    print(
        f"default fit, 200,704 x 472: {time.perf_counter() - started:.1f} s, of which start "
        f"{starting:.1f} s; longest step {longest:.2f} s\n{model.summary()}; validation: {history}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.train:
        train_default()
    time_slice()
    compare_sklearn()
    print(f"ratio: {compare_direct():.1f}")


if __name__ == "__main__":
    main()
