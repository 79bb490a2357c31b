"""The masked convolutional network that predicts an embedding from the others of its slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

__all__ = ["ARNetwork", "LiveConv", "Mode", "live_taps", "position_features", "seen_offsets"]

Mode = Literal["causal", "bidirectional", "standard"]
MODES: tuple[Mode, ...] = ("causal", "bidirectional", "standard")


def live_taps(mode: Mode, kernel_size: int, first: bool, hole: int = 0) -> NDArray[np.bool_]:
    """Say which taps of a convolution kernel may be non-zero.

    Parameters
    ----------
    mode : {"causal", "bidirectional", "standard"}
        "causal" sees what comes before in raster order; "bidirectional" sees all but a square
        around the centre; "standard" sees all.
    kernel_size : int
        Odd edge of the kernel.
    first : bool
        Whether this is the network's first layer: it hides the centre (mask A), later causal
        layers show it (mask B), later layers of the other modes hide nothing.
    hole : int
        Half-width, in taps, of the square that the first bidirectional layer hides; 0 is the
        centre alone.

    Returns
    -------
    ndarray of bool, (kernel_size, kernel_size)
    """
    taps = np.ones((kernel_size, kernel_size), dtype=bool)
    middle = kernel_size // 2
    if mode == "causal":
        taps[middle, middle + (0 if first else 1) :] = False
        taps[middle + 1 :] = False
    elif mode == "bidirectional" and first:
        hidden = slice(middle - hole, middle + hole + 1)
        taps[hidden, hidden] = False
    return taps


def seen_offsets(layers: Sequence[tuple[NDArray[np.bool_], int]]) -> NDArray[np.bool_]:
    """Compose the taps of successive layers into what an output position sees.

    Parameters
    ----------
    layers : sequence of (ndarray of bool (k, k), int)
        Live taps and dilation of each layer.

    Returns
    -------
    ndarray of bool, (2 R + 1, 2 R + 1)
        Entry (R + i, R + j) tells whether the output at (r, c) depends on the input at
        (r + i, c + j); R is the reach of the whole network.
    """
    from scipy.ndimage import binary_dilation

    reach = sum((len(taps) // 2) * dilation for taps, dilation in layers)
    seen = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=bool)
    seen[reach, reach] = True
    for taps, dilation in layers:
        edge = (len(taps) - 1) * dilation + 1
        spread = np.zeros((edge, edge), dtype=bool)
        spread[::dilation, ::dilation] = taps
        seen = binary_dilation(seen, structure=spread) if spread.any() else np.zeros_like(seen)
    return seen


def position_features(
    shape: tuple[int, int], frequencies: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Describe each grid position: its coordinates, and cosines and sines of them.

    Parameters
    ----------
    shape : tuple of int
        (h, w) of the grid.
    frequencies : int
        Number of frequencies; 1 gives half a period over the grid, each further one doubles.
    device : torch.device
        Where to put it.

    Returns
    -------
    torch.Tensor of float32, (1, 2 + 4 * frequencies, h, w)
        Coordinates run from -1 to 1 over the grid, whatever its size.
    """
    axes = [
        (2 * torch.arange(edge, dtype=torch.float32, device=device) + 1) / edge - 1
        for edge in shape
    ]
    rows, cols = torch.meshgrid(*axes, indexing="ij")
    maps = [rows, cols]
    for power in range(frequencies):
        scale = math.pi / 2 * 2**power
        maps += [wave(scale * axis) for axis in (rows, cols) for wave in (torch.sin, torch.cos)]
    return torch.stack(maps)[None]


