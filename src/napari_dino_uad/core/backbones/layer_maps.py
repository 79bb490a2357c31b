"""The maps of a backbone's layers as one flat row, and their concatenation on the patch grid.

Deep layers are coarse, so most values of an embedding are interpolated. What is moved, kept and
cached are therefore the maps before interpolation: for the default backbone a fifth of the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.table import BackboneSpec

__all__ = ["LayerLayout"]


@dataclass(frozen=True)
class LayerLayout:
    """The layout of layer maps in a flat row of values.

    Each map is (rows, columns, channels), with the channels of a patch contiguous.

    Attributes
    ----------
    channels : tuple of int
        Channels of each layer.
    shapes : tuple of (int, int)
        Rows and columns of each layer's map; none is finer than the patch grid.
    grid : (int, int)
        Rows and columns of the patch grid, (h, w).
    """

    channels: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]
    grid: tuple[int, int]

    @classmethod
    def of(cls, spec: BackboneSpec, grid: tuple[int, int]) -> LayerLayout:
        """Return the layout of the layers read from a backbone.

        Parameters
        ----------
        spec : BackboneSpec
            Row of the table.
        grid : (int, int)
            Rows and columns of the patch grid.
        """
        strides = [max(spec.stride, spec.strides[layer - 1]) for layer in spec.layers]
        shapes = tuple(
            (grid[0] * spec.stride // stride, grid[1] * spec.stride // stride) for stride in strides
        )
        return cls(spec.levels, shapes, grid)

    @property
    def size(self) -> int:
        """Values per slice, V."""
        return sum(
            rows * columns * channels
            for channels, (rows, columns) in zip(self.channels, self.shapes, strict=True)
        )

    def join(
        self, maps: torch.Tensor, rows: slice = slice(None), columns: slice = slice(None)
    ) -> torch.Tensor:
        """Resample the maps to the patch grid, bilinearly, and concatenate their channels.

        Parameters
        ----------
        maps : torch.Tensor, (B, V)
            Maps of slices.
        rows, columns : slice
            The part of the grid to return.

        Returns
        -------
        torch.Tensor of float32, (B, C, h, w)
            The embeddings of that part; the channels of a patch are contiguous.
        """
        import torch
        import torch.nn.functional as F

        down, across = (
            len(range(size)[part]) for size, part in zip(self.grid, (rows, columns), strict=True)
        )
        out = maps.new_empty((len(maps), down, across, sum(self.channels)), dtype=torch.float32)
        begin = first = 0
        for channels, shape in zip(self.channels, self.shapes, strict=True):
            end = begin + channels * shape[0] * shape[1]
            own = maps[:, begin:end].unflatten(1, (*shape, channels))
            if shape != self.grid:
                coarse = own.float().permute(0, 3, 1, 2)
                fine = F.interpolate(coarse, self.grid, mode="bilinear", align_corners=False)
                own = fine.permute(0, 2, 3, 1)
            out[..., first : first + channels] = own[:, rows, columns]
            begin, first = end, first + channels
        return out.permute(0, 3, 1, 2)
