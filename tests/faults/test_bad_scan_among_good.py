"""One bad scan among good ones: detect and evaluate do the others, fit refuses before the work."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_dino_uad import Case, drain, evaluate, find_cases, fit, save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.backbones.backbone import load_backbone
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.slices.preprocessing import Preprocessing

SHAPE = (6, 40, 48)
SETTINGS = {"components": 4, "epochs": 1, "max_patches": 500}


def head(seed):
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    values = 120 + 60 * np.sin(3 * x + seed) * np.cos(4 * y) + rng.normal(0, 6, SHAPE)
    inside = 0.3 * z**2 + y**2 + x**2 < 0.8
    return np.where(inside, values, rng.uniform(0, 6, SHAPE)).astype(np.float32)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert "Traceback" not in result.output
    return result


def errors(result):
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


def add_bad(folder):
    """Put a bad header, a truncated file, a pipe and a broken link into a folder."""
    (folder / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 1000\nDimSize = 4 4 4\nElementType = MET_SHORT\n"
        "ElementDataFile = x%n.raw 1 24 1\n"
    )
    whole = write(folder / "cut.nii.gz", head(7))
    whole.write_bytes(whole.read_bytes()[:-4000])
    os.mkfifo(folder / "pipe.nii.gz")
    (folder / "link.nrrd").symlink_to(folder / "gone" / "link.nrrd")
    return ("a.mhd", "cut.nii.gz", "pipe.nii.gz", "link.nrrd")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet-lite0")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory, backbone):
    folder = tmp_path_factory.mktemp("small")
    cases = [Case(write(folder / f"h{n}.nii.gz", head(n))) for n in range(2)]
    model = drain(
        fit(
            cases,
            settings=SETTINGS,
            backbone=backbone,
            preprocessing=Preprocessing(input_size=64),
        )
    )
    save_model(model, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_detect_does_the_others(tmp_path, small_model):
    scans, out = tmp_path / "scans", tmp_path / "out"
    for name in ("b", "m", "z"):
        write(scans / f"{name}.nii.gz", head(3))
    bad = add_bad(scans)
    result = run("detect", scans, "--model", small_model, "--out", out)
    assert result.exit_code == 2
    assert all((out / f"{name}.json").is_file() for name in ("b", "m", "z"))
    assert len(errors(result)) == len(bad)
    for name in bad:
        assert sum(name in line for line in errors(result)) == 1
    assert "1000 dimensions in its header" in result.stderr
    assert "4 of 7 scans have no result." in result.stderr
    again = run("detect", scans, "--model", small_model, "--out", out)
    assert again.exit_code == 2
    assert "3 of 7 cases are done already" in again.stderr


def cohort(folder):
    for number in range(3):
        write(folder / f"p{number}_flair.nii.gz", head(number))
        mask = np.zeros(SHAPE, np.uint8)
        mask[2:4, 15:22, 18:26] = 1
        write(folder / f"p{number}_lesion.nii.gz", mask)
    return ("--pattern", "*_flair.nii.gz", "--mask-pattern", "*_lesion.nii.gz")


def test_evaluate_does_the_others(tmp_path, small_model):
    scans, out = tmp_path / "scans", tmp_path / "out"
    patterns = cohort(scans)
    first = scans / "p0_flair.nii.gz"
    first.write_bytes(first.read_bytes()[:-4000])
    result = run("evaluate", scans, "--model", small_model, "--out", out, *patterns)
    assert result.exit_code == 2, result.output
    assert len(errors(result)) == 1
    assert str(first) in errors(result)[0]
    assert "1 of 3 scans have no metrics." in result.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["cases"] == 2
    assert list(metrics["failed"]) == [str(first)]
    with (out / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["p1_flair", "p2_flair", str(first)]
    assert [bool(row["auroc"]) for row in rows] == [True, True, False]
    assert [bool(row["error"]) for row in rows] == [False, False, True]


def test_evaluate_names_a_bad_mask_too(tmp_path, small_model, backbone):
    from napari_dino_uad import load_model

    cohort(tmp_path)
    write(tmp_path / "p1_lesion.nii.gz", np.zeros((5, 5, 5), np.uint8))
    cases = find_cases([tmp_path], "*_flair.nii.gz", "*_lesion.nii.gz")
    model = load_model(small_model)
    evaluation = drain(evaluate(cases, model, backbone=backbone))
    assert [row["case"] for row in evaluation.cases] == ["p0_flair", "p2_flair"]
    assert list(evaluation.failed) == [str(tmp_path / "p1_flair.nii.gz")]
    with pytest.raises(InputError, match="p1"):
        drain(evaluate(cases[1:2], model, backbone=backbone))


def test_fit_names_all_bad_scans_first(tmp_path):
    for number in range(2):
        write(tmp_path / "scans" / f"h{number}.nii.gz", head(number))
    bad = add_bad(tmp_path / "scans")
    out = tmp_path / "model.safetensors"
    result = run("fit", tmp_path / "scans", "--out", out, "--input-size", "64")
    assert result.exit_code == 2
    assert not out.exists()
    assert "Reading healthy scans" not in result.stderr
    (line,) = errors(result)
    assert "4 of 6 scans cannot be used, so nothing was learned" in line
    for name in bad:
        assert name in line


def test_fit_checks_validation_scans_first(tmp_path, backbone):
    cases = [Case(write(tmp_path / f"h{n}.nii.gz", head(n))) for n in range(3)]
    cases[2].scan.write_bytes(cases[2].scan.read_bytes()[:-4000])
    steps = []
    with pytest.raises(InputError, match=r"h2.nii.gz .*truncated or damaged"):
        drain(
            fit(cases[:2], valid=cases[2:], backbone=backbone),
            lambda progress: steps.append(progress.step),
        )
    assert set(steps) == {"Checking scans"}


def test_fit_counts_only_scans_it_learns_from(tmp_path, backbone):
    cases = [Case(write(tmp_path / f"h{n}.nii.gz", head(n))) for n in range(2)]
    everywhere = write(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    cases.append(Case(write(tmp_path / "ill.nii.gz", head(5)), everywhere))
    notes = []
    model = drain(
        fit(
            cases,
            valid=cases[:1],
            settings=SETTINGS,
            backbone=backbone,
            preprocessing=Preprocessing(input_size=64),
        ),
        lambda progress: notes.append(progress.note),
    )
    assert model.cohort["scans"] == 2
    assert any("ill has no healthy slice" in note for note in notes)


def test_a_stack_with_a_pipe_is_refused(tmp_path):
    from napari_dino_uad import read_volume

    for number in range(3):
        picture = head(0)[number]
        write(tmp_path / f"s{number}.png", picture.clip(0, 255).astype(np.uint8))
    os.mkfifo(tmp_path / "s3.png")
    with pytest.raises(InputError, match="is a pipe"):
        read_volume(tmp_path)
