"""A random walk through the window: whatever is done, picture, panels and files agree.

`NAPARI_DINO_UAD_WALK=500 pytest tests/e2e/test_random_walk.py` walks further than `make test`, and
NAPARI_DINO_UAD_SEED another way.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_dino_uad import Case, drain, fit, load_backbone, save_model, write_volume
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.session import session
from random_walk import Walk

pytestmark = pytest.mark.slow

_STEPS = int(os.environ.get("NAPARI_DINO_UAD_WALK", "30"))
_SEED = int(os.environ.get("NAPARI_DINO_UAD_SEED", "0"))


@pytest.fixture(scope="module")
def material(tmp_path_factory, healthy, ill, model) -> tuple[list[Path], list[Path]]:
    """Scans of few slices, so that detections take less than a second, and two models."""
    folder = tmp_path_factory.mktemp("walk")
    scans = []
    for name, head in (("ill", ill), ("healthy", healthy[0])):
        part = volume_from_array(head.volume.array[10:20], head.volume.spacing_mm, name=name)
        scans.append(folder / f"{name}.nii.gz")
        write_volume(scans[-1], part.array, part)
    other = volume_from_array(ill.volume.array[8:15, ::2, ::2], (5, 2, 2), name="coarse")
    scans.append(folder / "coarse.nii.gz")
    write_volume(scans[-1], np.ascontiguousarray(other.array), other)
    models = [folder / "first.safetensors", folder / "second.safetensors"]
    save_model(model, models[0])
    cases = [Case(head.volume) for head in healthy[:3]]
    settings = {"components": 30, "epochs": 2, "max_patches": 8_000}
    save_model(
        drain(fit(cases, settings=settings, backbone=load_backbone(PHANTOM_BACKBONE))), models[1]
    )
    return scans, models


def memory_mb() -> float:
    """Return the memory of this process, 0 where the system does not say."""
    file = Path("/proc/self/statm")
    if not file.exists():
        return 0.0
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.filterwarnings("ignore:Contours are not displayed:UserWarning")
def test_a_random_walk_keeps_picture_panels_and_files_together(
    make_napari_viewer, material, tmp_path
):
    """Waits for detections, which the walk begins at every tenth step or so."""
    session().models.clear()
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1400, 880)
    walk = Walk(viewer, *material, tmp_path, _SEED)
    try:
        viewer.open(material[0][0], plugin="napari-dino-uad")
        dock = open_dock(viewer, "Detect")
        dock.load_model(material[1][0])
        walk.settle()
        for number in range(_STEPS):
            action = walk.step()
            if _STEPS > 100:
                print(number, action, f"({memory_mb():.0f} MB)", flush=True)
        walk.leave()
    finally:
        walk.close()
        session().models.clear()
        # A viewer that is still referred to counts as a leak.
        walk.viewer = walk.window = walk.results = None
