"""Components of a mixture: densities, sufficient statistics and their maximisation.

Everything over patches and components is a matrix product, so no tensor of size N x K x C or
N x C x C is ever created.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from napari_dino_uad.core.storage.tensor_schema import TensorSpec

__all__ = ["Components", "DiagonalGaussians", "Prior", "SphericalGaussians", "Statistics"]

# Responsibilities below this change a statistic by less than the precision of float32.
_NEGLIGIBLE = 1e-9

# Share of non-negligible responsibilities above which a dense product is faster than a sparse sum.
_DENSE = 0.02


@dataclass
class Statistics:
    """Running sufficient statistics: means over patches.

    Attributes
    ----------
    mass : torch.Tensor, (K,)
        R_k = mean_n r_nk.
    first : torch.Tensor, (K, C)
        M_k = mean_n r_nk x_n.
    second : torch.Tensor
        Q_k: mean of r_nk times x^2 (K, C) for diagonal, |x|^2 (K, 1) for spherical, x x^T
        (K, C, C) for full covariance; (K, 0) for von Mises-Fisher components.
    """

    mass: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def scale_(self, factor: float) -> None:
        """Multiply all statistics by a number, in place."""
        for tensor in (self.mass, self.first, self.second):
            tensor.mul_(factor)

    def keep(self, which: torch.Tensor) -> Statistics:
        """Return the statistics of some components; `which` is a mask or indices (K,)."""
        return Statistics(self.mass[which], self.first[which], self.second[which])


@dataclass(frozen=True)
class Prior:
    """Prior on the spread of components.

    Attributes
    ----------
    ridge : float
        lambda, added to every variance.
    strength : float
        Number of patches with the pooled spread added to each component's own.
    patches : int
        Number of patches that a mass of 1 stands for.
    shared : bool
        Whether all components share the pooled spread.
    """

    ridge: float
    strength: float = 0.0
    patches: int = 1
    shared: bool = False

    def shrink(self, own: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
        """Shrink each component's spread towards the pooled one.

        Returns the mode under an inverse-gamma prior whose mode is the pooled spread:
        (n_k S_k + nu S) / (n_k + nu), with n_k = patches x R_k and S = sum_k R_k S_k / sum_k R_k.

        Parameters
        ----------
        own : torch.Tensor, (K, ...)
            S_k.
        mass : torch.Tensor, (K,)
            R_k.
        """
        if self.strength == 0 and not self.shared:
            return own
        shape = (-1,) + (1,) * (own.ndim - 1)
        pooled = torch.tensordot(mass / mass.sum(), own, dims=1)
        if self.shared:
            return pooled.expand_as(own).clone()
        count = self.patches * mass
        return torch.lerp(pooled, own, (count / (count + self.strength)).view(shape))


class Components(ABC):
    """K densities over C channels.

    Patches and means are relative to one origin, stored in the mixture. It cancels in every
    formula, and avoids differences of large numbers in single precision.

    Attributes
    ----------
    means : torch.Tensor, (K, C)
    """

    #: Whether embeddings must have unit length.
    unit_length: ClassVar[bool] = False

    #: Whether a step takes seconds, so that progress must be reported during it.
    slow: ClassVar[bool] = False

    means: torch.Tensor
    _log_norm: torch.Tensor

    def __len__(self) -> int:
        return len(self.means)

    # Densities ----------------------------------------------------------------------------

    @abstractmethod
    def _quadratic(self, x: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
        """Return constant_k - d_nk^2 / 2, where d is the Mahalanobis distance, (N, K)."""

    def log_density(self, x: torch.Tensor, log_weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return log p(x_n | k), plus log pi_k if weights are given, (N, K)."""
        constant = self._log_norm if log_weights is None else self._log_norm + log_weights
        return self._quadratic(x, constant)

    def squared_mahalanobis(self, x: torch.Tensor) -> torch.Tensor:
        """Return (x_n - mu_k)^T Sigma_k^-1 (x_n - mu_k), (N, K)."""
        zero = torch.zeros_like(self._log_norm)
        return self._quadratic(x, zero).mul_(-2).clamp_min_(0)

    @abstractmethod
    def typical_deviation(self) -> torch.Tensor:
        """Return the standard deviations, (K, C) or (K, 1)."""

    # Statistics ---------------------------------------------------------------------------

    @abstractmethod
    def empty(self, count: int, channels: int, device: torch.device) -> Statistics:
        """Return empty statistics."""

    @abstractmethod
    def statistics(self, mass: torch.Tensor, ridge: float) -> Statistics:
        """Return the statistics that, without a prior, have these components as their maximum."""

    def accumulate(
        self, into: Statistics, x: torch.Tensor, responsibilities: torch.Tensor, scale: float
    ) -> None:
        """Add scale * sum_n r_nk (1, x_n, second moment) to statistics.

        In several hundred dimensions, nearly all responsibilities are 0 or 1. On a CPU, the sums
        therefore skip negligible ones. On a GPU, or if many are not negligible, dense products
        are used.

        Parameters
        ----------
        into : Statistics
            Modified in place.
        x : torch.Tensor, (N, C)
        responsibilities : torch.Tensor, (N, K)
        scale : float
        """
        if responsibilities.device.type == "cpu":
            rows, columns = torch.nonzero(responsibilities > _NEGLIGIBLE, as_tuple=True)
            if len(rows) < _DENSE * responsibilities.numel():
                weights = responsibilities[rows, columns] * scale
                self.add_pairs(into, x[rows], columns, weights)
                return
        scaled = responsibilities.T * scale
        into.mass.add_(scaled.sum(1))
        into.first.addmm_(scaled, x)
        self._add_second(into.second, x, scaled)

    def add_pairs(
        self, into: Statistics, x: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """Add sum_p w_p (1, x_p, second moment) to the statistics of each pair's component.

        Parameters
        ----------
        into : Statistics
            Modified in place.
        x : torch.Tensor, (P, C)
        columns : torch.Tensor of int64, (P,)
            Component of each pair.
        weights : torch.Tensor, (P,)
        """
        weighted = x * weights[:, None]
        into.mass.index_add_(0, columns, weights)
        into.first.index_add_(0, columns, weighted)
        self._add_sparse_second(into.second, x, weighted, columns)

    @abstractmethod
    def _add_second(self, into: torch.Tensor, x: torch.Tensor, scaled: torch.Tensor) -> None:
        """Add sum_n scaled_kn (second moment of x_n), with scaled (K, N)."""

    @abstractmethod
    def _add_sparse_second(
        self, into: torch.Tensor, x: torch.Tensor, weighted: torch.Tensor, columns: torch.Tensor
    ) -> None:
        """Add the second moments of pairs: x (P, C), weighted = w_p x_p, component of each."""

    @abstractmethod
    def maximise(self, statistics: Statistics, prior: Prior) -> None:
        """Set the components to the maximum of the statistics under a prior (the M-step)."""

    @abstractmethod
    def broad(self, means: torch.Tensor, variance: torch.Tensor, ridge: float) -> None:
        """Set means (K, C) and one broad spread for all, from a variance (C,)."""

    # Keeping ------------------------------------------------------------------------------

    @abstractmethod
    def spread_tensors(self) -> dict[str, torch.Tensor]:
        """Return the spread to save beside the means."""

    @abstractmethod
    def described(self, dimensions: int, ridge: float) -> dict[str, TensorSpec]:
        """Return what the file must hold of `spread_tensors`, of K components."""

    @abstractmethod
    def load(self, means: torch.Tensor, spread: dict[str, torch.Tensor]) -> None:
        """Set the components from means (K, C) and the output of `spread_tensors`."""


class DiagonalGaussians(Components):
    """Gaussians with one variance for each channel.

    Attributes
    ----------
    variances : torch.Tensor, (K, C)
    """

    variances: torch.Tensor

    def _set(self, means: torch.Tensor, variances: torch.Tensor) -> None:
        self.means, self.variances = means, variances
        precisions = variances.reciprocal()
        self._linear = means * precisions
        self._square = precisions.mul_(-0.5)
        self._offset = -0.5 * (means * self._linear).sum(1)
        self._log_norm = -0.5 * (
            self._channels_per_variance * variances.log().sum(1)
            + means.shape[1] * math.log(2 * math.pi)
        )

    @property
    def _channels_per_variance(self) -> int:
        return 1

    def _moments(self, x: torch.Tensor) -> torch.Tensor:
        return x.square()

    def _quadratic(self, x: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
        out = torch.addmm(constant + self._offset, x, self._linear.T)
        return out.addmm_(self._moments(x), self._square.T)

    def typical_deviation(self) -> torch.Tensor:
        """Return the standard deviations, (K, C) or (K, 1)."""
        return self.variances.sqrt()

    def empty(self, count: int, channels: int, device: torch.device) -> Statistics:
        """Return empty statistics."""
        return Statistics(
            torch.zeros(count, device=device),
            torch.zeros(count, channels, device=device),
            torch.zeros(count, channels, device=device),
        )

    def statistics(self, mass: torch.Tensor, ridge: float) -> Statistics:
        """Return the statistics that, without a prior, have these components as their maximum."""
        weight = mass[:, None]
        second = (self.variances - ridge).clamp_min(0) + self.means.square()
        return Statistics(mass, weight * self.means, weight * second)

    def _add_second(self, into: torch.Tensor, x: torch.Tensor, scaled: torch.Tensor) -> None:
        into.addmm_(scaled, self._moments(x))

    def _add_sparse_second(
        self, into: torch.Tensor, x: torch.Tensor, weighted: torch.Tensor, columns: torch.Tensor
    ) -> None:
        into.index_add_(0, columns, weighted * x)

    def maximise(self, statistics: Statistics, prior: Prior) -> None:
        """Set mu = M / R and Sigma = Q / R - mu^2, shrunk to the pooled one, + lambda."""
        mass = statistics.mass.clamp_min(torch.finfo(statistics.mass.dtype).tiny)[:, None]
        means = statistics.first / mass
        own = torch.addcmul(statistics.second / mass, means, means, value=-1).clamp_min_(0)
        self._set(means, prior.shrink(own, statistics.mass) + prior.ridge)

    def broad(self, means: torch.Tensor, variance: torch.Tensor, ridge: float) -> None:
        """Set means (K, C) and one broad spread for all, from a variance (C,)."""
        self._set(means, (variance + ridge).expand_as(means).clone())

    def spread_tensors(self) -> dict[str, torch.Tensor]:
        """Return standard deviations, which fit the range of half precision."""
        return {"deviations": self.variances.sqrt()}

    def described(self, dimensions: int, ridge: float) -> dict[str, TensorSpec]:
        """Return what the file must hold of `spread_tensors`, of K components."""
        return {"deviations": TensorSpec(("K", dimensions), "float16", above=0)}

    def load(self, means: torch.Tensor, spread: dict[str, torch.Tensor]) -> None:
        """Set the components from means (K, C) and the output of `spread_tensors`."""
        self._set(means, spread["deviations"].square())


class SphericalGaussians(DiagonalGaussians):
    """Gaussians with one variance for all channels.

    Attributes
    ----------
    variances : torch.Tensor, (K, 1)
    """

    @property
    def _channels_per_variance(self) -> int:
        return self.means.shape[1]

    def _moments(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(1, keepdim=True)

    def empty(self, count: int, channels: int, device: torch.device) -> Statistics:
        """Return empty statistics."""
        return Statistics(
            torch.zeros(count, device=device),
            torch.zeros(count, channels, device=device),
            torch.zeros(count, 1, device=device),
        )

    def statistics(self, mass: torch.Tensor, ridge: float) -> Statistics:
        """Return the statistics that, without a prior, have these components as their maximum."""
        weight = mass[:, None]
        channels = self.means.shape[1]
        second = channels * (self.variances - ridge).clamp_min(0) + self._moments(self.means)
        return Statistics(mass, weight * self.means, weight * second)

    def _add_sparse_second(
        self, into: torch.Tensor, x: torch.Tensor, weighted: torch.Tensor, columns: torch.Tensor
    ) -> None:
        into.index_add_(0, columns, (weighted * x).sum(1, keepdim=True))

    def maximise(self, statistics: Statistics, prior: Prior) -> None:
        """Set mu = M / R and the mean over channels of Q / R - mu^2, shrunk, + lambda."""
        mass = statistics.mass.clamp_min(torch.finfo(statistics.mass.dtype).tiny)[:, None]
        means = statistics.first / mass
        own = (statistics.second / mass - self._moments(means)).clamp_min_(0) / means.shape[1]
        self._set(means, prior.shrink(own, statistics.mass) + prior.ridge)

    def broad(self, means: torch.Tensor, variance: torch.Tensor, ridge: float) -> None:
        """Set means (K, C) and one broad spread for all, from a variance (C,)."""
        self._set(means, (variance.mean() + ridge).expand(len(means), 1).clone())

    def described(self, dimensions: int, ridge: float) -> dict[str, TensorSpec]:
        """Return what the file must hold of `spread_tensors`, of K components."""
        return {"deviations": TensorSpec(("K", 1), "float16", above=0)}
