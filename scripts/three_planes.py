"""Comparison of axial slices with three planes, on healthy scans with inserted lesions.

Needs at least three near-isotropic scans of healthy people. Each in turn gets six blurred spheres
of another brightness. A DPMM is fitted on the others, except one for calibration.

    python scripts/three_planes.py FOLDER [--pattern '*_T1w.nii.gz']
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_dino_uad import Case, choose_engine, detect, drain, fit, load_backbone, read_volume
from napari_dino_uad.core.metrics import pixel_metrics
from napari_dino_uad.core.scans.volume import Volume
from napari_dino_uad.core.slices.planes import PLANES

LESIONS = 6


def with_lesions(volume: Volume, seed: int) -> tuple[Volume, NDArray[np.bool_]]:
    """Insert spheres of 5 to 10 mm radius, with 0.6, 0.75 or 1.25 times the median brightness."""
    chance = np.random.default_rng(seed)
    array = volume.array.copy()
    tissue = array > 0.15 * np.percentile(array[array > 0], 99)
    inner = np.argwhere(gaussian_filter(tissue.astype(np.float32), 8) > 0.97)
    middle = float(np.median(array[tissue]))
    lesions = np.zeros(array.shape, dtype=bool)
    axes = np.indices(array.shape, sparse=True)
    for _ in range(LESIONS):
        centre = inner[chance.integers(len(inner))]
        radius = chance.uniform(5, 10)
        squares = (
            ((axis - place) * spacing) ** 2
            for axis, place, spacing in zip(axes, centre, volume.spacing_mm, strict=True)
        )
        share = np.clip((radius - np.sqrt(sum(squares))) / 1.5 + 0.5, 0, 1)
        brightness = middle * chance.choice([0.6, 0.75, 1.25])
        # Keep some of the texture below.
        array += share * (0.7 * brightness + 0.3 * gaussian_filter(array, 2) - array)
        lesions |= (share > 0.5) & tissue
    return dataclasses.replace(volume, array=array.astype(np.float32)), lesions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pattern", default="*_T1w.nii.gz")
    options = parser.parse_args()
    scans = [read_volume(path) for path in sorted(options.folder.glob(options.pattern))]
    backbone = drain(choose_engine(load_backbone()))
    for number, scan in enumerate(scans):
        *train, valid = [Case(other) for other in scans if other is not scan]
        volume, lesions = with_lesions(scan, number)
        for planes in (PLANES[:1], PLANES):
            model = drain(fit(train, valid=[valid], backbone=backbone, planes=planes))
            anomaly = drain(detect(volume, model, backbone=backbone))
            tissue = anomaly.foreground
            found = pixel_metrics(lesions[tissue], anomaly.scores[tissue], {})
            print(
                f"{scan.name}, {', '.join(planes)}: AUROC {found['auroc']:.3f}, "
                f"AP {found['average_precision']:.4f}, lesions {lesions[tissue].mean():.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
