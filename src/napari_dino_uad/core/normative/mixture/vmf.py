"""Von Mises-Fisher components: the cosine score as a density on the sphere."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

from napari_dino_uad.core.normative.mixture.components import Components, Prior, Statistics
from napari_dino_uad.core.storage.tensor_schema import TensorSpec

__all__ = ["VonMisesFisher", "concentration_from_length", "log_bessel", "mean_length"]

# Order above which the uniform expansion is exact up to the last digits of double precision.
_LARGE_ORDER = 15.0


def log_bessel(order: float, x: ArrayLike) -> NDArray[np.float64]:
    """Return log I_order(x), the modified Bessel function of the first kind.

    Large orders use the uniform asymptotic expansion (NIST DLMF 10.41.3), because I itself
    overflows or underflows there; others use scipy's exponentially scaled function.

    Parameters
    ----------
    order : float
        Order, not negative.
    x : array_like
        Positive arguments.
    """
    from scipy.special import ive

    x = np.asarray(x, dtype=np.float64)
    if order < _LARGE_ORDER:
        return np.asarray(np.log(ive(order, x)) + x)
    z = x / order
    root = np.sqrt(1 + z * z)
    t = 1 / root
    eta = root + np.log(z / (1 + root))
    t2 = t * t
    series = (
        t * (3 - 5 * t2) / 24 / order
        + t2 * (81 + t2 * (-462 + 385 * t2)) / 1152 / order**2
        + t**3 * (30375 + t2 * (-369603 + t2 * (765765 - 425425 * t2))) / 414720 / order**3
        + t**4
        * (4465125 + t2 * (-94121676 + t2 * (349922430 + t2 * (-446185740 + 185910725 * t2))))
        / 39813120
        / order**4
    )
    return np.asarray(
        order * eta - 0.5 * math.log(2 * math.pi * order) + 0.5 * np.log(t) + np.log1p(series)
    )


def mean_length(concentration: ArrayLike, channels: int) -> NDArray[np.float64]:
    """Return A_C(kappa) = I_{C/2}(kappa) / I_{C/2-1}(kappa), the mean resultant length."""
    order = channels / 2 - 1
    return np.exp(log_bessel(order + 1, concentration) - log_bessel(order, concentration))


def concentration_from_length(
    length: ArrayLike, channels: int, largest: float
) -> NDArray[np.float64]:
    """Solve A_C(kappa) = length for kappa, the maximum-likelihood concentration.

    Parameters
    ----------
    length : array_like
        Mean resultant lengths in [0, 1].
    channels : int
        C.
    largest : float
        Upper bound of kappa.

    Notes
    -----
    The initial value of A. Banerjee et al., JMLR 6 (2005), Eq. 4.4, and two Newton steps (S. Sra,
    Computational Statistics 27 (2012)).
    """
    length = np.clip(np.asarray(length, dtype=np.float64), 1e-9, 1 - 1e-12)
    kappa = length * (channels - length**2) / (1 - length**2)
    kappa = np.clip(kappa, 1e-6, largest)
    for _ in range(2):
        a = mean_length(kappa, channels)
        slope = 1 - a**2 - (channels - 1) / kappa * a
        # Skip the step if the slope is lost in rounding: the initial value is then the best.
        step = np.divide(a - length, slope, out=np.zeros_like(a), where=slope > 1e-14)
        kappa = np.clip(kappa - step, np.maximum(kappa / 2, 1e-6), np.minimum(2 * kappa, largest))
    return kappa


class VonMisesFisher(Components):
    """Densities C(kappa_k) exp(kappa_k mu_k . x) on embeddings of unit length.

    exp(kappa mu . x) equals exp(-kappa |x - mu|^2 / 2) up to a factor, so 1 / kappa takes the place
    of a Gaussian's variance, also in the Mahalanobis distance.

    Attributes
    ----------
    concentrations : torch.Tensor, (K,)
        kappa_k.
    """

    unit_length: ClassVar[bool] = True

    concentrations: torch.Tensor

    def _set(self, directions: torch.Tensor, concentrations: NDArray[np.float64]) -> None:
        channels = directions.shape[1]
        order = channels / 2 - 1
        # Normalise to the density at the mean, so that the exponent is the Mahalanobis distance.
        log_norm = (
            order * np.log(concentrations)
            - 0.5 * channels * math.log(2 * math.pi)
            - log_bessel(order, concentrations)
            + concentrations
        )
        self.means = directions
        self.concentrations = torch.from_numpy(concentrations).to(directions)
        self._log_norm = torch.from_numpy(log_norm).to(directions)
        self._weights = directions * self.concentrations[:, None]

    def _quadratic(self, x: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
        return torch.addmm(constant - self.concentrations, x, self._weights.T)

    def typical_deviation(self) -> torch.Tensor:
        """Return kappa^-1/2, (K, 1)."""
        return self.concentrations.rsqrt()[:, None]

    def empty(self, count: int, channels: int, device: torch.device) -> Statistics:
        """Return empty statistics."""
        return Statistics(
            torch.zeros(count, device=device),
            torch.zeros(count, channels, device=device),
            torch.zeros(count, 0, device=device),
        )

    def statistics(self, mass: torch.Tensor, ridge: float) -> Statistics:
        """Return the statistics that, without a prior, have these components as their maximum."""
        lengths = mean_length(self.concentrations.cpu().double().numpy(), self.means.shape[1])
        scale = mass * torch.from_numpy(lengths).to(mass)
        return Statistics(mass, scale[:, None] * self.means, mass.new_zeros(len(mass), 0))

    def _add_second(self, into: torch.Tensor, x: torch.Tensor, scaled: torch.Tensor) -> None:
        """Do nothing: |x| = 1, so there is no second moment."""

    def _add_sparse_second(
        self, into: torch.Tensor, x: torch.Tensor, weighted: torch.Tensor, columns: torch.Tensor
    ) -> None:
        """Do nothing: |x| = 1, so there is no second moment."""

    def maximise(self, statistics: Statistics, prior: Prior) -> None:
        """Set mu = M / |M|, and kappa from |M| / R shrunk to the pooled length."""
        norms = statistics.first.norm(dim=1)
        lengths = norms / statistics.mass.clamp_min(torch.finfo(norms.dtype).tiny)
        lengths = prior.shrink(lengths.clamp_max(1), statistics.mass)
        kappa = concentration_from_length(
            lengths.cpu().double().numpy(), statistics.first.shape[1], 1 / prior.ridge
        )
        self._set(F.normalize(statistics.first, dim=1), kappa)

    def broad(self, means: torch.Tensor, variance: torch.Tensor, ridge: float) -> None:
        """Set means (K, C) and one broad spread for all, from a variance (C,)."""
        # For unit vectors, the squared length of the mean is 1 - the total variance.
        length = math.sqrt(max(0.0, 1 - float(variance.sum())))
        kappa = concentration_from_length(length, means.shape[1], 1 / ridge)
        self._set(F.normalize(means, dim=1), np.full(len(means), float(kappa)))

    def spread_tensors(self) -> dict[str, torch.Tensor]:
        """Return the concentrations."""
        return {"concentrations": self.concentrations}

    def described(self, dimensions: int, ridge: float) -> dict[str, TensorSpec]:
        """Return what the file must hold of `spread_tensors`, of K components."""
        return {"concentrations": TensorSpec(("K",), above=0, most=min(1.001 / ridge, 1e12))}

    def load(self, means: torch.Tensor, spread: dict[str, torch.Tensor]) -> None:
        """Set the components from means (K, C) and the output of `spread_tensors`."""
        kappa = spread["concentrations"].cpu().double().numpy()
        self._set(F.normalize(means, dim=1), kappa)
