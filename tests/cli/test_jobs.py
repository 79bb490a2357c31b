"""Several processes on the command line: the files of one, and the same errors."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from napari_dino_uad import save_model
from napari_dino_uad.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.slow
def test_detect_with_two_jobs_writes_the_same_files(heads, model, tmp_path, monkeypatch):
    save_model(model, tmp_path / "model.safetensors")
    bad = tmp_path / "bad_flair.nii.gz"
    bad.write_bytes(b"no scan")
    monkeypatch.setenv("NAPARI_DINO_UAD_ENGINE", "openvino float32")
    for jobs in (1, 2):
        result = run(
            "detect", heads / "healthy" / "h0_flair.nii.gz", heads / "ill", bad,
            "--pattern", "*_flair.nii.gz", "-m", tmp_path / "model.safetensors",
            "-o", tmp_path / f"out{jobs}", "--jobs", jobs, "--no-cache", "--report",
        )  # fmt: skip
        assert result.exit_code == 2
        assert "bad_flair.nii.gz cannot be read as an image" in result.stderr
        assert "1 of 3 scans have no result." in result.stderr
        # In the order of the scans, whichever was done first.
        names = [line.split()[0] for line in result.stdout.splitlines() if "_flair " in line]
        assert names == ["h0_flair", "p_flair"]
    written = {path.name for path in (tmp_path / "out1").iterdir()}
    assert {path.name for path in (tmp_path / "out2").iterdir()} == written
    for name in written:
        if name.endswith((".nii.gz", ".csv")):
            assert (tmp_path / "out2" / name).read_bytes() == (
                tmp_path / "out1" / name
            ).read_bytes()


def test_jobs_and_a_cluster_exclude_each_other(heads, model, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    result = run(
        "detect", heads / "ill" / "p_flair.nii.gz", "-m", tmp_path / "model.safetensors",
        "-o", tmp_path, "--jobs", 2, "--scheduler", "tcp://127.0.0.1:9",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "not both" in result.stderr
