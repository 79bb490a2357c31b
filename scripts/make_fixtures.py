"""Write the small model files and the cache entry in `tests/fixtures`, from the code as it is.

Run it once for each version of a format, before the code that writes the format changes; commit
what it wrote. `tests/test_compatibility.py` reads the files of every version.

    python scripts/make_fixtures.py format3
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from napari_dino_uad import Case, detect, drain, fit, load_backbone, save_model
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.scans.volume import Volume, volume_from_array
from napari_dino_uad.core.slices.preprocessing import Preprocessing

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
BACKBONE = "efficientnet-lite0@3,4"
SETTINGS = {
    "dpmm": {"components": 6, "epochs": 2},
    "ar": {"components": 8, "hidden": 8, "epochs": 1},
    "memory-bank": {"patches": 50},
    "fusion": {"members": ("dpmm", "ar")},
}


def make_scan(seed: int) -> Volume:
    """Make a scan by whole numbers alone, so that every machine makes the same."""
    slices, rows, cols = np.ogrid[:4, :96, :96]
    inside = (rows - 48) ** 2 + (cols - 48) ** 2 < 1600 + 100 * slices
    texture = (rows * (7 + seed) + cols * (13 + seed) + slices * 31) % 97 + (rows * cols) % 61
    return volume_from_array(
        np.where(inside, 100 + texture, 0).astype(np.float32), (5.0, 2.0, 2.0), name=f"scan{seed}"
    )


def main(version: str) -> None:
    folder = FIXTURES / version
    folder.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone(BACKBONE)
    cases = [Case(make_scan(seed)) for seed in range(4)]
    for method, settings in SETTINGS.items():
        model = drain(
            fit(
                cases,
                valid=[Case(make_scan(seed)) for seed in range(4, 7)],
                method=method,
                settings=settings,
                backbone=backbone,
                preprocessing=Preprocessing(input_size=128),
                cache=False,
            )
        )
        save_model(model, folder / f"{method}.safetensors")
        scores = drain(detect(make_scan(9), model, backbone=backbone, cache=False)).planes[0].scores
        np.save(folder / f"{method}_scores.npy", scores.astype(np.float32))
    cache = FeatureCache(folder / "cache")
    drain(detect(make_scan(9), model, backbone=backbone, cache=cache))
    for lock in (folder / "cache").rglob("*.lock"):
        lock.unlink()
    print(*(f"{path} {path.stat().st_size}" for path in sorted(folder.rglob("*"))), sep="\n")


if __name__ == "__main__":
    shutil.rmtree(FIXTURES / sys.argv[1], ignore_errors=True)
    main(sys.argv[1])
