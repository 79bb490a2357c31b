"""Dirichlet process mixture of patch embeddings.

N. Schulthess and E. Konukoglu, "Anomaly Detection by Clustering DINO Embeddings using a
Dirichlet Process Mixture", MICCAI 2025 (arXiv 2509.19997). A truncated stick-breaking mixture
of Gaussians, fitted by stochastic EM with exponentially averaged sufficient statistics.

Everything over patches and components is a product of two matrices: no tensor of size
N x K x C is ever made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.features import FeatureSet

__all__ = ["DPMM", "DPMMConfig"]

# A component below this weight takes no part in scores: the threshold of the paper.
_LIVING_WEIGHT = 1e-6

Score = Literal["cosine", "euclidean", "mahalanobis", "likelihood"]
SCORES: tuple[Score, ...] = ("cosine", "euclidean", "mahalanobis", "likelihood")


@dataclass(frozen=True)
class DPMMConfig:
    """Settings of a `DPMM`.

    Attributes
    ----------
    components : int
        Truncation K; the data decide how many of them live.
    covariance : {"diag", "spherical"}
        Shape of each component's covariance.
    start : {"kmeans", "random"}
        "random" takes K embeddings as means and one broad covariance, as the paper does; on
        embeddings of several hundred dimensions almost all components then die within an epoch.
        "kmeans" starts from a clustering of a sample.
    step_size : float
        Share of the new batch in the running statistics; 1 is plain EM on each batch.
    epochs : int
        Passes over the patches.
    batch_patches : int
        Patches a step.
    max_patches : int
        Patches drawn from the healthy slices to fit on.
    concentration : float or None
        The Dirichlet process's concentration; None learns it, starting at 2.
    score : {"cosine", "euclidean", "mahalanobis", "likelihood"}
        How far from normal a patch is.
    seed : int
        Makes the fit repeatable.
    """

    components: int = 500
    covariance: Literal["diag", "spherical"] = "diag"
    start: Literal["kmeans", "random"] = "kmeans"
    step_size: float = 0.05
    epochs: int = 20
    batch_patches: int = 4096
    max_patches: int = 200_000
    concentration: float | None = None
    score: Score = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.components < 2:
            raise InputError(f"A mixture needs at least 2 components, but {self.components} came.")
        if not 0 < self.step_size <= 1:
            raise InputError(f"The step size must lie in (0, 1], but {self.step_size} came.")
        if self.score not in SCORES:
            raise InputError(
                f"The score must be one of {', '.join(SCORES)}, but {self.score!r} came."
            )


class DPMM:
    """Truncated stick-breaking mixture of Gaussians over patch embeddings.

    Parameters
    ----------
    settings : DPMMConfig, optional

    Attributes
    ----------
    means_ : torch.Tensor, (K, C)
    variances_ : torch.Tensor, (K, C)
        Diagonal of each covariance.
    log_weights_ : torch.Tensor, (K,)
        log pi_k.
    concentration_ : float
        alpha.
    history_ : list of float
        Mean negative log-likelihood of the validation patches after each epoch.
    best_epoch_ : int
        Epoch, from 1, whose state was kept.
    """

    method: ClassVar[str] = "dpmm"

    def __init__(self, settings: DPMMConfig | None = None) -> None:
        self.settings = settings or DPMMConfig()
        self.history_: list[float] = []
        self.best_epoch_ = 0

    # Fitting ------------------------------------------------------------------------------

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Fit by stochastic EM and keep the epoch that explains `valid` best.

        Parameters
        ----------
        train, valid : FeatureSet
            Healthy slices.

        Yields
        ------
        Progress
            After every batch.
        """
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed)
        patches = train.patches(settings.max_patches, generator)
        held_out = valid.patches(min(settings.max_patches, 50_000), generator)
        if len(patches) < 2 * settings.components:
            raise InputError(
                f"{len(patches)} healthy patches are too few for {settings.components} "
                "components; give more scans or ask for fewer components."
            )
        yield Progress("Starting the mixture", 0, 1)
        self._start(patches, generator)
        batch = min(settings.batch_patches, len(patches))
        steps = len(patches) // batch
        best = math.inf
        for epoch in range(settings.epochs):
            order = torch.randperm(len(patches), generator=generator)
            for step in range(steps):
                x = patches[order[step * batch : (step + 1) * batch]]
                self.em_step(x, settings.step_size)
                yield Progress(
                    "Fitting the mixture",
                    epoch * steps + step + 1,
                    settings.epochs * steps,
                    f"epoch {epoch + 1} of {settings.epochs}",
                )
            loss = -float(
                torch.cat([self.log_likelihood(part) for part in held_out.split(8192)]).mean()
            )
            self.history_.append(loss)
            if loss < best:
                best, self.best_epoch_ = loss, epoch + 1
                kept = (self.means_, self.variances_, self.log_weights_, self.concentration_)
        self.means_, self.variances_, self.log_weights_, self.concentration_ = kept

    def _start(self, x: torch.Tensor, generator: torch.Generator) -> None:
        """Place the components and set the statistics they stand for."""
        settings = self.settings
        count = settings.components
        variance = x.var(dim=0) + self._ridge
        if settings.start == "kmeans":
            sample = x[torch.randperm(len(x), generator=generator)[: 100 * count]]
            means, weights, variances = _kmeans(sample, count, generator)
            # A cluster of a few points says little of its spread; the pooled spread within
            # clusters stands in for ten more points.
            pooled = (weights[:, None] * variances).sum(0)
            points = weights[:, None] * len(sample)
            variances = (points * variances + 10 * pooled) / (points + 10) + self._ridge
        else:
            means = x[torch.randperm(len(x), generator=generator)[:count]].clone()
            weights = torch.full((count,), 1.0 / count)
            variances = variance.expand(count, -1).clone()
        # Sticks are broken in order of weight, so that the prior favours what is common.
        order = torch.argsort(weights, descending=True)
        self._set_statistics(weights[order], means[order], variances[order])
        self.concentration_ = 2.0 if settings.concentration is None else settings.concentration
        self._m_step(self.settings.batch_patches)

    @property
    def _ridge(self) -> float:
        return 1e-6

    def _set_statistics(
        self, weights: torch.Tensor, means: torch.Tensor, variances: torch.Tensor
    ) -> None:
        self._R = weights
        self._M = weights[:, None] * means
        self._Q = weights[:, None] * (variances - self._ridge + means.square())

    def em_step(self, x: torch.Tensor, step_size: float) -> None:
        """Take one stochastic EM step.

        Parameters
        ----------
        x : torch.Tensor, (N, C)
            Patch embeddings.
        step_size : float
            rho, the share of this batch in the running statistics.
        """
        responsibilities = self.responsibilities(x)
        # R_k <- (1 - rho) R_k + rho mean_n r_nk, and likewise M and Q.
        scale = step_size / len(x)
        self._R = (1 - step_size) * self._R + scale * responsibilities.sum(0)
        self._M = (1 - step_size) * self._M + scale * (responsibilities.T @ x)
        self._Q = (1 - step_size) * self._Q + scale * (responsibilities.T @ x.square())
        self._m_step(len(x))

    def _m_step(self, n: int) -> None:
        """Set means, covariances, sticks and concentration from the statistics."""
        tiny = torch.finfo(self._R.dtype).tiny
        mass = self._R.clamp_min(tiny)[:, None]
        self.means_ = self._M / mass
        variances = (self._Q / mass - self.means_.square()).clamp_min(0) + self._ridge
        if self.settings.covariance == "spherical":
            variances = variances.mean(dim=1, keepdim=True).expand_as(variances).clone()
        self.variances_ = variances
        # T_k = sum_{j>k} R_j; v_k = R_k / (R_k + (alpha - 1) / N + T_k), v_K = 1.
        tail = self._R.flip(0).cumsum(0).flip(0) - self._R
        tail = tail.clamp_min(0)
        alpha = self.concentration_
        sticks = self._R / (self._R + (alpha - 1) / n + tail).clamp_min(tiny)
        sticks = sticks.clamp(tiny, 1 - 1e-7)
        sticks[-1] = 1.0
        rest = torch.log1p(-sticks[:-1]).cumsum(0)
        self.log_weights_ = torch.log(sticks)
        self.log_weights_[1:] += rest
        if self.settings.concentration is None:
            head, after = n * (self._R + tail)[:-1], n * tail[:-1]
            gaps = torch.digamma(head + alpha + 1) - torch.digamma(after + alpha)
            self.concentration_ = float((len(sticks) - 1) / gaps.sum())

    # The mixture --------------------------------------------------------------------------

    def component_log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Return log N(x_n | mu_k, Sigma_k), (N, K), as two matrix products."""
        precision = 1 / self.variances_
        constant = (
            self.variances_.log().sum(1)
            + (self.means_.square() * precision).sum(1)
            + x.shape[1] * math.log(2 * math.pi)
        )
        out = torch.addmm(-0.5 * constant, x, (self.means_ * precision).T)
        return out.addmm_(x.square(), precision.T, alpha=-0.5)

    def responsibilities(self, x: torch.Tensor) -> torch.Tensor:
        """Return r_nk, the posterior of each component for each patch, (N, K)."""
        return torch.softmax(self.component_log_density(x) + self.log_weights_, dim=1)

    def log_likelihood(self, x: torch.Tensor) -> torch.Tensor:
        """Return log sum_k pi_k N(x_n | mu_k, Sigma_k), (N,)."""
        return torch.logsumexp(self.component_log_density(x) + self.log_weights_, dim=1)

    @property
    def living(self) -> torch.Tensor:
        """Which components carry weight, (K,) of bool."""
        return self.log_weights_ > math.log(_LIVING_WEIGHT)

    def score_patches(self, x: torch.Tensor, score: Score | None = None) -> torch.Tensor:
        """Score patches.

        Parameters
        ----------
        x : torch.Tensor, (N, C)
            Patch embeddings.
        score : str, optional
            One of "cosine", "euclidean", "mahalanobis" and "likelihood"; the model's own
            if not given.

        Returns
        -------
        torch.Tensor, (N,)
            Higher is more abnormal.
        """
        score = score or self.settings.score
        if score == "likelihood":
            return -self.log_likelihood(x)
        means = self.means_[self.living]
        if score == "cosine":
            return 1 - (F.normalize(x, dim=1) @ F.normalize(means, dim=1).T).amax(1)
        if score == "euclidean":
            squared = x.square().sum(1, keepdim=True) - 2 * x @ means.T + means.square().sum(1)
            return squared.amin(1).clamp_min(0).sqrt()
        precision = 1 / self.variances_[self.living]
        squared = (
            x.square() @ precision.T
            - 2 * x @ (means * precision).T
            + (means.square() * precision).sum(1)
        )
        return squared.amin(1).clamp_min(0).sqrt()

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Score embeddings on the patch grid, (B, C, h, w) -> (B, h, w)."""
        batch, channels, height, width = features.shape
        flat = features.permute(0, 2, 3, 1).reshape(-1, channels)
        return self.score_patches(flat).reshape(batch, height, width)

    def explain(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Say which component each patch is nearest to.

        Returns
        -------
        dict
            "component": (B, h, w) of int64, the index of the nearest living mean by cosine;
            "log_likelihood": (B, h, w).
        """
        batch, channels, height, width = features.shape
        flat = features.permute(0, 2, 3, 1).reshape(-1, channels)
        cosine = F.normalize(flat, dim=1) @ F.normalize(self.means_, dim=1).T
        nearest = cosine.masked_fill(~self.living, -2).argmax(1)
        return {
            "component": nearest.reshape(batch, height, width),
            "log_likelihood": self.log_likelihood(flat).reshape(batch, height, width),
        }

    # Files --------------------------------------------------------------------------------

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the living components, most common first."""
        keep = self.living
        variances = self.variances_[keep]
        if self.settings.covariance == "spherical":
            variances = variances[:, :1]
        return {
            "means": self.means_[keep].contiguous(),
            "variances": variances.contiguous(),
            "log_weights": torch.log_softmax(self.log_weights_[keep], 0),
            "history": torch.tensor(self.history_),
        }

    def config(self) -> dict[str, Any]:
        """Return the settings and the fitted numbers that are no tensors."""
        return {
            **dataclasses.asdict(self.settings),
            "best_epoch": self.best_epoch_,
            "learned_concentration": self.concentration_,
        }

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> DPMM:
        """Build a fitted mixture from its file."""
        values = dict(config)
        best_epoch = values.pop("best_epoch")
        concentration = values.pop("learned_concentration")
        model = cls(DPMMConfig(**values))
        model.best_epoch_ = best_epoch
        model.concentration_ = concentration
        model.means_ = tensors["means"]
        model.variances_ = tensors["variances"].expand_as(tensors["means"]).contiguous()
        model.log_weights_ = tensors["log_weights"]
        model.history_ = tensors["history"].tolist()
        return model

    def summary(self) -> str:
        """Say in one line what was fitted."""
        return (
            f"DPMM, {self.settings.covariance} covariance: {int(self.living.sum())} of "
            f"{self.settings.components} components live, concentration "
            f"{self.concentration_:.2f}, best epoch {self.best_epoch_}"
        )


def _kmeans(
    x: torch.Tensor, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cluster a sample; return centres (K, C), shares (K,) and variances within (K, C)."""
    from sklearn.cluster import MiniBatchKMeans

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    kmeans = MiniBatchKMeans(
        n_clusters=count, init="k-means++", n_init=1, batch_size=8192, random_state=seed
    ).fit(x.numpy())
    labels = torch.from_numpy(kmeans.labels_).long()
    points = torch.bincount(labels, minlength=count).float()
    mass = points.clamp_min(1)[:, None]
    sums = torch.zeros(count, x.shape[1]).index_add_(0, labels, x)
    squares = torch.zeros(count, x.shape[1]).index_add_(0, labels, x.square())
    # A cluster that lost all its points keeps its centre.
    centres = torch.where(
        points[:, None] > 0, sums / mass, torch.from_numpy(kmeans.cluster_centers_).to(x.dtype)
    )
    variances = (squares / mass - centres.square()).clamp_min(0)
    return centres, points / points.sum(), variances
