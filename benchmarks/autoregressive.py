"""Speed and size of the autoregressive model.

Times the default network, forwards and for a whole training step over 8 slices of 32 x 32 patches,
against the same network as plain masked convolutions in float32, which also compute dead taps: once
in float32 (same values), once in the default precision of this machine. Then times the scoring of
one slice of 1,024 patches, reports the size of the file, and with --train times a fit on random
embeddings of the size of the LGG benchmark.

    python benchmarks/autoregressive.py [--threads 2] [--train]

The last line is the main figure: the speed-up of a training step.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative.autoregressive.embedding import Embedding
from napari_dino_uad.core.normative.autoregressive.errors import ErrorScale
from napari_dino_uad.core.normative.autoregressive.model import Autoregressive, AutoregressiveConfig
from napari_dino_uad.core.normative.autoregressive.network import ARNetwork, LiveConv
from napari_dino_uad.core.precision import computing_dtype


def milliseconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the minimum time of each call, run in turn so that load affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: 1e3 * min(values[2:]) for name, values in times.items()}


def ready(config: AutoregressiveConfig, channels: int) -> Autoregressive:
    """Build a model with random weights, ready to score."""
    generator = torch.Generator().manual_seed(0)
    model = Autoregressive(config)
    patches = torch.randn(2000, channels, generator=generator)
    model._embedding = Embedding.fit(patches, config.standardise, config.components, config.power)
    kept = model._embedding.channels
    model._networks = model._build(kept)
    whitening: dict[str, Callable[[], torch.Tensor | None]] = {
        "none": lambda: None,
        "channel": lambda: torch.ones(kept),
        "full": lambda: torch.eye(kept),
    }
    model._scales = [
        ErrorScale(
            whitening[config.whitening]() if config.score == "mse" else None,
            torch.ones(32, 32) if config.position_map else None,
        )
        for _ in model._networks
    ]
    return model


class Masked(nn.Module):
    """The same causal network with full kernels and a mask."""

    def __init__(self, network: ARNetwork) -> None:
        super().__init__()
        layers = [cast(LiveConv, layer) for layer in network.layers]
        kernels = [layer.kernel().detach() for layer in layers]
        self.kernels = nn.ParameterList(kernels)
        self.masks = [(kernel != 0).float() for kernel in kernels]
        self.biases = nn.ParameterList(layer.bias.detach().clone() for layer in layers)
        self.dilations = [layer.dilation for layer in layers]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict, (B, P, h, w) -> (B, P, h, w)."""
        for index, (kernel, mask, bias, dilation) in enumerate(
            zip(self.kernels, self.masks, self.biases, self.dilations, strict=True)
        ):
            reach = len(mask[0, 0]) // 2 * dilation
            x = F.conv2d(x, kernel * mask, bias, padding=reach, dilation=dilation)
            x = F.relu(x) if index < len(self.masks) - 1 else x
        return x


def against_masked(config: AutoregressiveConfig, repeats: int) -> float:
    """Time the network against masked convolutions; return the speed-up of a training step."""
    model = ready(dataclasses.replace(config, position=0), config.components)
    assert model._networks is not None
    network = cast(ARNetwork, model._networks[0])
    masked = Masked(network)
    x = torch.randn(8, config.components, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        difference = float((masked(x) - network(x)).abs().max())
    assert difference < 1e-4, difference

    def forward(net: nn.Module, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
        @torch.inference_mode()
        def call() -> torch.Tensor:
            return net(x.to(dtype)).float()

        return call

    def step(net: nn.Module, dtype: torch.dtype) -> Callable[[], None]:
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.0)

        def call() -> None:
            optimiser.zero_grad(set_to_none=True)
            (x - net(x.to(dtype)).float()).square().mean().backward()
            optimiser.step()

        return call

    chosen = computing_dtype(config.precision, x.device)
    ways = {
        "masked float32": (masked, torch.float32),
        "live float32": (network, torch.float32),
        f"live {str(chosen).removeprefix('torch.')}": (network, chosen),
    }
    print(
        f"default network, {config.components} components, 8 slices of 32 x 32, largest "
        f"difference in float32 {difference:.0e}"
    )
    for what, make in (("forward", forward), ("training step", step)):
        times = milliseconds({name: make(*way) for name, way in ways.items()}, repeats)
        shown = ", ".join(f"{name} {took:.1f} ms" for name, took in times.items())
        first, last = next(iter(times.values())), list(times.values())[-1]
        print(f"{what}: {shown}; {first / last:.2f} times faster")
    return first / last


def scoring(name: str, config: AutoregressiveConfig, channels: int) -> None:
    """Time scoring and measure the size of the file."""
    model = ready(config, channels)
    x = torch.randn(1, channels, 32, 32)
    took = milliseconds({name: lambda: model.score(x)}, 100)[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ar.safetensors"
        save_file(model.tensors(), path)
        size = path.stat().st_size / 1e6
    print(
        f"{name}, {channels} channels: scoring one slice of 1,024 patches {took:.2f} ms, "
        f"file {size:.2f} MB"
    )


def training(config: AutoregressiveConfig, channels: int, slices: int) -> None:
    """Time a fit on random embeddings."""
    rng = np.random.default_rng(0)
    sets = []
    for count in (slices, slices // 4):
        features = FeatureSet(Context(neighbourhood=1, normalise="none"), (channels,))
        for start in range(0, count, 20):
            size = min(20, count - start)
            mask = np.zeros((size, 32, 32), dtype=bool)
            mask[:, 5:28, 7:26] = True
            values = rng.standard_normal((size, channels, 32, 32), dtype=np.float32)
            features.add(values.astype(np.float16), mask)
        sets.append(features)
    started = time.perf_counter()
    model = Autoregressive(config)
    for _ in model.fit(*sets):
        pass
    print(
        f"fit of {len(model.history_)} epochs on {slices} slices of 32 x 32 x {channels}: "
        f"{time.perf_counter() - started:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--train", action="store_true", help="time a fit as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    default = AutoregressiveConfig()
    for channels in (384, 472):
        scoring("default", default, channels)
    if default.mode == "causal" and default.combine == "none":
        pair = dataclasses.replace(default, combine="mean")
        scoring("both directions", pair, 384)
    if arguments.train:
        training(default, 472, 600)
    print(f"ratio: {against_masked(default, arguments.repeats):.2f}")


if __name__ == "__main__":
    main()
