"""A torch module that maps network input to the maps of the layers; engines run it."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.table import BackboneSpec

__all__ = ["PatchEmbedder"]


# Families with a trained embedding of positions, of one input size.
_WITH_POSITION = ("dino", "dinov2")


class PatchEmbedder(torch.nn.Module):
    """The network as one module: images in, maps of the layers out.

    It can be compiled or converted once `prepare` has set the input size.

    Parameters
    ----------
    spec : BackboneSpec
        Row of the table.
    network : torch.nn.Module
        The timm network.

    Notes
    -----
    The output for each family:

    - dino, dinov2, dinov3: the patch tokens of each layer after the final norm, without class and
      register tokens, like the official ``get_intermediate_layers(x, n=[...])``;
    - convnext: the map of each layer, the last one after the final norm, like the official
      ``get_intermediate_layers``;
    - cnn: the map of each layer.
    """

    def __init__(self, spec: BackboneSpec, network: Any) -> None:
        super().__init__()
        self.spec = spec
        self.network = network
        # Tensors that change with the input size or the precision, as they are in the weights.
        self._native: dict[str, torch.Tensor] = {}
        if spec.family in _WITH_POSITION:
            self._native["pos_embed"] = network.pos_embed.detach().clone()
        elif spec.family == "dinov3":
            self._native["rope.periods"] = network.rope.periods.detach().clone()
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of the layers read.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            Normalised input of the size last passed to `prepare`.

        Returns
        -------
        torch.Tensor of float32, (B, V)
            Laid out as `LayerLayout`, whose `join` turns them into embeddings. Layers finer than
            the patch grid are averaged over its patches.
        """
        rows = []
        for one, layer in zip(self._maps(images), self.spec.layers, strict=True):
            own = self.spec.strides[layer - 1]
            if own < self.spec.stride:
                one = F.avg_pool2d(one, self.spec.stride // own)
            rows.append(one.permute(0, 2, 3, 1).flatten(1))
        return torch.cat(rows, dim=1).float()

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the map of each layer, in ascending order."""
        if self.spec.family == "cnn":
            return list(self.network(images))
        options = {
            "indices": [layer - 1 for layer in self.spec.layers],
            "stop_early": True,
            "intermediates_only": True,
        }
        if self.spec.family == "convnext":
            maps = list(self.network.forward_intermediates(images, **options))
            if self.spec.layers[-1] == len(self.spec.channels):
                # timm applies the norm only after pooling, where it gives a class token.
                maps[-1] = self.network.head.norm(maps[-1])
            return maps
        tokens = self.network.forward_intermediates(images, norm=True, output_fmt="NLC", **options)
        height = images.shape[-2] // self.spec.stride
        return [one.transpose(1, 2).unflatten(2, (height, -1)) for one in tokens]

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the tensors that embeddings depend on, by name, for the native input size."""
        return {**self.network.state_dict(), **self._native}

    def prepare(self, height: int, width: int) -> None:
        """Prepare the network for an input size in pixels."""
        if self.spec.family in _WITH_POSITION:
            self._prepare_position(height, width)
        elif self.spec.family == "dinov3":
            # timm recomputes them when the network is cast to half precision.
            self.network.rope.periods.copy_(self._native["rope.periods"])

    def _prepare_position(self, height: int, width: int) -> None:
        """Resample the position embedding of DINO and DINOv2 like the official code.

        timm resamples differently, which changes the embeddings at every size but the native one.
        """
        patches = self.network.patch_embed
        grid = (height // self.spec.stride, width // self.spec.stride)
        if patches.grid_size == grid:
            return
        position = self.network.pos_embed
        resampled = _resample_position(
            self._native["pos_embed"], grid, with_registers=self.network.num_reg_tokens > 0
        )
        self.network.pos_embed = torch.nn.Parameter(
            resampled.to(position.device, position.dtype), requires_grad=False
        )
        patches.grid_size = grid
        patches.num_patches = grid[0] * grid[1]
        patches.img_size = (height, width)


def _resample_position(
    native: torch.Tensor, grid: tuple[int, int], with_registers: bool
) -> torch.Tensor:
    """Resample a position embedding from its square grid to another.

    The official models were trained in one of two ways: models without registers resample
    bicubically, with 0.1 added to the grid size before the scale is computed; models with
    registers resample with antialiasing to the exact size.

    Parameters
    ----------
    native : torch.Tensor, (1, prefix + side * side, C)
        The trained embedding; the prefix belongs to the class token, if any.
    grid : (int, int)
        Patches down and across.
    with_registers : bool
        Whether the model has register tokens.

    Returns
    -------
    torch.Tensor, (1, prefix + h * w, C)
    """
    side = isqrt(native.shape[1])
    if grid == (side, side):
        return native
    prefix = native.shape[1] - side * side
    square = native[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    if with_registers:
        resampled = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
    else:
        scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        resampled = F.interpolate(square, scale_factor=scale, mode="bicubic", antialias=False)
    return torch.cat([native[:, :prefix], resampled.flatten(2).transpose(1, 2)], dim=1)
