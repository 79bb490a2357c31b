"""The four scores of the mixture, which measure how abnormal a patch is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from napari_dino_uad.core.normative.mixture.components import Components
from napari_dino_uad.core.normative.mixture.settings import Score
from napari_dino_uad.core.precision import native_bfloat16

__all__ = ["Directions", "nearest"]

# Patches scored in one go; bounds the size of N x K products.
_CHUNK = 16_384


@dataclass(frozen=True)
class Directions:
    """Means of unit length, for the cosine score.

    Attributes
    ----------
    exact : torch.Tensor, (K, C)
    coarse : torch.Tensor of bfloat16, (K, C), or None
        The same means, used for the search if the hardware supports bfloat16: twice as fast. The
        cosine with the mean found is then computed exactly, so the score is wrong only if two
        means are closer to each other than 1e-3 in cosine, and by no more than that.
    """

    exact: torch.Tensor
    coarse: torch.Tensor | None

    @classmethod
    def of(cls, means: torch.Tensor) -> Directions:
        """Normalise means (K, C)."""
        exact = F.normalize(means, dim=1)
        return cls(exact, exact.bfloat16() if native_bfloat16(means.device) else None)

    def search(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return 1 - the largest cosine of each patch with a mean, and the mean's index, (N,)."""
        if self.coarse is None:
            cosine, index = (x @ self.exact.T).max(1)
        else:
            # `max`, because `argmax` is four times as slow.
            index = (x.bfloat16() @ self.coarse.T).max(1).indices
            cosine = torch.linalg.vecdot(x, self.exact.index_select(0, index))
        return 1 - cosine / torch.linalg.vector_norm(x, dim=1).clamp_min(1e-12), index


def nearest(
    x: torch.Tensor,
    score: Score,
    components: Components,
    log_weights: torch.Tensor,
    origin: torch.Tensor,
    directions: Directions,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score patches, and return the component that determines each score.

    Parameters
    ----------
    x : torch.Tensor, (N, C)
        Patches in the mixture's space.
    score : {"cosine", "euclidean", "mahalanobis", "likelihood"}
        1 - max_k cos(x, mu_k); the distance to the nearest mean; that distance in units of the
        component's spread; or -log sum_k pi_k p(x | k).
    components : Components
        Means relative to `origin`.
    log_weights : torch.Tensor, (K,)
        log pi_k.
    origin : torch.Tensor, (C,)
    directions : Directions
        Directions of the means.

    Returns
    -------
    tuple of (torch.Tensor of float32 (N,), torch.Tensor of int64 (N,))
        Scores, higher is more abnormal, and the nearest component under this score (for the
        likelihood, the component with the highest responsibility).
    """
    scores, indices = [], []
    for part in x.split(_CHUNK):
        if score == "cosine":
            value, index = directions.search(part)
        else:
            value, index = _by_density(part - origin, score, components, log_weights)
        scores.append(value)
        indices.append(index)
    return torch.cat(scores), torch.cat(indices)


def _by_density(
    x: torch.Tensor, score: Score, components: Components, log_weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score centred patches by any score except the cosine."""
    if score == "likelihood":
        joint = components.log_density(x, log_weights)
        return -torch.logsumexp(joint, dim=1), joint.argmax(1)
    if score == "mahalanobis":
        squared, index = components.squared_mahalanobis(x).min(1)
    else:
        means = components.means
        half, index = torch.addmm(-0.5 * means.square().sum(1), x, means.T).max(1)
        squared = x.square().sum(1) - 2 * half
    return squared.clamp_min(0).sqrt(), index
