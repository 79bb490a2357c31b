"""The test files of other packages: each opens, or is refused in one sentence.

NAPARI_DINO_UAD_FILES names more folders, such as that of a source package.
"""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Layer
from typer.testing import CliRunner

from napari_dino_uad import save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.volume import read_volume
from napari_dino_uad.reader import get_reader
from napari_dino_uad.widgets import series_picker

# Folders of installed packages, with files of every kind that once made a program fail.
FOLDERS = {
    "pydicom": "data/test_files",
    "nibabel": "tests/data",
    "highdicom": "../data/test_files",
    "SimpleITK": ".",
}
LONGEST_S = 60


def files() -> list[Path]:
    found: list[Path] = []
    more = os.environ.get("NAPARI_DINO_UAD_FILES", "")
    places = [Path(one) for one in more.split(os.pathsep) if one]
    for package, folder in FOLDERS.items():
        try:
            place = Path(str(importlib.import_module(package).__file__)).parent / folder
        except ImportError:
            continue
        places.append(place)
    for place in places:
        if place.is_dir():
            kept = (path for path in sorted(place.rglob("*")) if path.is_file())
            found += [path for path in kept if path.suffix not in (".py", ".pyc", ".so", ".pyi")]
    return found


FILES = files()


@pytest.fixture(autouse=True)
def in_time():
    """Fail instead of waiting for ever."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(*_):
        raise TimeoutError(f"it takes more than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_there_are_files():
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_foreign_file_opens_or_is_refused_in_a_sentence(path):
    try:
        volume = read_volume(path, allow_constant=True)
    except InputError as error:
        text = str(error)
        assert text.rstrip(")").endswith("."), text
        assert "Traceback" not in text
        assert len(text) < 2500
        return
    assert np.isfinite(volume.array).all()
    assert volume.array.dtype == np.float32
    assert all(one > 0 for one in volume.spacing_mm)
    assert volume.path is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_napari_gets_layers_or_a_sentence(path, monkeypatch):
    """As the window reads it; where a person would choose, the first is chosen."""
    monkeypatch.setattr(series_picker, "pick_series", lambda _, series: series[0])
    monkeypatch.setattr(series_picker, "pick_volume", lambda *_: 1)
    read = get_reader(str(path))
    if read is None:
        return
    try:
        layers = read(str(path))
    except InputError as error:
        assert str(error).rstrip(")").endswith("."), str(error)
        return
    made = [Layer.create(*layer) for layer in layers if len(layer) > 1]
    assert all(one.data.size for one in made)


@pytest.mark.slow
def test_detect_goes_through_all_of_them(tmp_path, model):
    """One command over all files: those that can be used are done, the others have a sentence."""
    save_model(model, tmp_path / "model.safetensors")
    names = [str(path) for path in FILES]
    result = CliRunner().invoke(
        app,
        ["detect", *names, "--model", str(tmp_path / "model.safetensors"),
         "--out", str(tmp_path / "results")],
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output and "Unexpected error" not in result.output
    assert len(list((tmp_path / "results").glob("*_anomaly.nii.gz"))) > 10
