"""What many tests start from: synthetic heads, and a model fitted on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_dino_uad import Case, drain, fit, load_backbone, write_volume
from napari_dino_uad.core.model import FittedModel
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE, Phantom, make_phantom

# pytest-qt would take another binding than qtpy if several are installed.
if "QT_API" in os.environ:
    os.environ.setdefault("PYTEST_QT_API", os.environ["QT_API"])

_HEALTHY = 4

# Test folders and files that need a display, and fixtures and files that run the real backbone.
_WINDOW = ("e2e", "widgets", "test_reader_writer.py")
_BACKBONE_FIXTURES = {"model", "heads", "backbone", "three_planes"}
_BACKBONE_FILES = {
    "test_backbone_files.py",
    "test_backbone_hub.py",
    "test_bench.py",
    "test_cached_runs.py",
    "test_cli.py",
    "test_compatibility.py",
    "test_engines.py",
    "test_examples.py",
    "test_interrupted_runs.py",
    "test_official_embeddings.py",
    "test_pipeline.py",
    "test_reproduce.py",
    "test_resumed_fit.py",
    "test_headless.py",
    "test_weights_files.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out."""
    for item in items:
        if set(_WINDOW) & set(item.path.parts):
            item.add_marker("window")
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path.name in _BACKBONE_FILES or fixtures & _BACKBONE_FIXTURES:
            item.add_marker("backbone")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the tests out of the user's cache, and on one engine whatever the machine's load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("NAPARI_DINO_UAD_ENGINE", "torch float32")
        yield


@pytest.fixture(scope="session")
def healthy() -> list[Phantom]:
    """Healthy heads."""
    return [make_phantom(seed) for seed in range(_HEALTHY)]


@pytest.fixture(scope="session")
def ill() -> Phantom:
    """A head that is none of the healthy ones, with lesions."""
    return make_phantom(1000, lesions=3)


@pytest.fixture(scope="session")
def model(healthy) -> FittedModel:
    """A small mixture fitted on the healthy heads."""
    cases = [Case(head.volume) for head in healthy]
    settings = {"components": 60, "epochs": 3, "max_patches": 20_000}
    return drain(fit(cases, settings=settings, backbone=load_backbone(PHANTOM_BACKBONE)))


@pytest.fixture(scope="session")
def heads(tmp_path_factory, healthy, ill) -> Path:
    """A folder of scans: `healthy/*_flair.nii.gz`, `ill/*_flair.nii.gz` and `*_lesion.nii.gz`."""
    folder = tmp_path_factory.mktemp("heads")
    for number, head in enumerate(healthy):
        path = folder / "healthy" / f"h{number}_flair.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_volume(path, head.volume.array, head.volume)
    (folder / "ill").mkdir()
    write_volume(folder / "ill" / "p_flair.nii.gz", ill.volume.array, ill.volume)
    write_volume(folder / "ill" / "p_lesion.nii.gz", ill.lesion.astype(np.uint8), ill.volume)
    return folder
