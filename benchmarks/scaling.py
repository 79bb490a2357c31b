"""Growth of the time per slice and of the file size when the cohort doubles.

Fits the default mixture, the default autoregressive network and two memory banks (a tenth of the
healthy patches, and all of them) on n and on 2n slices of 32 x 32 patches, and times the scoring of
one slice with each model in turn. Embeddings are random, around enough centres that all components
live; time and size depend on nothing else. For the same reason, one epoch of training is enough.
Files are whole model files, with calibration and header.

    python benchmarks/scaling.py [--channels 384 488] [--slices 196] [--threads 2]

Other programs make medians noisy, so ratios use the fastest times. The last line is the main
figure: the time per slice of the memory bank with all patches of n slices (200,704 by default),
divided by that of the mixture.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from napari_dino_uad import load_model, save_model
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.maps.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.model import FittedModel, View
from napari_dino_uad.core.normative.base import NormativeModel
from napari_dino_uad.core.normative.methods import new_normative
from napari_dino_uad.core.slices.preprocessing import Preprocessing

_PATCHES = 32 * 32
_CENTRES = 2000
_SLICES_A_SCAN = 14
# Repeats: the mixture and the network take milliseconds, a large bank takes seconds.
_QUICK, _SLOW = 60, 3
# Backbones with the numbers of channels measured here.
_BACKBONES = {384: "dinov2-vits14", 488: "efficientnet-lite0"}
# A model file has to name a cohort; these embeddings are made up.
_COHORT = {
    "scans": 0, "validation_scans": 0, "slices": 0, "validation_slices": 0,
    "date": "2026-01-01", "seed": 0, "engine": "none",
}  # fmt: skip


@dataclass
class Subject:
    """A fitted model and its measurements."""

    name: str
    patches: int
    model: NormativeModel
    megabytes: float
    seconds: list[float]

    @property
    def fastest(self) -> float:
        """Shortest time of a slice in seconds, least affected by other programs."""
        return min(self.seconds)


def healthy_slices(count: int, channels: int, seed: int) -> FeatureSet:
    """Draw slices of unit embeddings around centres that are the same for every seed."""
    fixed = torch.Generator().manual_seed(123)
    centres = torch.randn(_CENTRES, channels, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (channels,))
    for start in range(0, count, _SLICES_A_SCAN):
        size = min(_SLICES_A_SCAN, count - start)
        labels = torch.randint(_CENTRES, (size * _PATCHES,), generator=generator)
        noise = torch.randn(size * _PATCHES, channels, generator=generator)
        grid = F.normalize(centres[labels] + noise, dim=1).reshape(size, 32, 32, channels)
        values = grid.permute(0, 3, 1, 2).half().contiguous().numpy()
        features.add(values, np.ones((size, 32, 32), dtype=bool))
    return features


def as_file(normative: NormativeModel, channels: int, folder: Path) -> tuple[NormativeModel, float]:
    """Save and load a model; return the loaded model, and the file size in MB."""
    rng = np.random.default_rng(0)
    centred, levels = (
        Calibration.from_scans([rng.random(100_000) for _ in range(10)]) for _ in range(2)
    )
    model = FittedModel(
        views=(
            View(
                Preprocessing(),
                normative,
                ScoreScale(0.0, 1.0),
                F.normalize(torch.ones(128, channels), dim=1),
            ),
        ),
        backbone_key=_BACKBONES[channels],
        backbone_sha256="0" * 64,
        context=Context(),
        maps=MapSettings(),
        calibration=centred,
        levels=levels,
        cohort=_COHORT,
    )
    path = folder / "model.safetensors"
    save_model(model, path)
    return load_model(path).normative, path.stat().st_size / 1e6


def fit_all(slices: int, channels: int, folder: Path) -> list[Subject]:
    """Fit every model on a number of slices."""
    train = healthy_slices(slices, channels, seed=1)
    valid = healthy_slices(_SLICES_A_SCAN, channels, seed=2)
    patches = slices * _PATCHES
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("DPMM", "dpmm", {"epochs": 1}),
        ("AR", "ar", {"epochs": 1}),
        ("memory bank, a tenth", "memory-bank", {"patches": patches // 10}),
        ("memory bank, all", "memory-bank", {"patches": patches, "candidates": patches}),
    ]
    subjects = []
    for name, method, settings in wanted:
        model = new_normative(method, 0, settings)
        started = time.perf_counter()
        for _ in model.fit(train, valid):
            pass
        print(f"  fitted {name} on {slices} slices: {time.perf_counter() - started:.0f} s")
        restored, megabytes = as_file(model, channels, folder)
        kept = settings["patches"] if method == "memory-bank" else 0
        subjects.append(Subject(name, kept, restored, megabytes, []))
    return subjects


def time_in_turn(subjects: list[Subject], channels: int) -> None:
    """Time one slice with every model in turn, so that load affects all alike."""
    x = F.normalize(torch.randn(1, channels, 32, 32), dim=1)
    # Channels last, as `Context.apply` returns them.
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for subject in subjects:
            subject.model.score(x)
        for turn in range(_QUICK):
            for subject in subjects:
                if turn >= _SLOW and subject.patches:
                    continue
                started = time.perf_counter()
                subject.model.score(x)
                subject.seconds.append(time.perf_counter() - started)


def compare(channels: int, slices: int) -> float:
    """Print the table for one number of channels; return the time of bank over mixture."""
    print(f"{channels} channels, one slice of {_PATCHES:,} patches")
    with tempfile.TemporaryDirectory() as folder:
        single, double = (fit_all(count, channels, Path(folder)) for count in (slices, 2 * slices))
    time_in_turn(single + double, channels)
    heading = f"{'':22}{'cohort':>8}{'bank':>9}{'ms / slice':>12}{'fastest':>9}{'file MB':>9}"
    print(f"{heading}{'doubling: time':>17}{'MB':>7}")
    for one, two in zip(single, double, strict=True):
        for subject, count in ((one, slices), (two, 2 * slices)):
            line = (
                f"{subject.name:22}{count:>8}{subject.patches or '':>9}"
                f"{1e3 * np.median(subject.seconds):>12.2f}{1e3 * subject.fastest:>9.2f}"
                f"{subject.megabytes:>9.2f}"
            )
            if subject is two:
                line += f"{two.fastest / one.fastest:>16.2f}x{two.megabytes / one.megabytes:>6.2f}x"
            print(line)
    for one, two in zip(single[:2], double[:2], strict=True):
        grown = two.megabytes / one.megabytes - 1
        if abs(grown) > 0.02:
            raise SystemExit(f"The file of {one.name} grew by {grown:.0%} with the cohort.")
    return single[3].fastest / single[0].fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[384, 488])
    parser.add_argument("--slices", type=int, default=196)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ratios = [compare(channels, arguments.slices) for channels in arguments.channels]
    print(f"ratio: {ratios[0]:.0f}")


if __name__ == "__main__":
    main()
