"""The example scripts run as they are."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from napari_dino_uad import load_model, save_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_every_example_is_tested():
    tested = {"cohort_to_figure", "cohort_to_model", "scan_to_report"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_cohort_to_model(monkeypatch, heads, tmp_path, capsys):
    run(
        monkeypatch,
        "cohort_to_model",
        heads / "healthy",
        tmp_path / "m.safetensors",
        "*_flair.nii.gz",
    )
    told = capsys.readouterr().out
    assert "Fitting the mixture" in told
    assert "1%: score" in told
    assert load_model(tmp_path / "m.safetensors").cohort["seed"] == 0


@pytest.mark.slow
def test_cohort_to_figure(monkeypatch, heads, tmp_path, capsys):
    """A whole fit with the default settings."""
    run(monkeypatch, "cohort_to_figure", heads / "healthy", heads / "ill", tmp_path)
    told = capsys.readouterr().out
    assert "tissue: AUROC 0." in told and "all: AUROC 0." in told
    assert (tmp_path / "results" / "evaluation.html").is_file()
    assert (tmp_path / "results" / "figures" / "roc_tissue.svg").is_file()


def test_scan_to_report(monkeypatch, heads, model, tmp_path, capsys):
    save_model(model, tmp_path / "m.safetensors")
    scan = heads / "ill" / "p_flair.nii.gz"
    run(monkeypatch, "scan_to_report", scan, tmp_path / "m.safetensors", tmp_path / "out")
    assert "p_flair_findings.nii.gz" in capsys.readouterr().out
    assert "Research use only" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
