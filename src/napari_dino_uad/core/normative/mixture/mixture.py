"""A fitted mixture: components, their weights, and the posterior of patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from napari_dino_uad.core.normative.mixture.components import (
    Components,
    DiagonalGaussians,
    SphericalGaussians,
)
from napari_dino_uad.core.normative.mixture.full import FullGaussians
from napari_dino_uad.core.normative.mixture.settings import Covariance, DPMMConfig
from napari_dino_uad.core.normative.mixture.vmf import VonMisesFisher
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, unit_rows

__all__ = ["Mixture", "new_components"]

_KINDS: dict[Covariance, Callable[[], Components]] = {
    "diag": DiagonalGaussians,
    "spherical": SphericalGaussians,
    "full": FullGaussians,
    "vmf": VonMisesFisher,
}


def new_components(covariance: Covariance) -> Components:
    """Return components without parameters; set them with `maximise`, `broad` or `load`."""
    return _KINDS[covariance]()


@dataclass(frozen=True)
class Mixture:
    """The living components and their weights.

    Attributes
    ----------
    components : Components
        K densities, relative to `origin`.
    log_weights : torch.Tensor, (K,)
        log pi_k.
    origin : torch.Tensor, (C,)
        Subtracted from embeddings before they are compared with the components.
    concentration : float
        alpha of the Dirichlet process.
    """

    components: Components
    log_weights: torch.Tensor
    origin: torch.Tensor
    concentration: float

    @property
    def means(self) -> torch.Tensor:
        """Means in the space of the embeddings, (K, C)."""
        return self.components.means + self.origin

    def joint(self, x: torch.Tensor) -> torch.Tensor:
        """Return log pi_k p(x_n | k) of patches (N, C), (N, K)."""
        return self.components.log_density(x - self.origin, self.log_weights)

    def log_likelihood(self, x: torch.Tensor) -> torch.Tensor:
        """Return log sum_k pi_k p(x_n | k) of patches (N, C), (N,)."""
        return torch.logsumexp(self.joint(x), dim=1)

    def responsibilities(self, x: torch.Tensor) -> torch.Tensor:
        """Return the posterior of each component for patches (N, C), (N, K)."""
        return torch.softmax(self.joint(x), dim=1)

    def to(self, covariance: Covariance, device: torch.device) -> Mixture:
        """Return the mixture on a device."""
        components = new_components(covariance)
        spread = self.components.spread_tensors()
        components.load(
            self.components.means.to(device),
            {name: tensor.to(device) for name, tensor in spread.items()},
        )
        return Mixture(
            components, self.log_weights.to(device), self.origin.to(device), self.concentration
        )

    # Files --------------------------------------------------------------------------------

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors to save; those that grow with K x C are in half precision.

        Means are relative to the origin and spreads are standard deviations, so the eleven bits of
        half precision are relative to the spread of the data.
        """
        out = {
            "means": self.components.means.half(),
            "log_weights": self.log_weights,
            "origin": self.origin,
        }
        for name, spread in self.components.spread_tensors().items():
            # One value per component takes no space, and may exceed the range of half precision.
            out[name] = spread.half() if spread.ndim > 1 else spread
        return {name: tensor.cpu().contiguous() for name, tensor in out.items()}

    @staticmethod
    def described(settings: DPMMConfig, dimensions: int) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold, of K components."""

        def living(log_weights: torch.Tensor) -> str:
            if len(log_weights) > settings.components:
                return f"has more components than the {settings.components} of the settings"
            # The dead components have the rest.
            if float(torch.logsumexp(log_weights.double(), 0)) > 1e-3:
                return "holds logarithms of weights that sum to more than 1"
            return ""

        components = new_components(settings.covariance)
        sphere = components.unit_length
        bound = 0.0 if sphere else 1e9
        return {
            "log_weights": TensorSpec(("K",), rule=living),
            "means": TensorSpec(("K", dimensions), "float16", rule=unit_rows if sphere else None),
            # On the sphere the origin has a meaning.
            "origin": TensorSpec((dimensions,), least=-bound, most=bound),
            **components.described(dimensions, settings.lambda_),
        }

    @classmethod
    def restore(
        cls,
        covariance: Covariance,
        tensors: dict[str, torch.Tensor],
        concentration: float,
        device: torch.device,
    ) -> Mixture:
        """Build a mixture, in single precision, from the output of `tensors`.

        Raises
        ------
        KeyError, RuntimeError
            If tensors are missing or of the wrong shape.
        """
        single = {name: tensor.to(device, torch.float32) for name, tensor in tensors.items()}
        components = new_components(covariance)
        components.load(single["means"], single)
        return cls(components, single["log_weights"], single["origin"], concentration)