class LiveConv(nn.Module):
    """A dilated convolution with "same" size that computes only its live taps.

    A causal kernel is a block of full rows above the centre and a run of taps left of it. Each
    is a small dense convolution over an input padded on the sides it looks to, so the dead half
    of the kernel costs nothing. A kernel with all or nearly all taps alive stays whole.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    taps : ndarray of bool, (k, k)
        Live taps.
    dilation : int
        Distance between taps.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        taps: NDArray[np.bool_],
        dilation: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.kernel_size = len(taps)
        self.dilation = dilation
        bound = 1 / math.sqrt(inputs * max(1, int(taps.sum())))

        def initial(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        middle = self.kernel_size // 2
        self.run = int(taps[middle].sum())
        below = bool(taps[middle + 1 :].any())
        right = bool(taps[middle, middle + 1 :].any())
        self.causal = not (below or right) and self.kernel_size > 1
        if self.causal:
            self.above = initial(outputs, inputs, middle, self.kernel_size)
            self.beside = initial(outputs, inputs, 1, self.run)
        else:
            self.whole = initial(outputs, inputs, self.kernel_size, self.kernel_size)
            mask = torch.from_numpy(taps.astype(np.float32))
            # Not saved: it follows from the settings.
            self.register_buffer("mask", None if taps.all() else mask, persistent=False)
            if not taps.all():
                self.whole.data *= mask
        self.bias = initial(outputs)

    def kernel(self) -> torch.Tensor:
        """Return the kernel with its dead taps as zeros, (outputs, inputs, k, k)."""
        if not self.causal:
            mask = self.mask
            return self.whole * mask if isinstance(mask, torch.Tensor) else self.whole
        outputs, inputs, middle, edge = self.above.shape
        full = self.above.new_zeros(outputs, inputs, edge, edge)
        full[:, :, :middle] = self.above
        full[:, :, middle : middle + 1, : self.run] = self.beside
        return full

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, (B, inputs, h, w) -> (B, outputs, h, w)."""
        reach = self.kernel_size // 2 * self.dilation
        if not self.causal:
            return F.conv2d(x, self.kernel(), self.bias, padding=reach, dilation=self.dilation)
        height, width = x.shape[-2:]
        padded = F.pad(x, (reach, reach, reach, 0))
        # The last full row lies one dilation above the centre.
        rows = padded[..., : height + reach - self.dilation, :]
        out = F.conv2d(rows, self.above, self.bias, dilation=self.dilation)
        if self.run:
            last = (self.run - 1) * self.dilation
            line = padded[..., reach:, : width + last]
            out = out + F.conv2d(line, self.beside, dilation=self.dilation)
        return out


class ARNetwork(nn.Module):
    """Convolutions with ReLU between, of which the first hides what is to be predicted.

    Parameters
    ----------
    channels : int
        Channels of the embeddings, P.
    outputs : int
        Channels to predict: P, or 2 P with a log variance for each.
    mode : {"causal", "bidirectional", "standard"}
        What a position may see.
    hidden : int
        Channels between layers.
    kernels, dilations : sequence of int
        Of each layer.
    hole : int
        See `live_taps`.
    position : int
        Frequencies of the position features (see `position_features`); 0 gives none.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        mode: Mode,
        hidden: int,
        kernels: Sequence[int],
        dilations: Sequence[int],
        hole: int,
        position: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = [channels, *[hidden] * (len(kernels) - 1), outputs]
        self.frequencies = position
        self.layers = nn.ModuleList(
            LiveConv(
                widths[index],
                widths[index + 1],
                live_taps(mode, kernel, index == 0, hole),
                dilation,
                generator,
            )
            for index, (kernel, dilation) in enumerate(zip(kernels, dilations, strict=True))
        )
        if position:
            bound = 1 / math.sqrt(2 + 4 * position)
            weights = torch.empty(hidden, 2 + 4 * position, 1, 1)
            self.place = nn.Parameter(weights.uniform_(-bound, bound, generator=generator))

    def forward(
        self,
        x: torch.Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Predict each embedding.

        Parameters
        ----------
        x : torch.Tensor, (B, P, h, w)
            Embeddings.
        dropout : float
            Share of hidden activations set to 0, for training.
        generator : torch.Generator, optional
            Source of the dropout, on the device of `x`.

        Returns
        -------
        torch.Tensor, (B, outputs, h, w)
        """
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index == 0 and self.frequencies:
                shape = (int(x.shape[-2]), int(x.shape[-1]))
                x = x + F.conv2d(position_features(shape, self.frequencies, x.device), self.place)
            if index < last:
                x = F.relu(x)
                if dropout > 0:
                    kept = torch.rand(x.shape, generator=generator, device=x.device) >= dropout
                    x = x * kept / (1 - dropout)
        return x
