"""One torch module from the network's input to the joined patch map: what an engine runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones import BackboneSpec

__all__ = ["PatchEmbedder"]


class PatchEmbedder(torch.nn.Module):
    """Images in, patch embeddings out.

    It can be compiled or converted as it is, once `prepare` has set the size of the input.

    Parameters
    ----------
    spec : BackboneSpec
        Row of the table.
    network : torch.nn.Module
        The timm network.
    """

    def __init__(self, spec: BackboneSpec, network: torch.nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.network: Any = network
        self._native_position: torch.Tensor | None = None
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute patch embeddings.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            Normalised input of the size last given to `prepare`.

        Returns
        -------
        torch.Tensor of float32, (B, C, H / stride, W / stride)
            For a transformer the patch tokens after the final norm, without class and register
            tokens (DINOv2: what `get_intermediate_layers(x)[0]` gives); for a convolutional
            network its levels joined, the coarser ones brought to the finest grid bilinearly.
        """
        if self.spec.family == "vit":
            tokens = self.network.forward_features(images)[:, self.network.num_prefix_tokens :]
            height = images.shape[-2] // self.spec.stride
            return tokens.transpose(1, 2).unflatten(2, (height, -1)).float()
        maps = self.network(images)
        size = maps[0].shape[-2:]
        coarser = [
            F.interpolate(level, size=size, mode="bilinear", align_corners=False)
            for level in maps[1:]
        ]
        return torch.cat([maps[0], *coarser], dim=1).float()

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the network's weights by name, as they are for every size of the input."""
        state = dict(self.network.state_dict())
        if self._native_position is not None:
            # What `prepare` put in its place follows the input size, not the weights.
            state["pos_embed"] = self._native_position
        return state

    def prepare(self, height: int, width: int) -> None:
        """Set the network up for a size of the input, in pixels.

        The position embedding of DINOv2 is resampled the official way: timm's own resampling
        differs (antialiased, without the offset of 0.1) and gives other embeddings at every size
        but the native one.
        """
        if not self.spec.native_size:
            return
        network = self.network
        grid = (height // self.spec.stride, width // self.spec.stride)
        if network.patch_embed.grid_size == grid:
            return
        if self._native_position is None:
            self._native_position = network.pos_embed.detach().clone()
        native = self._native_position
        side = self.spec.native_size // self.spec.stride
        prefix = native.shape[1] - side * side
        square = native[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
        with_registers = "reg4" in self.spec.timm_name
        if grid == (side, side):
            resampled = square
        elif with_registers:
            resampled = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
        else:
            scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
            resampled = F.interpolate(square, scale_factor=scale, mode="bicubic", antialias=False)
        position = torch.cat([native[:, :prefix], resampled.flatten(2).transpose(1, 2)], dim=1)
        network.pos_embed = torch.nn.Parameter(
            position.to(network.pos_embed.device), requires_grad=False
        )
        network.patch_embed.grid_size = grid
        network.patch_embed.num_patches = grid[0] * grid[1]
        network.patch_embed.img_size = (height, width)
