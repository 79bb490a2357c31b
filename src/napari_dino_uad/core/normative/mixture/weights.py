"""Stick-breaking weights of a truncated Dirichlet process, and its concentration."""

from __future__ import annotations

import torch

__all__ = ["log_stick_weights", "update_concentration"]


def _padded(mass: torch.Tensor, truncation: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R padded with the dead components, and T_k = sum_{j>k} R_j, (K,) of float64."""
    full = torch.zeros(truncation, dtype=torch.float64)
    full[: len(mass)] = mass.cpu()
    tail = full.flip(0).cumsum(0).flip(0) - full
    return full, tail.clamp_min(0)


def log_stick_weights(
    mass: torch.Tensor, concentration: float, patches: int, truncation: int
) -> torch.Tensor:
    """Return log pi_k with pi_k = v_k prod_{j<k} (1 - v_j).

    v_k = R_k / (R_k + (alpha - 1) / N + T_k), the mode of its Beta posterior; v_K = 1.

    Parameters
    ----------
    mass : torch.Tensor, (L,)
        R_k of the living components.
    concentration : float
        alpha.
    patches : int
        N, patches in a batch.
    truncation : int
        K; the K - L dead components are at the end, with R = 0.

    Returns
    -------
    torch.Tensor of the dtype and device of `mass`, (L,)
    """
    full, tail = _padded(mass, truncation)
    tiny = torch.finfo(torch.float64).tiny
    sticks = full / (full + (concentration - 1) / patches + tail).clamp_min(tiny)
    # If alpha < 1, the mode can reach 1 before the last stick; leave some for the rest.
    sticks = sticks.clamp(tiny, 1 - 1e-12)
    sticks[-1] = 1.0
    out = sticks.log()
    out[1:] += torch.log1p(-sticks[:-1]).cumsum(0)
    return out[: len(mass)].to(mass)


def update_concentration(
    mass: torch.Tensor, concentration: float, patches: int, truncation: int
) -> float:
    """Return alpha = (K-1) / sum_{k<K} [psi(N (R_k+T_k) + alpha + 1) - psi(N T_k + alpha)].

    The parameters are those of `log_stick_weights`; `concentration` is the current alpha.
    """
    full, tail = _padded(mass, truncation)
    head = patches * (full + tail)[:-1]
    after = patches * tail[:-1]
    gaps = torch.digamma(head + concentration + 1) - torch.digamma(after + concentration)
    return float((truncation - 1) / gaps.sum())
