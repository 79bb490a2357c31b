"""Peak memory and time of the exact pooled metrics of an evaluation, without a network.

Made-up scores of volumes of 155 x 240 x 240 are pooled as `evaluate` does, from files, and, for
fewer of them, as arrays put together for scikit-learn. Each has its own process.

    python benchmarks/evaluation_memory.py [--volumes 100] [--few 10]

The last line is the memory of pooling many volumes divided by that of few.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import peak_gb

from napari_dino_uad.core.evaluation.histograms import histogram_set, resamples
from napari_dino_uad.core.evaluation.pool import CasePixels, count_pixels
from napari_dino_uad.core.evaluation.settings import CONVENTIONS

_VOXELS = 155 * 240 * 240
_TISSUE, _LESION = 0.2, 0.03
_THRESHOLDS = {0.1: 1.3, 0.05: 1.65, 0.01: 2.35}
_REPEATS = 1000


def made_up(seed: int) -> CasePixels:
    """Return pixels of a volume of which a fifth is tissue, and 3 % of that lesion."""
    rng = np.random.default_rng(seed)
    tissue = int(_VOXELS * _TISSUE)
    ill = int(tissue * _LESION)
    none = np.zeros(0, np.float32)
    lesion = rng.standard_normal(ill, dtype=np.float32) + np.float32(1.5)
    healthy = rng.standard_normal(tissue - ill, dtype=np.float32)
    return CasePixels(
        {"tissue": healthy, "other": none},
        {"tissue": lesion, "other": none},
        {"tissue": np.full(ill, 20 / ill, np.float32), "other": none},
        {"tissue": 20, "other": 0},
        background=_VOXELS - tissue,
        slices=120,
    )


def pooled(volumes: int, folder: Path) -> None:
    places = []
    for seed in range(volumes):
        places.append(folder / f"{seed}.npz")
        made_up(seed).save(places[-1])
    before, started = peak_gb(), time.perf_counter()
    counts = {name: count_pixels(places, name, _THRESHOLDS.values()) for name in CONVENTIONS}
    exact = counts["tissue"].metrics(_THRESHOLDS)
    histograms = histogram_set(places, counts, _THRESHOLDS)
    weights = resamples(volumes, _REPEATS, 0)
    for name in CONVENTIONS:
        histograms[name].metrics(weights, _THRESHOLDS)
    seconds = time.perf_counter() - started
    print(json.dumps({"gb": peak_gb(), "before": before, "seconds": seconds,
                      "ap": exact["average_precision"], "auroc": exact["auroc"]}))  # fmt: skip


def together(volumes: int) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    cases = [made_up(seed) for seed in range(volumes)]
    started = time.perf_counter()
    truth, scores = [], []
    for case in cases:
        for part, ill in (("healthy", False), ("lesion", True)):
            values = case.take(part, "tissue")
            scores.append(values)
            truth.append(np.full(len(values), ill))
    both = np.concatenate(truth), np.concatenate(scores)
    found = {"ap": average_precision_score(*both), "auroc": roc_auc_score(*both)}
    seconds = time.perf_counter() - started
    print(json.dumps({"gb": peak_gb(), "seconds": seconds, **found}))


def run(*arguments: str) -> dict[str, float]:
    """Run this script in its own process and return its measurements."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=100)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--pool", type=int)
    parser.add_argument("--together", type=int)
    options = parser.parse_args()
    if options.pool:
        with tempfile.TemporaryDirectory() as folder:
            pooled(options.pool, Path(folder))
        return
    if options.together:
        together(options.together)
        return
    plain = run("--together", str(options.few))
    few = run("--pool", str(options.few))
    many = run("--pool", str(options.volumes))
    print(f"{options.few} volumes, scikit-learn: {plain['gb']:.2f} GB, {plain['seconds']:.1f} s")
    print(f"{options.few} volumes, pooled: {few['gb']:.2f} GB, {few['seconds']:.1f} s, both "
          f"conventions, {_REPEATS} resamples")  # fmt: skip
    for name in ("ap", "auroc"):
        print(f"  {name}: {few[name]:.9f}, scikit-learn {plain[name]:.9f}")
    print(f"{options.volumes} volumes, pooled: {many['gb']:.2f} GB, {many['seconds']:.1f} s")
    print(f"ratio: {many['gb'] / few['gb']:.2f}")


if __name__ == "__main__":
    main()
