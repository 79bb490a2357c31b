"""The masked convolutional network that predicts each embedding from others in its slice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from napari_dino_uad.core.storage.tensor_schema import TensorSpec

__all__ = ["ARNetwork", "LiveConv", "Mode", "live_taps", "position_features", "seen_offsets"]

Mode = Literal["causal", "bidirectional", "standard"]
MODES: tuple[Mode, ...] = ("causal", "bidirectional", "standard")

# Fitted weights are about 1; products of a few layers of larger ones than this overflow.
_LARGEST_WEIGHT = 1e4


def live_taps(mode: Mode, kernel_size: int, first: bool, hole: int = 0) -> NDArray[np.bool_]:
    """Return which taps of a convolution kernel may be non-zero.

    Parameters
    ----------
    mode : {"causal", "bidirectional", "standard"}
        "causal" sees what comes before in raster order; "bidirectional" sees all but a square
        around the centre; "standard" sees everything.
    kernel_size : int
        Odd edge of the kernel.
    first : bool
        Whether this is the first layer. It hides the centre (mask A). Later causal layers show it
        (mask B); later layers of the other modes hide nothing.
    hole : int
        Half-width, in taps, of the square hidden by the first bidirectional layer; 0 hides only
        the centre.

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
    """Compose the taps of successive layers into the receptive field of an output position.

    Parameters
    ----------
    layers : sequence of (ndarray of bool (k, k), int)
        Live taps and dilation of each layer.

    Returns
    -------
    ndarray of bool, (2 R + 1, 2 R + 1)
        Entry (R + i, R + j) is True if the output at (r, c) depends on the input at
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
    """Return features of each grid position: its coordinates, and their sines and cosines.

    Parameters
    ----------
    shape : tuple of int
        (h, w) of the grid.
    frequencies : int
        Number of frequencies; the first is half a period over the grid, each next one doubles.
    device : torch.device
        Device of the result.

    Returns
    -------
    torch.Tensor of float32, (1, 2 + 4 * frequencies, h, w)
        Coordinates run from -1 to 1 over a grid of any size.
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


class _TapProduct(torch.autograd.Function):
    """A dilated convolution over channels-last maps, as one matrix product per slice.

    The inputs of all taps are gathered side by side, (h * w, taps * inputs), and multiplied by the
    stacked weights. On a CPU, slices are processed one by one: the gathered inputs are then still
    in its cache when multiplied, and memory does not grow with the kernel. The gradient of the
    input is the same product over the opposite offsets.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        offsets: list[tuple[int, int]],
    ) -> torch.Tensor:
        """Convolve; see `_multiply`."""
        ctx.offsets = offsets
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias, offsets)

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor, None]:
        """Return the gradients of the maps, the weights and the bias."""
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        # Sum in float32, whatever the precision of the products.
        total = torch.zeros(
            weight.flatten(0, 1).shape,
            dtype=torch.promote_types(weight.dtype, torch.float32),
            device=weight.device,
        )
        for seen, part in zip(_gathered(x, ctx.offsets), _portions(grad), strict=True):
            total += seen.T @ part.flatten(0, 2)
        back = None
        if ctx.needs_input_grad[0]:
            opposite = [(-down, -right) for down, right in ctx.offsets]
            back = _multiply(grad, weight.transpose(1, 2), weight.new_zeros(x.shape[3]), opposite)
        return back, total.view_as(weight).to(weight.dtype), grad.sum((0, 1, 2)), None


def _portions(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Split a batch into the parts that are multiplied in one go."""
    return x.split(1 if x.device.type == "cpu" else len(x))


def _gathered(x: torch.Tensor, offsets: list[tuple[int, int]]) -> Iterator[torch.Tensor]:
    """Gather the inputs of all taps side by side, with zeros beyond the border.

    Every yield reuses the memory of the previous one.

    Parameters
    ----------
    x : torch.Tensor, (B, h, w, C)
    offsets : list of tuple of int
        Offset of each tap: rows down and columns to the right.

    Yields
    ------
    torch.Tensor, (b * h * w, taps * C)
    """
    _, height, width, channels = x.shape
    buffer: torch.Tensor | None = None
    for part in _portions(x):
        if buffer is None:
            buffer = x.new_zeros(len(part), height, width, len(offsets), channels)
        for tap, (down, right) in enumerate(offsets):
            rows, cols = _inside(down, height), _inside(right, width)
            from_rows, from_cols = _inside(-down, height), _inside(-right, width)
            buffer[:, rows, cols, tap] = part[:, from_rows, from_cols]
        yield buffer.view(-1, len(offsets) * channels)


def _inside(offset: int, edge: int) -> slice:
    """Return the positions whose neighbour at `offset` is still on the grid."""
    return slice(min(edge, max(0, -offset)), max(0, edge - max(0, offset)))


