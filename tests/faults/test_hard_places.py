"""Folders that cannot be written, shares that vanish, files that go, and clocks that are wrong."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

import napari_dino_uad.core.scans.volume as volume_module
from napari_dino_uad import load_model, save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.features.cache import FOLDER_VARIABLE, FeatureCache
from napari_dino_uad.core.storage.temporary import LOCK_NAME, sweep

SETTINGS = ["--set", "components=12", "--set", "epochs=1", "--set", "max_patches=3000"]
YEAR_S = 365 * 86400.0


def run(*arguments: object):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def sentences(result) -> list[str]:
    assert "Traceback" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, model) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(model, path)
    return path


@pytest.fixture
def ill_scans(heads, tmp_path) -> Path:
    """Two scans of one head, and its mask, in a folder of their own."""
    folder = tmp_path / "ill"
    folder.mkdir()
    for name in ("p", "q"):
        for kind in ("flair", "lesion"):
            shutil.copy(heads / "ill" / f"p_{kind}.nii.gz", folder / f"{name}_{kind}.nii.gz")
    return folder


def detect(scans: Path, model: Path, out: Path):
    return run("detect", scans, "--pattern", "*_flair.nii.gz", "-m", model, "-o", out)


def scores(folder: Path, name: str) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}_anomaly.nii.gz")))


# Even the administrator cannot make folders there.
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_one_sentence(heads, model_file, monkeypatch, tmp_path):
    ill, pattern = heads / "ill", ("--pattern", "*_flair.nii.gz")
    for words in (
        ("detect", ill, *pattern, "-m", model_file, "-o", "/proc/results"),
        ("evaluate", ill, *pattern, "--mask-pattern", "*_lesion.nii.gz", "-m", model_file,
         "-o", "/proc/results"),
        ("fit", heads / "healthy", "-o", "/proc/model.safetensors", *SETTINGS),
        ("phantom", "-o", "/proc/heads", "--count", 1),
    ):  # fmt: skip
        result = run(*words)
        assert result.exit_code == 2, result.output
        told = sentences(result)
        assert len(told) == 1 and "/proc" in told[0], result.output
    monkeypatch.setenv(FOLDER_VARIABLE, "/proc/cache")
    result = detect(ill, model_file, tmp_path)
    assert result.exit_code == 2
    assert "--no-cache" in sentences(result)[0]


def test_a_scan_that_vanishes_costs_no_other(ill_scans, model_file, tmp_path, monkeypatch):
    read = volume_module.read_volume

    def reading(path, *args, **kwargs):
        volume = read(path, *args, **kwargs)
        (ill_scans / "q_flair.nii.gz").unlink(missing_ok=True)
        return volume

    monkeypatch.setattr(volume_module, "read_volume", reading)
    result = detect(ill_scans, model_file, tmp_path / "out")
    assert result.exit_code == 2
    told = sentences(result)
    assert len(told) == 1 and "q_flair" in told[0]
    assert (tmp_path / "out" / "p_flair.json").is_file()
    assert not list((tmp_path / "out").glob("q_*"))


def test_a_share_that_vanishes_is_named_and_the_next_run_goes_on(
    ill_scans, model_file, tmp_path, monkeypatch
):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert detect(ill_scans, model_file, whole).exit_code == 0
    replace = Path.replace

    def gone(source, target):
        if "q_flair" in str(target):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(target))
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", gone)
        result = detect(ill_scans, model_file, out)
    assert result.exit_code == 2
    assert len(sentences(result)) == 1
    assert (out / "p_flair.json").is_file() and not (out / "q_flair.json").exists()
    first = (out / "p_flair.json").stat().st_mtime_ns
    assert detect(ill_scans, model_file, out).exit_code == 0
    assert (out / "p_flair.json").stat().st_mtime_ns == first
    for name in ("p_flair", "q_flair"):
        np.testing.assert_allclose(scores(out, name), scores(whole, name), atol=1e-4)


def test_a_cache_that_vanishes_ends_nothing(ill_scans, model_file, tmp_path, monkeypatch):
    cache, read = tmp_path / "cache", volume_module.read_volume
    monkeypatch.setenv(FOLDER_VARIABLE, str(cache))
    times = []

    def reading(path, *args, **kwargs):
        times.append(path)
        shutil.rmtree(cache, ignore_errors=True)
        return read(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(volume_module, "read_volume", reading)
        assert detect(ill_scans, model_file, tmp_path / "out").exit_code == 0
    assert len(times) == 2
    np.testing.assert_array_equal(
        scores(tmp_path / "out", "p_flair"), scores(tmp_path / "out", "q_flair")
    )


@pytest.mark.parametrize("years", [1, -1])
def test_a_clock_that_was_set_changes_no_result(heads, ill_scans, tmp_path, monkeypatch, years):
    """Files are a year younger than now, or a year older: the clock was set back, or on."""
    cache = tmp_path / "cache"
    monkeypatch.setenv(FOLDER_VARIABLE, str(cache))
    fit = ("fit", heads / "healthy", *SETTINGS, "-o")
    first, second = (tmp_path / f"{name}.safetensors" for name in ("first", "second"))
    out = tmp_path / "out"
    assert run(*fit, first).exit_code == 0
    assert detect(ill_scans, first, out).exit_code == 0
    entries = FeatureCache(cache / "features").usage().entries
    moved = time.time() + years * YEAR_S
    for path in [*cache.rglob("*"), *out.rglob("*")]:
        os.utime(path, (moved, moved))
    assert run(*fit, second).exit_code == 0
    one, two = (load_model(path).normative.tensors() for path in (first, second))
    assert all(np.array_equal(one[name].numpy(), two[name].numpy()) for name in one)
    before = scores(out, "p_flair")
    assert detect(ill_scans, first, tmp_path / "again").exit_code == 0
    np.testing.assert_array_equal(scores(tmp_path / "again", "p_flair"), before)
    # Nothing was computed anew but for the clock, and nothing is left behind.
    assert FeatureCache(cache / "features").usage().entries == entries
    assert sweep(cache / "features") == 0


def test_what_a_killed_run_left_goes_whatever_the_clock_says(tmp_path):
    for name, years in (("back", 1), ("on", -1)):
        left = tmp_path / f".napari-dino-uad-{name}.partial"
        left.mkdir()
        (left / LOCK_NAME).write_bytes(b"")
        moved = time.time() + years * YEAR_S
        os.utime(left, (moved, moved))
    assert sweep(tmp_path) == 2
    assert not list(tmp_path.iterdir())
