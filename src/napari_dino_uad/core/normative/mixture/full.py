"""Gaussian components with full covariance matrices."""

from __future__ import annotations

import math

import torch

from napari_dino_uad.core.normative.mixture.components import Components, Prior, Statistics
from napari_dino_uad.core.storage.tensor_schema import TensorSpec

__all__ = ["FullGaussians"]

# Components whose factors are inverted in one go; bounds the temporary memory.
_AT_ONCE = 32


class FullGaussians(Components):
    """Gaussians with a full covariance matrix each.

    Beside the statistics, one (K, C, C) tensor of factors is stored. Components are evaluated one
    by one, so the largest tensor over patches is N x C.

    Attributes
    ----------
    factors : torch.Tensor, (K, C, C)
        A_k with Sigma_k^-1 = A_k A_k^T, upper triangular.
    """

    slow = True

    factors: torch.Tensor

    def _set(self, means: torch.Tensor, covariances: torch.Tensor, ridge: float) -> None:
        """Set the components; `covariances` is overwritten with the factors.

        The ridge is added here, so that no second (K, C, C) tensor is needed.
        """
        self.means, self.factors = means, covariances
        count, channels = means.shape
        covariances.diagonal(dim1=1, dim2=2).add_(ridge)
        unit = torch.eye(channels, device=means.device, dtype=means.dtype)
        for start in range(0, count, _AT_ONCE):
            part = covariances[start : start + _AT_ONCE]
            lower = torch.linalg.cholesky(part)
            inverse = torch.linalg.solve_triangular(lower, unit.expand_as(part), upper=False)
            part.copy_(inverse.mT)
        self._log_norm = self.factors.diagonal(dim1=1, dim2=2).log().sum(1) - (
            0.5 * channels * math.log(2 * math.pi)
        )

    def _quadratic(self, x: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
        out = x.new_empty(len(self), len(x))
        for k, factor in enumerate(self.factors):
            white = torch.addmm(-(self.means[k] @ factor), x, factor)
            torch.sum(white.square_(), dim=1, out=out[k])
        return out.mul_(-0.5).add_(constant[:, None]).T

    def _lower(self, k: int) -> torch.Tensor:
        """Return the Cholesky factor L_k = A_k^-T of Sigma_k, (C, C)."""
        factor = self.factors[k].mT
        unit = torch.eye(len(factor), device=factor.device, dtype=factor.dtype)
        return torch.linalg.solve_triangular(factor, unit, upper=False)

    def typical_deviation(self) -> torch.Tensor:
        """Return the standard deviations, (K, C)."""
        return torch.stack([self._lower(k).norm(dim=1) for k in range(len(self))])

    def covariance(self, k: int) -> torch.Tensor:
        """Return Sigma_k, (C, C)."""
        lower = self._lower(k)
        return lower @ lower.T

    def empty(self, count: int, channels: int, device: torch.device) -> Statistics:
        """Return empty statistics."""
        return Statistics(
            torch.zeros(count, device=device),
            torch.zeros(count, channels, device=device),
            torch.zeros(count, channels, channels, device=device),
        )

    def statistics(self, mass: torch.Tensor, ridge: float) -> Statistics:
        """Return the statistics that, without a prior, have these components as their maximum."""
        second = torch.empty_like(self.factors)
        for k, mean in enumerate(self.means):
            within = self.covariance(k)
            within.diagonal().sub_(ridge)
            second[k] = mass[k] * within.addr_(mean, mean)
        return Statistics(mass, mass[:, None] * self.means, second)

    def _add_second(self, into: torch.Tensor, x: torch.Tensor, scaled: torch.Tensor) -> None:
        for k, weights in enumerate(scaled):
            into[k].addmm_((x * weights[:, None]).T, x)

    def _add_sparse_second(
        self, into: torch.Tensor, x: torch.Tensor, weighted: torch.Tensor, columns: torch.Tensor
    ) -> None:
        order = torch.argsort(columns, stable=True)
        x, weighted, columns = x[order], weighted[order], columns[order]
        which, counts = torch.unique_consecutive(columns, return_counts=True)
        parts = zip(which.tolist(), counts.cumsum(0).tolist(), counts.tolist(), strict=True)
        for k, end, count in parts:
            own = slice(end - count, end)
            into[k].addmm_(weighted[own].T, x[own])

    def maximise(self, statistics: Statistics, prior: Prior) -> None:
        """Set mu = M / R and Sigma = Q / R - mu mu^T, shrunk to the pooled one, + lambda I."""
        mass = statistics.mass.clamp_min(torch.finfo(statistics.mass.dtype).tiny)[:, None]
        means = statistics.first / mass
        own = statistics.second / mass[:, :, None]
        for within, mean in zip(own, means, strict=True):
            within.addr_(mean, mean, alpha=-1)
        if prior.strength > 0 or prior.shared:
            pooled = torch.tensordot(statistics.mass / statistics.mass.sum(), own, dims=1)
            count = prior.patches * statistics.mass
            share = torch.zeros_like(count) if prior.shared else count / (count + prior.strength)
            for within, weight in zip(own, share, strict=True):
                within.lerp_(pooled, 1 - weight)
        self._set(means, own, prior.ridge)

    def broad(self, means: torch.Tensor, variance: torch.Tensor, ridge: float) -> None:
        """Set means (K, C) and one broad spread for all, from a variance (C,)."""
        self._set(means, torch.diag(variance).expand(len(means), -1, -1).clone(), ridge)

    def spread_tensors(self) -> dict[str, torch.Tensor]:
        """Return the upper triangles of the factors, (K, C (C + 1) / 2)."""
        rows, columns = torch.triu_indices(*self.factors.shape[1:])
        return {"factors": self.factors[:, rows, columns]}

    def described(self, dimensions: int, ridge: float) -> dict[str, TensorSpec]:
        """Return what the file must hold of `spread_tensors`, of K components."""
        rows, columns = torch.triu_indices(dimensions, dimensions)

        def positive(factors: torch.Tensor) -> str:
            if bool((factors[:, rows == columns] > 0).all()):
                return ""
            return "has a diagonal that is not positive"

        return {"factors": TensorSpec(("K", len(rows)), "float16", rule=positive)}

    def load(self, means: torch.Tensor, spread: dict[str, torch.Tensor]) -> None:
        """Set the components from means (K, C) and the output of `spread_tensors`."""
        count, channels = means.shape
        rows, columns = torch.triu_indices(channels, channels)
        self.means = means
        self.factors = torch.zeros(count, channels, channels, device=means.device)
        self.factors[:, rows, columns] = spread["factors"]
        self._log_norm = self.factors.diagonal(dim1=1, dim2=2).log().sum(1) - (
            0.5 * channels * math.log(2 * math.pi)
        )