def _multiply(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, offsets: list[tuple[int, int]]
) -> torch.Tensor:
    """Convolve, (B, h, w, inputs) and (taps, inputs, outputs) -> (B, h, w, outputs)."""
    out = x.new_empty(*x.shape[:3], weight.shape[2])
    stacked = weight.flatten(0, 1)
    for seen, part in zip(_gathered(x, offsets), _portions(out), strict=True):
        torch.addmm(bias, seen, stacked, out=part.view(-1, weight.shape[2]))
    return out


class LiveConv(nn.Module):
    """A dilated convolution of "same" size that stores and computes only its live taps.

    The weights may have a higher precision than the maps; products use the precision of the maps.

    Parameters
    ----------
    inputs, outputs : int
        Number of channels.
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
        middle = len(taps) // 2
        self.kernel_size = len(taps)
        self.dilation = dilation
        self._live = [(int(row), int(col)) for row, col in np.argwhere(taps)]
        self._offsets = [
            ((row - middle) * dilation, (col - middle) * dilation) for row, col in self._live
        ]
        bound = 1 / math.sqrt(inputs * max(1, len(self._live)))

        def initial(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.weight = initial(len(self._live), inputs, outputs)
        self.bias = initial(outputs)

    def kernel(self) -> torch.Tensor:
        """Return the kernel with dead taps as zeros, (outputs, inputs, k, k)."""
        _, inputs, outputs = self.weight.shape
        full = self.weight.new_zeros(outputs, inputs, self.kernel_size, self.kernel_size)
        for (row, col), weight in zip(self._live, self.weight, strict=True):
            full[:, :, row, col] = weight.T
        return full

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, (B, h, w, inputs) -> (B, h, w, outputs)."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        out: torch.Tensor = _TapProduct.apply(x, weight, bias, self._offsets)
        return out


class ARNetwork(nn.Module):
    """Convolutions with ReLUs in between; the first one hides what is to be predicted.

    Parameters
    ----------
    channels : int
        Channels of the embeddings, P.
    outputs : int
        Channels to predict: P, or 2 P with a log variance for each channel.
    mode : {"causal", "bidirectional", "standard"}
        What a position may see; see `live_taps`.
    hidden : int
        Channels between layers.
    kernels, dilations : sequence of int
        Kernel size and dilation of each layer.
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
            weights = torch.empty(2 + 4 * position, hidden)
            self.place = nn.Parameter(weights.uniform_(-bound, bound, generator=generator))

    @staticmethod
    def described(
        channels: str,
        outputs: str,
        *,
        mode: Mode,
        hidden: int,
        kernels: Sequence[int],
        hole: int,
        position: int,
    ) -> dict[str, TensorSpec]:
        """Return what a file must hold of the network; parameters as of the class."""
        widths: list[int | str] = [channels, *[hidden] * (len(kernels) - 1), outputs]
        specs: dict[str, TensorSpec] = {}
        for index, kernel in enumerate(kernels):
            taps = int(live_taps(mode, kernel, index == 0, hole).sum())
            inputs, outs = widths[index : index + 2]
            shapes: dict[str, tuple[int | str, ...]] = {
                "weight": (taps, inputs, outs),
                "bias": (outs,),
            }
            specs |= {
                f"layers.{index}.{name}": TensorSpec(
                    shape, least=-_LARGEST_WEIGHT, most=_LARGEST_WEIGHT
                )
                for name, shape in shapes.items()
            }
        if position:
            specs["place"] = TensorSpec(
                (2 + 4 * position, hidden), least=-_LARGEST_WEIGHT, most=_LARGEST_WEIGHT
            )
        return specs

    def forward(
        self,
        x: torch.Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Predict each embedding, in the precision of `x`.

        Parameters
        ----------
        x : torch.Tensor, (B, P, h, w)
            Embeddings.
        dropout : float
            Share of hidden activations set to 0 during training.
        generator : torch.Generator, optional
            Source of randomness for the dropout, on the device of `x`.

        Returns
        -------
        torch.Tensor, (B, outputs, h, w)
        """
        # Channels last from here on: each patch is a row in every product.
        x = x.permute(0, 2, 3, 1).contiguous()
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index == 0 and self.frequencies:
                shape = (int(x.shape[1]), int(x.shape[2]))
                place = position_features(shape, self.frequencies, x.device)[0].permute(1, 2, 0)
                x = x + (place.to(self.place.dtype) @ self.place).to(x.dtype)
            if index < last:
                x = F.relu(x, inplace=True)
                if dropout > 0:
                    kept = torch.rand(x.shape, generator=generator, device=x.device) >= dropout
                    x = x * kept / (1 - dropout)
        return x.permute(0, 3, 1, 2)
