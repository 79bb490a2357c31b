"""Initial components of a mixture, by k-means in the plane or on the sphere."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Clustering", "kmeans"]

# Candidates per component for the k-means++ start: enough to find small clusters.
_CANDIDATES = 20

# Rounds in which the start draws its centres, each from the distances to the earlier ones.
_ROUNDS = 25

_ITERATIONS = 15

# Patches whose distances to all centres are in memory together.
_CHUNK = 8192


@dataclass(frozen=True)
class Clustering:
    """A hard clustering.

    Attributes
    ----------
    centres : torch.Tensor, (K, C)
        Cluster centres, largest cluster first.
    labels : torch.Tensor of int64, (N,)
        The cluster of each patch.
    """

    centres: torch.Tensor
    labels: torch.Tensor


def kmeans(
    x: torch.Tensor, count: int, generator: torch.Generator, spherical: bool
) -> Generator[tuple[int, int], None, Clustering]:
    """Cluster patches by k-means.

    The centres start as in k-means++, but are drawn in rounds of several (B. Bahmani et al.,
    "Scalable k-means++", VLDB 2012), so that distances are matrix products. A cluster that loses
    all its patches restarts at the patch farthest from its centre.

    Parameters
    ----------
    x : torch.Tensor, (N, C)
        Patches; of unit length if spherical.
    count : int
        Number of clusters, K.
    generator : torch.Generator
        Source of randomness, on the CPU.
    spherical : bool
        Maximise the cosine with centres of unit length instead of minimising the distance.

    Yields
    ------
    tuple of (int, int)
        Number of steps done, and in total.

    Returns
    -------
    Clustering
    """
    parts = list(x.split(_CHUNK))
    total = _ROUNDS + (_ITERATIONS + 1) * len(parts)
    candidates = x[torch.randperm(len(x), generator=generator)[: _CANDIDATES * count].to(x.device)]
    distances = torch.ones(len(candidates), device=x.device)
    found: list[torch.Tensor] = []
    for round_ in range(_ROUNDS):
        wanted = (round_ + 1) * count // _ROUNDS - round_ * count // _ROUNDS
        if wanted:
            # The floor keeps the draw valid if all patches are identical.
            chances = distances.cpu().double().clamp_min(1e-12)
            drawn = torch.multinomial(chances, wanted, generator=generator)
            new = candidates[drawn.to(x.device)]
            nearest = _nearest(candidates, new)[1]
            distances = torch.minimum(distances, nearest) if found else nearest
            found.append(new)
        yield round_ + 1, total
    centres = torch.cat(found)
    done = _ROUNDS
    for iteration in range(_ITERATIONS + 1):
        found_labels, found_distances = [], []
        # Part by part, so that a cancel need not wait for a whole pass.
        for part in parts:
            label, distance = _nearest(part, centres)
            found_labels.append(label)
            found_distances.append(distance)
            done += 1
            yield done, total
        labels, far = torch.cat(found_labels), torch.cat(found_distances)
        points = torch.bincount(labels, minlength=count)
        if iteration == _ITERATIONS:
            break
        sums = torch.zeros_like(centres).index_add_(0, labels, x)
        centres = F.normalize(sums, dim=1) if spherical else sums / points.clamp_min(1)[:, None]
        empty = torch.nonzero(points == 0)[:, 0]
        if len(empty):
            centres[empty] = x[far.topk(len(empty)).indices]
    order = torch.argsort(points, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count, device=x.device)
    return Clustering(centres[order], rank[labels])


def _nearest(x: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre of each patch and the squared distance to it, each (N,).

    On the sphere, the nearest centre by distance is also the nearest by cosine.
    """
    offset = -0.5 * centres.square().sum(1)
    best, label = torch.addmm(offset, x, centres.T).max(1)
    return label, (x.square().sum(1) - 2 * best).clamp_min_(0)
