"""Speed and size of the autoregressive model.

Compares the causal network with its live taps alone against dense masked convolutions that pay
for the dead ones (same numbers), times the scoring of one slice of 1,024 patches, sums up the
file, and with --train times a fit on random embeddings of the size of the LGG benchmark's.

    python benchmarks/autoregressive.py [--threads 2] [--train]

The last line is the main figure: how many times faster live taps are.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from napari_dino_uad.core.features import FeatureSet
from napari_dino_uad.core.normative.ar_embedding import Embedding
from napari_dino_uad.core.normative.ar_errors import ErrorScale
from napari_dino_uad.core.normative.autoregressive import Autoregressive, AutoregressiveConfig
from napari_dino_uad.core.normative.context import Context


def milliseconds(call: Callable[[], object], repeats: int = 40) -> float:
    """Return the median time of a call after a warm-up."""
    with torch.inference_mode():
        for _ in range(5):
            call()
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def ready(config: AutoregressiveConfig, channels: int) -> Autoregressive:
    """Build a model with random weights that can score."""
    generator = torch.Generator().manual_seed(0)
    model = Autoregressive(config)
    patches = torch.randn(2000, channels, generator=generator)
    model._embedding = Embedding.fit(patches, config.standardise, config.components, config.power)
    kept = model._embedding.channels
    model._networks = model._build(kept)
    whitening = {"none": None, "channel": torch.ones(kept), "full": torch.eye(kept)}
    model._scales = [
        ErrorScale(
            whitening[config.whitening] if config.score == "mse" else None,
            torch.ones(32, 32) if config.position_map else None,
        )
        for _ in model._networks
    ]
    return model


def live_against_dense(channels: int) -> float:
    """Time the paper's causal network with and without its dead taps."""
    config = AutoregressiveConfig(
        mode="causal",
        combine="none",
        dilations=(4, 4, 4, 4),
        kernel_size=3,
        first_kernel_size=3,
        hole=0,
        hidden=256,
        depth=5,
        position=0,
        standardise="none",
        loss="mse",
        score="mse",
    )
    network = ready(config, channels)._networks[0]
    kernels = [(layer.kernel().detach(), layer.bias, layer.dilation) for layer in network.layers]
    x = torch.randn(1, channels, 32, 32, generator=torch.Generator().manual_seed(1))

    def dense() -> torch.Tensor:
        out = x
        for index, (kernel, bias, dilation) in enumerate(kernels):
            out = F.conv2d(out, kernel, bias, padding=dilation, dilation=dilation)
            out = F.relu(out) if index < len(kernels) - 1 else out
        return out

    def live() -> torch.Tensor:
        return network(x)

    with torch.inference_mode():
        difference = float((dense() - live()).abs().max())
    assert difference < 1e-4, difference
    slow, fast = milliseconds(dense), milliseconds(live)
    print(
        f"paper's causal network, {channels} channels, one 32 x 32 slice: dense masked "
        f"{slow:.2f} ms, live taps {fast:.2f} ms, largest difference {difference:.1e}"
    )
    return slow / fast


def scoring(name: str, config: AutoregressiveConfig, channels: int) -> None:
    """Time scoring and measure the file."""
    model = ready(config, channels)
    x = torch.randn(1, channels, 32, 32)
    took = milliseconds(lambda: model.score(x))
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
    for _ in Autoregressive(config).fit(*sets):
        pass
    print(
        f"fit of {config.epochs} epochs on {slices} slices of 32 x 32 x {channels}: "
        f"{time.perf_counter() - started:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
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
    print(f"ratio: {live_against_dense(384):.2f}")


if __name__ == "__main__":
    main()
