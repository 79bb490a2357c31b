"""Time of a whole detection relative to the backbone alone.

A detection reads a scan of 155 slices of 240 x 240 from NIfTI, prepares and embeds it, caches the
embeddings, scores them, resamples the scores to voxels and writes them with the findings. It is
compared with the same backbone on the same, already prepared slices. Both run in turn on the engine
chosen here, for at least half a minute. The best round of each counts, because other programs may
be running. ViT-S/14 has random weights, which do not change its time.

    python benchmarks/detect_overhead.py [--rounds 3] [--engine auto]

The last line is the ratio for ViT-S/14 at 448 pixels.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from napari_dino_uad import Case, choose_engine, detect, drain, fit, load_backbone, read_volume
from napari_dino_uad.core.backbones.backbone import Backbone, backbone_spec
from napari_dino_uad.core.backbones.weights import create_network
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.model import FittedModel
from napari_dino_uad.core.results import writing_results
from napari_dino_uad.core.scans.volume import Volume, volume_from_array, write_volume
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

PATIENCE_S = 30.0


def head(slices: int, edge: int, seed: int) -> Volume:
    """Create an ellipsoid of smooth texture and noise, surrounded by air."""
    chance = np.random.default_rng(seed)
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, size, dtype=np.float32) for size in (slices, edge, edge)),
        indexing="ij",
    )
    inside = (z / 0.95) ** 2 + (y / 0.85) ** 2 + (x / 0.7) ** 2 < 1
    waves = sum(
        np.sin(k * z + chance.uniform(0, 6)) * np.sin(k * y) * np.sin(k * x) for k in (4, 9, 17)
    )
    values = 500 + 120 * waves + 20 * chance.standard_normal(z.shape, dtype=np.float32)
    return volume_from_array(np.where(inside, values, 0).astype(np.int16), (1.0, 1.0, 1.0))


def place(key: str, engine: str) -> Backbone:
    """Load a backbone, with random weights unless it is embedded, and choose its engine."""
    spec = backbone_spec(key)
    torch.manual_seed(0)
    loaded = load_backbone(key) if spec.embedded else Backbone(spec, create_network(spec))
    return drain(choose_engine(loaded, engine=engine))


def small_model(backbone: Backbone) -> FittedModel:
    """Fit the default number of components on a few slices."""
    cases = [Case(head(12, 240, seed)) for seed in range(3)]
    return drain(fit(cases, backbone=backbone, settings={"epochs": 1}, cache=False))


def whole(scan: Path, model: FittedModel, backbone: Backbone, out: Path) -> None:
    """Do everything that the command line does for one case."""
    volume = read_volume(scan)
    anomaly = drain(detect(volume, model, backbone=backbone))
    threshold = model.calibration.threshold(0.01)
    with writing_results(out, anomaly) as finish:
        labels, findings = find_findings(
            anomaly.scores, volume, threshold, model.calibration, foreground=anomaly.foreground
        )
        finish(labels, findings, 0.01)


def in_thread(call: Callable[[], object]) -> None:
    """Run a call in a thread, as detection runs the backbone, so that load affects both alike."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def seconds_of(call: Callable[[], object]) -> float:
    """Return the duration of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def best(calls: dict[str, Callable[[int], None]], rounds: int) -> dict[str, float]:
    """Time calls in turn, for at least `rounds` rounds and `PATIENCE_S`; return each minimum."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    number = 0
    while number < rounds or time.perf_counter() - started < PATIENCE_S:
        for name, call in calls.items():
            times[name].append(seconds_of(partial(call, number)))
            print(f"  {name}: {times[name][-1]:.2f} s", flush=True)
        number += 1
    return {name: min(taken) for name, taken in times.items()}


def compare(key: str, engine: str, rounds: int, folder: Path) -> float:
    """Return the time of a detection relative to the backbone alone."""
    scan = folder / "scan.nii.gz"
    volume = head(155, 240, 100)
    write_volume(scan, volume.array, volume)
    backbone = place(key, engine)
    model = small_model(backbone)
    prepared = prepare(read_volume(scan), Preprocessing(input_size=backbone.spec.input_size))
    grid = prepared.grid(backbone.spec.stride, backbone.spec.multiple)
    size = backbone.engine.batch
    inputs = [
        prepared.images(range(start, min(start + size, len(prepared))), grid)
        for start in range(0, len(prepared), size)
    ]

    def embed_all() -> None:
        for images in inputs:
            backbone.maps(images).cpu()

    def bare(_: int) -> None:
        in_thread(embed_all)

    def detection(number: int) -> None:
        # A new cache each time, so that nothing is cached yet.
        os.environ["NAPARI_DINO_UAD_CACHE"] = str(folder / f"{key} {number}")
        whole(scan, model, backbone, folder / "out")

    height, width = grid.input_shape
    print(f"{backbone.words}, {len(prepared)} slices of {height} x {width}")
    backbone.maps(inputs[0])
    seconds = best({"backbone": bare, "detection": detection}, rounds)
    ratio = seconds["detection"] / seconds["backbone"]
    print(
        f"{key}: backbone {seconds['backbone']:.2f} s, detection {seconds['detection']:.2f} s, "
        f"ratio {ratio:.2f}"
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet-lite0", "dinov2-vits14"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_DINO_UAD_CACHE"] = folder
        for key in options.backbones:
            ratio = compare(key, options.engine, options.rounds, Path(folder))
    print(f"ratio: {ratio:.2f}")


if __name__ == "__main__":
    main()
