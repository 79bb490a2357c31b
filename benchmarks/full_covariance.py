"""Memory and response time of the mixture with 500 full covariance matrices at 384 channels.

Runs a short fit with all parts of a long one (start, steps, validation, best epoch), on few
patches. Measures the peak memory of the process and the longest time between two progress reports,
which is how long a cancel waits; then the size of the file and the scoring of a slice of 1,024
patches. Runs on Linux and macOS.

    python benchmarks/full_covariance.py [--components 500] [--channels 384] [--threads 2]

The last line is the main figure: this machine's memory divided by the peak.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative.mixture.dpmm import DPMM, DPMMConfig

# A cancel in the window must be answered within this time.
_ANSWER_S = 0.2


def peak_gb() -> float:
    """Return the peak memory of this process in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6


def slices(count: int, channels: int, seed: int) -> FeatureSet:
    """Draw slices of 32 x 32 unit embeddings around 500 centres."""
    centres = torch.randn(500, channels, generator=torch.Generator().manual_seed(123))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(500, (count * 1024,), generator=generator)
    noise = torch.randn(count * 1024, channels, generator=generator)
    grid = F.normalize(centres[labels] + noise, dim=1).reshape(count, 32, 32, channels)
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (channels,))
    values = grid.permute(0, 3, 1, 2).half().contiguous().numpy()
    features.add(values, np.ones((count, 32, 32), dtype=bool))
    return features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    channels = arguments.channels
    train, valid = slices(8, channels, 1), slices(1, channels, 2)
    before = peak_gb()
    settings = DPMMConfig(components=arguments.components, covariance="full", epochs=2)
    model = DPMM(settings)
    started = last = time.perf_counter()
    silences: dict[str, float] = {}
    steps: dict[int, float] = {}
    for progress in model.fit(train, valid):
        now = time.perf_counter()
        silences[progress.step] = max(silences.get(progress.step, 0.0), now - last)
        if progress.step == "Fitting the mixture":
            steps.setdefault(progress.done, now)
        last = time.perf_counter()
    silences["the end"] = time.perf_counter() - last
    peak = peak_gb()
    begun = sorted(steps.values())
    print(f"{model.summary()}: {time.perf_counter() - started:.0f} s")
    if len(begun) > 1:
        print(f"an EM step of 4,096 patches: {np.median(np.diff(begun)):.1f} s")
    print(f"peak memory {peak:.2f} GB, {before:.2f} GB before the fit; 200,000 patches add 0.6 GB")
    for step, longest in silences.items():
        print(f"longest silence until {step!r}: {longest:.2f} s")
    size = sum(t.numel() * t.element_size() for t in model.tensors().values())
    x = valid.transformed(1)
    features = next(x)[0]
    for score in ("cosine", "likelihood"):
        once = DPMM.restore({**model.config(), "score": score}, model.tensors())
        clock = time.perf_counter()
        once.score(features)
        print(f"one slice, {score} score: {time.perf_counter() - clock:.2f} s")
    print(f"file {size / 1e6:.0f} MB")
    if max(silences.values()) > 2 * _ANSWER_S:
        print(f"A cancel may wait longer than {_ANSWER_S} s, unless the machine was busy just now.")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"ratio: {machine / peak:.1f}")


if __name__ == "__main__":
    main()
