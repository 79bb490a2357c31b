"""Scores from prediction errors, relative to the errors of healthy tissue."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.storage.tensor_schema import TensorSpec

__all__ = [
    "ErrorScale",
    "Whitening",
    "cosine_error",
    "gaussian_nll",
    "measure_errors",
    "position_mean",
]

Whitening = Literal["none", "channel", "full"]

# Weight of the overall mean at each grid position, in patches of healthy tissue. Where little
# healthy tissue was seen, the map tends to the overall mean.
_PRIOR_PATCHES = 5.0


def cosine_error(target: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine over channels, (B, P, h, w) twice -> (B, h, w)."""
    return 1 - F.cosine_similarity(target, predicted, dim=1)


def gaussian_nll(
    target: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor
) -> torch.Tensor:
    """Return the Gaussian negative log-likelihood, averaged over channels.

    mean_c [ log(2 pi) + log s_c^2 + (x_c - m_c)^2 / s_c^2 ] / 2

    Parameters
    ----------
    target, mean, log_variance : torch.Tensor, (B, P, h, w)

    Returns
    -------
    torch.Tensor, (B, h, w)
    """
    squared = (target - mean).square() * torch.exp(-log_variance)
    return 0.5 * (squared + log_variance).mean(dim=1) + 0.5 * math.log(2 * math.pi)


