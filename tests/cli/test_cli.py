"""The command line as its users type it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
from safetensors.numpy import save_file
from typer.testing import CliRunner

from napari_dino_uad import save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.explain.pictures import load_pictures

SETTINGS = ["--set", "components=40", "--set", "epochs=2", "--set", "max_patches=8000"]


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def refused(*arguments) -> str:
    """Run what must fail with one sentence and the exit code 2; return the sentence."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    sentences = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1
    assert sentences[0].endswith(".")
    return sentences[0]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(model, path)
    return path


def test_fit_writes_a_model_and_info_tells_of_it(heads, tmp_path):
    out = tmp_path / "deep" / "model.safetensors"
    result = run(
        "fit", heads / "healthy", "--pattern", "*_flair.nii.gz", "--out", out,
        "--lesions", "dark", *SETTINGS,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "dark lesions" in result.output
    assert out.is_file()
    assert not list(out.parent.glob(".*"))
    told = run("info", out).output
    assert "efficientnet-lite0" in told
    assert "dark lesions" in told
    assert "threshold at 5 % FPR" in told


def test_pictures_are_stored_beside_a_model_on_request_only(heads, tmp_path):
    out = tmp_path / "model.safetensors"
    fitting = ["fit", heads / "healthy", "--pattern", "*_flair.nii.gz", "--out", out, *SETTINGS]
    assert run(*fitting).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    result = run(*fitting, "--store-pictures")
    assert result.exit_code == 0, result.output
    assert "pictures of healthy patches" in result.output
    assert len(load_pictures(out).images) > 100


def test_detect_writes_on_the_grid_of_the_file(heads, model_file, tmp_path):
    scan = heads / "ill" / "p_flair.nii.gz"
    result = run("detect", scan, "--model", model_file, "--out", tmp_path, "--fpr", "0.01")
    assert result.exit_code == 0, result.output
    before = sitk.ReadImage(str(scan))
    for kind in ("anomaly", "findings"):
        after = sitk.ReadImage(str(tmp_path / f"p_flair_{kind}.nii.gz"))
        assert after.GetSize() == before.GetSize()
        for get in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(after, get)(), getattr(before, get)(), atol=1e-6)
    report = json.loads((tmp_path / "p_flair.json").read_text())
    with (tmp_path / "p_flair_findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report["findings"]) > 0
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p_flair_findings.nii.gz")))
    assert labels.max() == len(rows)
    assert "Research use only" in report["notice"]


def test_a_report_is_written_where_one_is_missing(heads, model_file, tmp_path):
    arguments = ("detect", heads / "ill" / "p_flair.nii.gz", "-m", model_file, "-o", tmp_path)
    assert run(*arguments).exit_code == 0
    assert not (tmp_path / "p_flair_report.html").exists()
    for _ in range(2):
        result = run(*arguments, "--report")
        assert result.exit_code == 0, result.output
    assert "done already" in result.stderr
    page = (tmp_path / "p_flair_report.html").read_text(encoding="utf-8")
    assert "Research use only" in page and "p_flair" not in page
    named = run(*arguments, "--report", "--named")
    assert named.exit_code == 0, named.output
    assert "p_flair" in (tmp_path / "p_flair_report.html").read_text(encoding="utf-8")
    assert "--named is about the report" in refused(*arguments, "--named")
    result = run(*arguments, "--dicom")
    assert "p_flair: DICOM results need a scan" in result.stderr
    assert not list(tmp_path.glob("*.dcm"))


def test_a_finished_case_is_not_done_again(heads, model_file, tmp_path):
    arguments = ("detect", heads / "ill" / "p_flair.nii.gz", "-m", model_file, "-o", tmp_path)
    assert run(*arguments).exit_code == 0
    stamp = (tmp_path / "p_flair.json").stat().st_mtime_ns
    assert run(*arguments).exit_code == 0
    assert (tmp_path / "p_flair.json").stat().st_mtime_ns == stamp
    assert run(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "p_flair.json").stat().st_mtime_ns != stamp


def test_one_volume_of_four_dimensions(heads, model_file, tmp_path):
    scan = sitk.ReadImage(str(heads / "ill" / "p_flair.nii.gz"))
    path = tmp_path / "p_bold.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([scan * 0 + 1000, scan]), str(path))
    arguments = ("detect", path, "-m", model_file, "-o", tmp_path / "out")
    result = run(*arguments, "--volume", "2")
    assert result.exit_code == 0, result.output
    assert "Note:" not in result.stderr
    report = json.loads((tmp_path / "out" / "p_bold.json").read_text())
    assert report["volume"] == 2 and report["notices"] == []
    whole = sitk.ReadImage(str(tmp_path / "out" / "p_bold_findings.nii.gz"))
    assert whole.GetSize() == scan.GetSize()
    # The same case of another volume is another result.
    assert "done already" in run(*arguments, "--volume", "2").stderr
    assert "in every voxel" in refused(*arguments)
    assert "has volumes 1 to 2, got volume 3" in refused(*arguments, "--volume", "3")


def test_notices_are_told_once_and_recorded(heads, model_file, tmp_path):
    image = sitk.Cast(sitk.ReadImage(str(heads / "ill" / "p_flair.nii.gz")), sitk.sitkFloat32)
    image[0, 0, 0] = float("nan")
    sitk.WriteImage(image, str(tmp_path / "q_flair.nii.gz"))
    result = run("detect", tmp_path / "q_flair.nii.gz", "-m", model_file, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    [notice] = json.loads((tmp_path / "out" / "q_flair.json").read_text())["notices"]
    assert notice.startswith("q_flair has 1 voxel of NaN or infinity")
    told = " ".join(result.stderr.split())
    assert told.count(f"Note: {notice}") == 1


def test_evaluate_tells_notices_once(heads, model_file, tmp_path):
    image = sitk.Cast(sitk.ReadImage(str(heads / "ill" / "p_flair.nii.gz")), sitk.sitkFloat32)
    image[0, 0, 0] = float("nan")
    sitk.WriteImage(image, str(tmp_path / "q_flair.nii.gz"))
    (tmp_path / "q_lesion.nii.gz").write_bytes((heads / "ill" / "p_lesion.nii.gz").read_bytes())
    patterns = ("--pattern", "*_flair.nii.gz", "--mask-pattern", "*_lesion.nii.gz")
    result = run(
        "evaluate", tmp_path, "-m", model_file, "-o", tmp_path / "out", *patterns, "--volume", "1"
    )
    assert result.exit_code == 0, result.output
    assert " ".join(result.stderr.split()).count("Note: q_flair has 1 voxel of NaN") == 1


def test_evaluate_writes_metrics(heads, model_file, tmp_path):
    result = run(
        "evaluate", heads / "ill", "--model", model_file, "--pattern", "*_flair.nii.gz",
        "--mask-pattern", "*_lesion.nii.gz", "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["conventions"]["tissue"]["auroc"] > 0.9
    assert metrics["conventions"]["tissue"]["dice_at_fpr"]["0.05"] > 0
    assert {"reading", "backbone", "model", "rest"} <= set(metrics["seconds"])
    with (tmp_path / "cases.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == metrics["cases"] == 1
    # In a pipe the table is no wider than a page; the file has the other columns.
    rule = next(line for line in result.stdout.splitlines() if "──" in line)
    assert len(rule) <= 120
    assert "all columns: cases.csv" in result.stdout


def test_pictures_with_masks_in_another_folder(healthy, ill, tmp_path):
    for number in range(6, 22, 2):
        grey = healthy[number % 4].volume.array[number]
        picture = sitk.GetImageFromArray((grey / grey.max() * 255).astype(np.uint8))
        path = tmp_path / "healthy" / f"s{number}.png"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(picture, str(path))
    worst = int(ill.lesion.sum(axis=(1, 2)).argmax())
    grey = ill.volume.array[worst]
    (tmp_path / "ill").mkdir()
    (tmp_path / "truth").mkdir()
    picture = sitk.GetImageFromArray((grey / grey.max() * 255).astype(np.uint8))
    sitk.WriteImage(picture, str(tmp_path / "ill" / "s1.png"))
    mask = sitk.GetImageFromArray(ill.lesion[worst].astype(np.uint8) * 255)
    sitk.WriteImage(mask, str(tmp_path / "truth" / "s1.png"))
    model = tmp_path / "model.safetensors"
    result = run("fit", tmp_path / "healthy", "--pattern", "s*.png", "--out", model, *SETTINGS)
    assert result.exit_code == 0, result.output
    assert "6 scans, 6 slices" in result.output
    result = run(
        "evaluate", tmp_path / "ill", "-m", model, "-o", tmp_path / "e",
        "--pattern", "s*.png", "--mask-pattern", "../truth/s*.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["conventions"]["tissue"]["lesion_pixels"] == ill.lesion[worst].sum()
    assert metrics["conventions"]["tissue"]["auroc"] > 0.7
    result = run("detect", tmp_path / "ill", "-m", model, "-o", tmp_path / "d", "--pattern",
                 "s*.png", "--min-size", 20)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "pixels" in result.output
    report = json.loads((tmp_path / "d" / "s1.json").read_text())
    assert report["minimum_size"] == 20
    assert report["spacing_mm"] is None and report["size_unit"] == "pixels"
    assert report["findings"][0]["centroid_ras_mm"] is None


def test_scans_taken_as_healthy_for_want_of_a_mask_are_told(heads, tmp_path):
    result = run(
        "fit", heads, "--pattern", "*_flair.nii.gz", "--mask-pattern", "*_lesion.nii.gz",
        "--out", tmp_path / "model.safetensors", *SETTINGS,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "4 of 5 scans, such as h0_flair, have no mask and are taken as healthy" in result.stderr


def test_phantom_writes_scans_and_masks(tmp_path):
    result = run("phantom", "--out", tmp_path, "--count", 1, "--lesions", 2, "--seed", 7)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["phantom-007_flair.nii.gz", "phantom-007_lesion.nii.gz"]
    # Heads with lesions are other heads than those without.
    for asked in ((), ("--lesions", 1)):
        run("phantom", "--out", tmp_path / "both", "--count", 1, *asked)
    names = sorted(path.name for path in (tmp_path / "both").glob("*_flair.nii.gz"))
    assert names == ["phantom-000_flair.nii.gz", "phantom-1000_flair.nii.gz"]


def test_backbones_are_listed_with_their_licences():
    told = run("backbones").output
    assert "efficientnet-lite0 (default)" in told
    assert "DINOv3 License" in told


def test_fit_reads_the_layers_asked_for(heads, tmp_path):
    out = tmp_path / "model.safetensors"
    result = run("fit", heads / "healthy", "--out", out, "--layers", "4,3", *SETTINGS)
    assert result.exit_code == 0, result.output
    assert "efficientnet-lite0@3,4" in run("info", out).output
    scan = heads / "ill" / "p_flair.nii.gz"
    result = run("detect", scan, "--model", out, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "p_flair_anomaly.nii.gz").is_file()
    told = refused("fit", heads / "healthy", "--out", out, "--backbone", "resnet50@9")
    assert "counted from 1 to 4, got 9" in told


def bad_scans(folder):
    """Write every kind of bad scan; yield (path, what the sentence says)."""
    rng = np.random.default_rng(0)

    def write(name, image, **options):
        sitk.WriteImage(image, str(folder / name), **options)
        return folder / name

    grey = sitk.GetImageFromArray(rng.random((6, 40, 40)).astype(np.float32))
    (folder / "text.nii.gz").write_text("not an image")
    yield folder / "text.nii.gz", "text.nii.gz"
    (folder / "empty.nii").write_bytes(b"")
    yield folder / "empty.nii", "empty"
    whole = write("whole.nii.gz", grey, useCompression=True)
    (folder / "cut.nii.gz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    yield folder / "cut.nii.gz", "cut.nii.gz"
    colour = sitk.GetImageFromArray(
        rng.integers(0, 255, (6, 40, 40, 3)).astype(np.uint8), isVector=True
    )
    yield write("colour.nii.gz", colour), "colour"
    nothing = sitk.GetImageFromArray(np.full((6, 40, 40), np.nan, np.float32))
    yield write("nan.nrrd", nothing), "nan"
    constant = sitk.GetImageFromArray(np.full((6, 40, 40), 5, np.float32))
    yield write("constant.nii.gz", constant), "constant"
    yield folder / "missing", "missing"


def test_bad_scans_get_one_sentence_each(model_file, tmp_path):
    for path, words in bad_scans(tmp_path):
        told = refused("detect", path, "--model", model_file, "--out", tmp_path / "out")
        assert words in told.lower(), told
        if path.exists():
            refused("fit", path, path, "--out", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_one_slice_is_a_scan(model_file, heads, tmp_path):
    image = sitk.ReadImage(str(heads / "ill" / "p_flair.nii.gz"))[:, :, 14:15]
    sitk.WriteImage(image, str(tmp_path / "one.nii.gz"))
    result = run("detect", tmp_path / "one.nii.gz", "-m", model_file, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    after = sitk.ReadImage(str(tmp_path / "out" / "one_anomaly.nii.gz"))
    assert after.GetSize() == image.GetSize()


def test_bad_models_get_one_sentence_each(heads, tmp_path, model_file):
    scan = heads / "ill" / "p_flair.nii.gz"

    def told(path):
        return refused("detect", scan, "--model", path, "--out", tmp_path / "out")

    text = tmp_path / "text.safetensors"
    text.write_text("no model")
    assert "is damaged or another kind of file: " in told(text)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": np.zeros(3)}, foreign)
    assert "no napari-dino-uad model" in told(foreign)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model_file.read_bytes()[:-100])
    assert "damaged" in told(cut)
    assert "no model file" in told(tmp_path / "missing.safetensors")


def test_masks_that_do_not_fit(heads, model_file, tmp_path):
    arguments = ["--model", model_file, "--out", tmp_path, "--pattern", "*_flair.nii.gz"]
    told = refused("evaluate", heads / "ill", *arguments, "--mask-pattern", "*_truth.nii.gz")
    assert "*_truth.nii.gz" in told or "p_truth.nii.gz" in told
    scan = sitk.ReadImage(str(heads / "ill" / "p_flair.nii.gz"))
    sitk.WriteImage(scan, str(tmp_path / "q_flair.nii.gz"))
    sitk.WriteImage(scan[:, :, :5] > 0, str(tmp_path / "q_lesion.nii.gz"))
    told = refused("evaluate", tmp_path, *arguments, "--mask-pattern", "*_lesion.nii.gz")
    assert "shape" in told


def test_info_needs_one_thing(model_file):
    assert "Expected a model file; give one" in refused("info")
    assert "got both" in refused("info", model_file, "--system")


def test_bad_options(heads, tmp_path):
    scans = heads / "healthy"
    out = tmp_path / "model.safetensors"
    assert "There is no method" in refused("fit", scans, "--out", out, "--method", "magic")
    assert "There is no backbone" in refused("fit", scans, "--out", out, "--backbone", "dino9")
    assert ".safetensors" in refused("fit", scans, "--out", tmp_path / "model.pt")
    assert "The plane" in refused("fit", scans, "--out", out, "--plane", "oblique")
    assert "no setting" in refused("fit", scans, "--out", out, "--set", "colour=red")
    assert "Lesions must be one of" in refused("fit", scans, "--out", out, "--lesions", "red")


def test_components_are_written_on_the_grid_of_the_file(heads, model, model_file, tmp_path):
    scan = heads / "ill" / "p_flair.nii.gz"
    result = run("detect", scan, "-m", model_file, "-o", tmp_path, "--components")
    assert result.exit_code == 0, result.stderr
    image = sitk.ReadImage(str(tmp_path / "p_flair_components.nii.gz"))
    own = sitk.ReadImage(str(scan))
    assert image.GetOrigin() == pytest.approx(own.GetOrigin())
    components = sitk.GetArrayFromImage(image)
    assert components.shape == sitk.GetArrayFromImage(own).shape
    assert components.dtype == np.uint16
    assert len(np.unique(components)) > 5
    tissue = sitk.GetArrayFromImage(own) > 100
    assert (components[tissue] > 0).mean() > 0.9
    again = run("detect", scan, "-m", model_file, "-o", tmp_path, "--components")
    assert "1 of 1 cases are done already" in again.stderr


def read_rows(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_likelihoods_of_the_commonest_components_are_written(heads, model, model_file, tmp_path):
    scan = next((heads / "ill").glob("*_flair.nii.gz"))
    options = ("detect", scan, "-m", model_file, "-o", tmp_path, "--components", "--likelihoods")
    assert run(*options, "3").exit_code == 0
    rows = read_rows(tmp_path / "p_flair_likelihoods.csv")
    patches = [int(row["patches"]) for row in rows]
    assert len(rows) == 3
    assert patches == sorted(patches, reverse=True)
    components = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p_flair_components.nii.gz")))
    own = sitk.ReadImage(str(scan))
    for row in rows:
        image = sitk.ReadImage(str(tmp_path / row["file"]))
        assert image.GetOrigin() == own.GetOrigin()
        values = sitk.GetArrayFromImage(image)
        mine = components == int(row["component"])
        # A component is likelier where it is the nearest.
        assert values[mine].mean() > values[(components > 0) & ~mine].mean()
    assert "done already" in run(*options, "3").output
    assert "done already" not in run(*options, "2").output
    assert len(read_rows(tmp_path / "p_flair_likelihoods.csv")) == 2


def test_a_model_without_components_is_refused(heads, tmp_path):
    fitted = run(
        "fit", heads / "healthy", "-o", tmp_path / "bank.safetensors", "--method", "memory-bank"
    )
    assert fitted.exit_code == 0, fitted.stderr
    scan = heads / "ill" / "p_flair.nii.gz"
    options = ["-m", tmp_path / "bank.safetensors", "-o", tmp_path, "--components"]
    assert "memory-bank has no components" in refused("detect", scan, *options)
