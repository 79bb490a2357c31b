"""Colours of embeddings: principal components as red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["ColourAxes"]

# Shares of the typical patches below the darkest and the brightest colour.
_DARKEST, _BRIGHTEST = 0.02, 0.98


@dataclass(frozen=True)
class ColourAxes:
    """Three axes in the space of embeddings, one for each primary colour.

    They are fitted on typical healthy patches of a model, so that a colour means the same in all
    scans of the model.

    Attributes
    ----------
    axes : torch.Tensor of float32, (3, C)
        Rows are zero where the patches have fewer dimensions.
    low, high : torch.Tensor of float32, (3,)
        Values of the darkest and the brightest colour.
    """

    axes: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def fit(cls, patches: torch.Tensor) -> ColourAxes:
        """Fit the axes on patches (N, C): their first three principal components."""
        import torch

        patches = patches.float()
        centred = patches - patches.mean(0)
        _, _, rows = torch.linalg.svd(centred, full_matrices=False)
        axes = torch.zeros(3, patches.shape[1])
        found = rows[:3]
        # The sign of an axis is arbitrary and may differ between machines.
        signs = found.gather(1, found.abs().argmax(1, keepdim=True)).sign()
        axes[: len(found)] = found * signs
        values = patches @ axes.T
        low, high = torch.quantile(values, torch.tensor([_DARKEST, _BRIGHTEST]), dim=0)
        return cls(axes, low, high)

    def apply(self, features: torch.Tensor) -> NDArray[np.uint8]:
        """Colour embeddings, (B, C, h, w) -> (B, h, w, 3)."""
        values = features.float().permute(0, 2, 3, 1) @ self.axes.T
        span = (self.high - self.low).clamp_min(1e-9)
        colours = ((values - self.low) / span).clamp(0, 1) * 255
        return np.asarray(colours.round().byte().numpy())
