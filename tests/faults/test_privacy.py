"""Nothing leaves the machine, and no patient's name reaches what is written."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from napari_dino_uad import save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.scans.phantom import make_phantom
from scan_files import write_dicom

NAME, NUMBER, DAY = "Sekretova^Anna", "PID7391846", "19710203"
#: Makes every attempt to reach a network fail, in this process.
NO_NETWORK = """
import socket
def refuse(*arguments, **keywords):
    raise AssertionError("a network was asked for")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
from napari_dino_uad.cli import app
app()
"""


def run(*arguments, home: Path):
    environment = {
        **os.environ,
        "NAPARI_DINO_UAD_CACHE": str(home),
        # An engine from the start: measuring is not what is tested here.
        "NAPARI_DINO_UAD_ENGINE": "torch float32",
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, "-c", NO_NETWORK, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)


def series(folder: Path, seed: int) -> Path:
    """Write a head as a DICOM series of a patient with a name, a number and a date of birth."""
    folder.mkdir(parents=True)
    volume = make_phantom(seed).volume
    thick, down, across = volume.spacing_mm
    for number, pixels in enumerate(volume.array):
        write_dicom(
            folder / f"{number:03d}.dcm",
            np.clip(pixels, 0, 30_000),
            (0.0, 0.0, number * thick),
            uid=f"1.2.826.0.1.{seed}",
            spacing=(across, down, thick),
            t0010_0010=NAME,
            t0010_0020=NUMBER,
            t0010_0030=DAY,
        )
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A fit, a detection with everything it can write, and an evaluation, without a network."""
    place = tmp_path_factory.mktemp("private")
    home = place / "cache"
    scans = [series(place / "scans" / f"case{seed}", seed) for seed in range(3)]
    model = place / "model.safetensors"
    settings = ["--set", "components=20", "--set", "epochs=1", "--set", "max_patches=4000"]
    steps = [
        run("fit", *scans, "--out", model, *settings, home=home),
        run(
            "detect", *scans[:1], "-m", model, "-o", place / "detected", "--report", "--dicom",
            home=home,
        ),
        run("info", model, home=home),
    ]  # fmt: skip
    return place, steps, scans


def test_nothing_asks_for_a_network(done):
    _, steps, _ = done
    for step in steps:
        assert step.returncode == 0, step.stderr
        assert "a network was asked for" not in step.stderr


def test_the_scans_do_hold_the_name(done):
    _, _, scans = done
    header = pydicom.dcmread(scans[0] / "000.dcm")
    assert str(header.PatientName) == NAME
    assert header.PatientID == NUMBER


def test_no_name_reaches_what_is_written_or_said(done):
    place, steps, _ = done
    secrets = [NAME, NAME.split("^")[0], NUMBER, DAY]
    for step in steps:
        assert not [one for one in secrets if one in step.stdout + step.stderr]
    written = [path for path in place.rglob("*") if path.is_file()]
    looked_at = 0
    for path in written:
        # A DICOM object of the series belongs to its patient, and was asked for.
        if place / "scans" in path.parents or path.suffix == ".dcm":
            continue
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        assert not [one for one in secrets if one.encode() in content], path
        assert not [one for one in secrets if one in path.name], path
        looked_at += 1
    assert looked_at > 6
    assert any(path.suffix == ".dcm" and "findings" in path.name for path in written)


def test_a_report_has_no_path(done):
    place, _, _ = done
    [page] = (place / "detected").glob("*_report.html")
    assert str(place) not in page.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_what_is_written_is_its_owners_alone(heads, model, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o022)
    try:
        save_model(model, tmp_path / "new" / "m.safetensors")
        scan = next((heads / "ill").glob("*_flair.nii.gz"))
        done = CliRunner().invoke(
            app,
            ["detect", str(scan), "-m", str(tmp_path / "new/m.safetensors"), "-o",
             str(tmp_path / "out"), "--report"],
        )  # fmt: skip
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    written = [*(tmp_path / "new").iterdir(), *(tmp_path / "out").iterdir()]
    assert len(written) > 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    folders = [tmp_path / "new", tmp_path / "out", *(tmp_path / "cache").iterdir()]
    open_to_all = [
        path.name
        for path in folders
        if path.is_dir() and stat.S_IMODE(path.stat().st_mode) != 0o700
    ]
    assert not open_to_all
    # What the user has opened to others stays open.
    (tmp_path / "new/m.safetensors").chmod(0o644)
    save_model(model, tmp_path / "new" / "m.safetensors")
    assert stat.S_IMODE((tmp_path / "new/m.safetensors").stat().st_mode) == 0o644
