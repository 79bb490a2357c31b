"""The same scan, model and engine give the same bytes; other engines differ by rounding only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_dino_uad import save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.backbones.engines.choice import available_engines
from napari_dino_uad.core.features.cache import FOLDER_VARIABLE

# Largest difference of a score between engines. Scores have a healthy deviation of about 1.
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, model) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(model, path)
    return path


def detect(scan: Path, model: Path, out: Path, *options: str) -> dict[str, bytes]:
    """Return what was written, but the record, which has times."""
    words = ["detect", scan, "-m", model, "-o", out, *options]
    result = CliRunner().invoke(app, [str(one) for one in words])
    assert result.exit_code == 0, result.output
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".json"}


def test_again_cached_and_not_cached_give_the_same_bytes(heads, model_file, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    scan = heads / "ill" / "p_flair.nii.gz"
    first = detect(scan, model_file, tmp_path / "first")
    assert len(first) == 3
    assert detect(scan, model_file, tmp_path / "cached") == first
    assert detect(scan, model_file, tmp_path / "again", "--no-cache") == first


def test_engines_differ_by_rounding_only(heads, model_file, tmp_path):
    scan = heads / "ill" / "p_flair.nii.gz"
    kinds = sorted({f"{spec.library} float32" for spec in available_engines()})
    maps = []
    for kind in kinds:
        detect(scan, model_file, tmp_path / kind, "--no-cache", "--engine", kind)
        image = sitk.ReadImage(str(tmp_path / kind / "p_flair_anomaly.nii.gz"))
        maps.append(sitk.GetArrayFromImage(image))
    for one in maps[1:]:
        np.testing.assert_allclose(one, maps[0], atol=TOLERANCE)
