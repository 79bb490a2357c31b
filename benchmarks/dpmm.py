"""One EM step and one scoring of the DPMM against the same formulas written with broadcasting.

    python benchmarks/dpmm.py

2,048 embeddings of 384 channels, 500 diagonal components, float32 on the CPU. The broadcasting
side makes the tensor of size N x K x C that the products avoid, a few embeddings at a time, since
the whole would not fit in memory. Also compares fit time and held-out log-likelihood with
scikit-learn's BayesianGaussianMixture on a smaller problem. The last line is the ratio.
"""

from __future__ import annotations

import math
import time
import warnings

import torch
from sklearn.mixture import BayesianGaussianMixture

from napari_dino_uad.core.features import FeatureSet
from napari_dino_uad.core.normative.context import Context
from napari_dino_uad.core.normative.dpmm import DPMM, DPMMConfig
from napari_dino_uad.core.progress import drain

PATCHES, CHANNELS, COMPONENTS = 2048, 384, 500
STEP_SIZE = 0.05
CHUNK = 64


def embeddings(count: int, channels: int, centres: int, seed: int) -> torch.Tensor:
    """Draw unit vectors around some directions, as l2-normalised embeddings lie."""
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(centres, channels, generator=generator)
    generator = torch.Generator().manual_seed(seed + 1)
    which = torch.randint(centres, (count,), generator=generator)
    noise = torch.randn(count, channels, generator=generator)
    return torch.nn.functional.normalize(middle[which] + 0.7 * noise, dim=1)


def as_features(x: torch.Tensor, context: Context) -> FeatureSet:
    """Lay embeddings out as slices of 16 x 16 patches."""
    slices = x.reshape(-1, 16, 16, x.shape[1]).permute(0, 3, 1, 2)
    features = FeatureSet(context, (x.shape[1],))
    features.add(slices.half().numpy(), torch.ones(len(slices), 16, 16).bool().numpy())
    return features


def broadcast_log_density(
    x: torch.Tensor, means: torch.Tensor, variances: torch.Tensor
) -> torch.Tensor:
    out = []
    for part in x.split(CHUNK):
        difference = part[:, None, :] - means[None]
        terms = difference**2 / variances[None] + variances[None].log() + math.log(2 * math.pi)
        out.append(-0.5 * terms.sum(-1))
    return torch.cat(out)


def broadcast_step(model: DPMM, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the means, variances and weights after one step, and the scores."""
    log_joint = broadcast_log_density(x, model.means_, model.variances_) + model.log_weights_
    r = torch.softmax(log_joint, 1)
    first = torch.zeros_like(model.means_)
    second = torch.zeros_like(model.means_)
    for part, weight in zip(x.split(CHUNK), r.split(CHUNK), strict=True):
        product = weight[:, :, None] * part[:, None, :]
        first += product.sum(0)
        second += (product * part[:, None, :]).sum(0)
    rho, n = STEP_SIZE, len(x)
    mass = (1 - rho) * model._R + rho * r.sum(0) / n
    first = (1 - rho) * model._M + rho * first / n
    second = (1 - rho) * model._Q + rho * second / n
    means = first / mass[:, None]
    variances = (second / mass[:, None] - means**2).clamp_min(0) + 1e-6
    return means, variances, mass


def broadcast_score(model: DPMM, x: torch.Tensor) -> torch.Tensor:
    """1 - the largest cosine to a mean."""
    out = []
    for part in x.split(CHUNK):
        dots = (part[:, None, :] * model.means_[None]).sum(-1)
        norms = part.norm(dim=1)[:, None] * model.means_.norm(dim=1)[None]
        out.append(1 - (dots / norms).amax(1))
    return torch.cat(out)


def best_of(repeats: int, work) -> float:
    seconds = []
    for _ in range(repeats):
        clock = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - clock)
    return min(seconds)


def against_broadcasting() -> float:
    x = embeddings(PATCHES, CHANNELS, 64, 1)
    start = embeddings(4 * COMPONENTS * 5, CHANNELS, 64, 2)

    def fresh() -> DPMM:
        model = DPMM(DPMMConfig(components=COMPONENTS, start="random"))
        model._start(start, torch.Generator().manual_seed(0))
        return model

    model = fresh()
    means, variances, mass = broadcast_step(model, x)
    model.em_step(x, STEP_SIZE)
    for name, ours, theirs in (
        ("means", model.means_, means),
        ("variances", model.variances_, variances),
        ("masses", model._R, mass),
        ("scores", model.score_patches(x, "cosine"), broadcast_score(model, x)),
    ):
        error = float((ours - theirs).abs().max())
        print(f"{name}: largest difference {error:.1e}")
        assert error < 1e-4, name
    stepped = fresh()

    def ours() -> None:
        stepped.em_step(x, STEP_SIZE)
        stepped.score_patches(x, "cosine")

    def theirs() -> None:
        broadcast_step(model, x)
        broadcast_score(model, x)

    ours()
    fast, slow = best_of(10, ours), best_of(2, theirs)
    print(f"EM step and scoring: {1000 * fast:.1f} ms; with broadcasting {slow:.1f} s")
    return slow / fast


def against_scikit_learn() -> None:
    channels, components = 64, 50
    context = Context(neighbourhood=1)
    train, valid = (
        embeddings(count, channels, 40, seed) for count, seed in ((20480, 3), (5120, 4))
    )
    sets = as_features(train, context), as_features(valid, context)
    model = DPMM(DPMMConfig(components=components, epochs=10))
    clock = time.perf_counter()
    drain(model.fit(*sets))
    ours = time.perf_counter() - clock
    likelihood = float(model.log_likelihood(valid).mean())
    reference = BayesianGaussianMixture(
        components, covariance_type="diag", max_iter=100, random_state=0,
        weight_concentration_prior_type="dirichlet_process",
    )  # fmt: skip
    clock = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.fit(train.numpy())
    theirs = time.perf_counter() - clock
    print(
        f"20,480 x {channels}, {components} components: DPMM {ours:.1f} s, held-out "
        f"log-likelihood {likelihood:.2f}; scikit-learn {theirs:.1f} s, "
        f"{reference.score(valid.numpy()):.2f}"
    )


if __name__ == "__main__":
    against_scikit_learn()
    print(f"ratio: {against_broadcasting():.1f}")