def position_mean(total: torch.Tensor, count: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Average scores at each grid position, smoothed over the grid.

    Parameters
    ----------
    total, count : torch.Tensor of float64, (h, w)
        Sum and number of the healthy scores.
    smoothing : float
        Standard deviation of the Gaussian, in patches; 0 turns smoothing off.

    Returns
    -------
    torch.Tensor of float32, (h, w)
        Smoothed means; the overall mean where no healthy tissue is near.
    """
    overall = float(total.sum() / count.sum())
    sums = torch.stack([total, count])[:, None].double()
    if smoothing > 0:
        radius = math.ceil(3 * smoothing)
        steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (steps / smoothing).square())
        kernel /= kernel.sum()
        # Smooth the sum and the count alike, so that the tissue's border is not pulled down.
        sums = F.conv2d(sums, kernel.view(1, 1, -1, 1), padding=(radius, 0))
        sums = F.conv2d(sums, kernel.view(1, 1, 1, -1), padding=(0, radius))
    top, bottom = sums[0, 0], sums[1, 0]
    return ((top + _PRIOR_PATCHES * overall) / (bottom + _PRIOR_PATCHES)).float()


@dataclass
class ErrorScale:
    """Statistics of healthy prediction errors.

    Attributes
    ----------
    whitening : torch.Tensor, (P,) or (P, P), or None
        1 / standard deviation of each channel's healthy error, or the matrix that makes healthy
        errors uncorrelated with unit variance.
    position : torch.Tensor, (h, w), or None
        Mean healthy score at each grid position.
    relative : bool
        True divides scores by `position`, False subtracts it (log-likelihoods may be negative).
    """

    whitening: torch.Tensor | None = None
    position: torch.Tensor | None = None
    relative: bool = True

    @staticmethod
    def described(whitening: Whitening, position: bool, relative: bool) -> dict[str, TensorSpec]:
        """Return what a file must hold of the scale, of P channels on a grid (h, w).

        Parameters
        ----------
        whitening : {"none", "channel", "full"}
            What is undone.
        position : bool
            Whether there are means at each position.
        relative : bool
            As of the class.
        """
        specs: dict[str, TensorSpec] = {}
        if whitening == "channel":
            specs["whitening"] = TensorSpec(("P",), above=0)
        elif whitening == "full":
            specs["whitening"] = TensorSpec(("P", "P"))
        if position:
            specs["position"] = TensorSpec(("h", "w"), least=1e-12 if relative else -1e9)
        return specs

    @staticmethod
    def whiten_from(
        second_moment: torch.Tensor, kind: Whitening, shrinkage: float, power: float = 1.0
    ) -> torch.Tensor | None:
        """Compute the whitening from the second moment of the errors.

        Parameters
        ----------
        second_moment : torch.Tensor of float64, (P, P)
            Mean of e e^T over healthy patches.
        kind : {"none", "channel", "full"}
            Whether to normalise nothing, the variances, or the full covariance.
        shrinkage : float
            In [0, 1]: how far the eigenvalues (for "full") or the variances (for "channel") are
            shrunk to their mean.
        power : float
            Errors are divided by their standard deviation to this power; 1 makes all channels
            count alike.
        """
        if kind == "none":
            return None
        if kind == "channel":
            variance = second_moment.diagonal()
            variance = (1 - shrinkage) * variance + shrinkage * variance.mean()
            return (variance.clamp_min(1e-12) ** (-power / 2)).float()
        values, vectors = torch.linalg.eigh(second_moment)
        values = (1 - shrinkage) * values + shrinkage * values.mean()
        return (vectors * values.clamp_min(1e-12) ** (-power / 2)).T.contiguous().float()

    def squared(self, error: torch.Tensor) -> torch.Tensor:
        """Return the mean squared whitened error, (B, P, h, w) -> (B, h, w)."""
        if self.whitening is None:
            return error.square().mean(dim=1)
        if self.whitening.ndim == 1:
            return (error * self.whitening[:, None, None]).square().mean(dim=1)
        return F.conv2d(error, self.whitening[:, :, None, None]).square().mean(dim=1)

    def expected(self, shape: tuple[int, int]) -> torch.Tensor | None:
        """Return the healthy mean resized to a grid, (h, w), or None."""
        if self.position is None or tuple(self.position.shape) == tuple(shape):
            return self.position
        return F.interpolate(
            self.position[None, None], size=shape, mode="bilinear", align_corners=False
        )[0, 0]

    def compare(self, scores: torch.Tensor) -> torch.Tensor:
        """Compare scores with the healthy mean at their position, (B, h, w) -> (B, h, w)."""
        expected = self.expected((int(scores.shape[-2]), int(scores.shape[-1])))
        if expected is None:
            return scores
        return scores / expected if self.relative else scores - expected

    def to(self, device: torch.device) -> ErrorScale:
        """Return the same scale on another device."""
        return ErrorScale(
            None if self.whitening is None else self.whitening.to(device),
            None if self.position is None else self.position.to(device),
            self.relative,
        )


def measure_errors(
    parts: list[tuple[torch.Tensor, torch.Tensor]],
    errors: Callable[[torch.Tensor], torch.Tensor],
    scores: Callable[[torch.Tensor, ErrorScale], torch.Tensor],
    scale: ErrorScale,
    *,
    whitening: Whitening,
    shrinkage: float,
    power: float,
    position_smoothing: float | None,
    device: torch.device,
) -> Generator[Progress, None, ErrorScale]:
    """Fit the error scale on healthy slices.

    Parameters
    ----------
    parts : list of (torch.Tensor (B, P, h, w), torch.Tensor of bool (B, h, w))
        Embedded healthy slices and their tissue.
    errors : callable
        Maps embeddings to errors, (B, P, h, w).
    scores : callable
        Maps embeddings and scale to scores, before the comparison by position, (B, h, w).
    scale : ErrorScale
        An empty scale, with `relative` set.
    whitening, shrinkage, power
        See `ErrorScale.whiten_from`.
    position_smoothing : float or None
        See `position_mean`; None skips the position map.
    device : torch.device
        Device to compute on.

    Yields
    ------
    Progress
        After every batch.

    Returns
    -------
    ErrorScale
    """
    step = "Measuring healthy errors"
    if whitening != "none":
        moment: torch.Tensor | None = None
        patches = 0
        for number, (x, mask) in enumerate(parts):
            with torch.inference_mode():
                rows = errors(x.to(device, torch.float32)).permute(0, 2, 3, 1)[mask.to(device)]
                part = (rows.T @ rows).double().cpu()
            moment = part if moment is None else moment + part
            patches += len(rows)
            yield Progress(step, number + 1, len(parts), "variances")
        assert moment is not None
        scale.whitening = ErrorScale.whiten_from(moment / patches, whitening, shrinkage, power)
        scale = scale.to(device)
    if position_smoothing is not None:
        # The map has the most common grid size; slices of other sizes are resized to it.
        shapes = [tuple(x.shape[-2:]) for x, _ in parts for _ in range(len(x))]
        shape = max(sorted(set(shapes)), key=shapes.count)
        sums = torch.zeros(2, *shape, dtype=torch.float64)
        for number, (x, mask) in enumerate(parts):
            with torch.inference_mode():
                inside = mask.double()
                values = scores(x.to(device, torch.float32), scale).cpu().double() * inside
                sums += _resized(torch.stack([values.sum(0), inside.sum(0)]), shape)
            yield Progress(step, number + 1, len(parts), "positions")
        scale.position = position_mean(sums[0], sums[1], position_smoothing).to(device)
    return scale


def _resized(sums: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Resize sums over a grid, preserving their total, (2, h, w)."""
    if tuple(sums.shape[-2:]) == tuple(shape):
        return sums
    factor = sums.shape[-2] * sums.shape[-1] / (shape[0] * shape[1])
    resized = F.interpolate(sums[None], size=shape, mode="bilinear", align_corners=False)[0]
    return resized * factor
