"""Benchmarks: runs that are made once, and the tables that come of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_dino_uad import load_backbone, write_volume
from napari_dino_uad.cli import app
from napari_dino_uad.core.bench import run as bench_module
from napari_dino_uad.core.bench.run import bench
from napari_dino_uad.core.bench.splits import lgg_split, oct_split
from napari_dino_uad.core.bench.table import bench_table, read_section, replace_section
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.progress import drain
from scan_files import real_scan

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"components": 30, "epochs": 1, "max_patches": 6000}
METHODS = {"dpmm": SMALL, "memory-bank": {"patches": 300}}


@pytest.fixture(scope="module")
def data(tmp_path_factory, healthy, ill) -> Path:
    """Synthetic heads in the folders of the LGG data."""
    folder = tmp_path_factory.mktemp("lgg")
    parts = {"train": healthy[:2], "valid": healthy[2:3], "test": [ill]}
    for part, heads in parts.items():
        (folder / part).mkdir()
        for head in heads:
            name = folder / part / head.volume.name
            write_volume(f"{name}_flair.nii.gz", head.volume.array, head.volume)
            write_volume(f"{name}_lesion.nii.gz", head.lesion.astype(np.uint8), head.volume)
    return folder


@pytest.fixture(scope="module")
def backbone():
    return load_backbone()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def finished(data, backbone, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return out, drain(bench(lgg_split(data), METHODS, [0, 1], out, backbone=backbone, cache=cache))


def test_every_method_runs_with_every_seed(finished, ill):
    out, result = finished
    runs = result["runs"]
    made = [(run["request"]["method"], run["request"]["seed"]) for run in runs]
    assert made == [("dpmm", 0), ("dpmm", 1), ("memory-bank", 0), ("memory-bank", 1)]
    for run in runs:
        assert run["metrics"]["pixel"]["auroc"] > 0.7
        assert run["metrics"]["lesion_pixels"] == ill.lesion.sum()
        assert run["fit_seconds"] > 0 and run["score_ms_a_slice"] > 0
        assert run["features_cached"]
    # Seeds give other models, and a bank of 300 patches is larger than 30 components.
    assert runs[0]["metrics"]["pixel"] != runs[1]["metrics"]["pixel"]
    assert runs[2]["model_bytes"] > runs[0]["model_bytes"] > 1000
    # Embedded once, not by each run.
    assert 28 < result["features"]["slices"] <= 4 * 28
    left = sorted(path.name for path in (out / "runs").iterdir())
    assert left == [
        "lgg-dpmm-0.json", "lgg-dpmm-1.json", "lgg-features.json", "lgg-memory-bank-0.json",
        "lgg-memory-bank-1.json",
    ]  # fmt: skip


def test_finished_runs_are_not_made_again(finished, data, backbone, cache, monkeypatch):
    out, result = finished
    monkeypatch.setattr(bench_module, "fit", None)
    monkeypatch.setattr(bench_module, "evaluate", None)
    again = drain(bench(lgg_split(data), METHODS, [0, 1], out, backbone=backbone, cache=cache))
    assert again == result


@pytest.mark.parametrize("change", ["settings", "source", "overwrite", "data"])
def test_a_changed_run_is_made_again(finished, data, backbone, cache, monkeypatch, change):
    out, _ = finished

    def forbidden(*_, **__):
        raise RuntimeError("a fit began")

    monkeypatch.setattr(bench_module, "fit", forbidden)
    split, methods, overwrite = lgg_split(data), {"dpmm": SMALL}, False
    if change == "settings":
        methods = {"dpmm": {**SMALL, "components": 31}}
    elif change == "source":
        monkeypatch.setattr(bench_module, "_source_digest", lambda: "other")
    elif change == "data":
        split = bench_module.dataclasses.replace(split, train=split.train[:1])
    else:
        overwrite = True
    with pytest.raises(RuntimeError, match="a fit began"):
        drain(bench(split, methods, [0], out, backbone=backbone, cache=cache, overwrite=overwrite))


def test_a_run_stopped_after_its_fit_is_only_evaluated(
    finished, data, backbone, cache, tmp_path, monkeypatch
):
    arguments = (lgg_split(data), {"dpmm": SMALL}, [0], tmp_path)
    running = bench(*arguments, backbone=backbone, cache=cache)
    for progress in running:
        if progress.step == "dpmm, seed 0: Evaluating":
            break
    running.close()
    assert not (tmp_path / "runs" / "lgg-dpmm-0.json").exists()
    monkeypatch.setattr(bench_module, "fit", None)
    result = drain(bench(*arguments, backbone=backbone, cache=cache))
    _, whole = finished
    assert result["runs"][0]["metrics"]["pixel"] == whole["runs"][0]["metrics"]["pixel"]
    # Nothing was left to embed, so nothing is said of how long that takes.
    assert result["features"] is None


def test_the_table_holds_means_and_deviations(finished):
    _, result = finished
    lines = bench_table(result).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [
        "| `dpmm` (components=30, epochs=1, max_patches=6000)",
        "| `memory-bank` (patches=300)",
    ]
    aurocs = [run["metrics"]["pixel"]["auroc"] for run in result["runs"][:2]]
    mean, deviation = np.mean(aurocs), abs(aurocs[0] - aurocs[1]) / np.sqrt(2)
    assert f"| {mean:.3f} ± {deviation:.3f} |" in lines[2]
    assert "over the seeds 0, 1" in lines[5]
    alone = bench_table({**result, "runs": result["runs"][:1]})
    assert "±" not in alone and "Seed 0." in alone


def test_a_table_in_a_readme_is_replaced(finished):
    table = bench_table(finished[1])
    place = (
        "# Figures\n\n<!-- lgg table: made by napari-dino-uad bench lgg -->\nold\n"
        "<!-- end of lgg table -->\n\nMore.\n"
    )
    text = replace_section(place, "lgg", table)
    assert read_section(text, "lgg") == table
    assert text.startswith("# Figures") and text.endswith("More.\n") and "old" not in text
    assert replace_section(text, "lgg", table) == text
    with pytest.raises(InputError, match="no place for the table; put the two lines"):
        read_section(text, "oct")


def test_readme_holds_the_committed_tables():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"<!-- (\w+) table: made by", readme)
    assert "oct" in names
    for name in names:
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        assert read_section(readme, name) == bench_table(result), f"run bench {name} --readme"


def test_from_the_command_line(data, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "<!-- lgg table: made by napari-dino-uad bench lgg -->\n<!-- end of lgg table -->\n"
    )
    arguments = [
        "bench", "lgg", str(data), "--out", str(tmp_path / "out"), "--methods", "memory-bank",
        "--seeds", "3", "--set", "memory-bank.patches=200", "--readme", str(readme),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "`memory-bank` (patches=200)" in result.output
    assert "`memory-bank` (patches=200)" in readme.read_text()
    with (tmp_path / "out" / "lgg.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["method"], row["seed"]) == ("memory-bank", "3")
    saved = json.loads((tmp_path / "out" / "lgg.json").read_text())
    assert float(row["auroc"]) == saved["runs"][0]["metrics"]["pixel"]["auroc"]
    assert (tmp_path / "out" / "lgg.md").read_text() == bench_table(saved) + "\n"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--methods", "magic"], "There is no method 'magic'"),
        (["--seeds", "a"], "Seeds must be whole numbers"),
        (["--methods", "dpmm", "--set", "ar.epochs=2"], "one of dpmm, got 'ar.epochs=2'"),
        (["--methods", ""], "at least one method"),
    ],
)
def test_bad_options_get_a_sentence(data, tmp_path, extra, message):
    result = CliRunner().invoke(app, ["bench", "lgg", str(data), "-o", str(tmp_path), *extra])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(InputError, match="no folder train; expected train, valid and test"):
        lgg_split(tmp_path)
    with pytest.raises(InputError, match="no folder img"):
        oct_split(tmp_path)


def test_oct_is_cut_by_patient_and_by_what_masks_say(tmp_path):
    grey = np.random.default_rng(0).integers(0, 200, (16, 24)).astype(np.uint8)
    (tmp_path / "img").mkdir()
    (tmp_path / "fluid").mkdir()
    for number in range(55):
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(tmp_path / f"img/img_{number}.png"))
        if number in (1, 12):
            # Nobody looked, which is not the same as nothing there.
            continue
        fluid = np.zeros_like(grey)
        fluid[3:5, 3:5] = 255 * (number % 2)
        sitk.WriteImage(sitk.GetImageFromArray(fluid), str(tmp_path / f"fluid/img_{number}.png"))
    split = oct_split(tmp_path)
    numbers = [
        sorted(int(case.name.split("_")[1]) for case in part)
        for part in (split.train, split.valid, split.test)
    ]
    assert numbers == [[22, 24, 26, 28, 30, 32], [14, 16, 18, 20], list(range(33, 55))]
    (tmp_path / "fluid" / "img_40.png").unlink()
    with pytest.raises(InputError, match="img_40 has no mask"):
        oct_split(tmp_path)


def test_the_real_oct_data():
    split = oct_split(real_scan("oct"))
    assert [len(part) for part in (split.train, split.valid, split.test)] == [6, 4, 22]


def test_source_digest_covers_the_core_only(tmp_path, monkeypatch):
    core = tmp_path / "core"
    for name in ("fit.py", "scans/volume.py", "bench/run.py"):
        (core / name).parent.mkdir(parents=True, exist_ok=True)
        (core / name).write_text("1")
    monkeypatch.setattr(bench_module, "__file__", str(core / "bench" / "run.py"))
    digests = [bench_module._source_digest()]
    for name in ("bench/run.py", "fit.py", "scans/volume.py"):
        (core / name).write_text("2")
        digests.append(bench_module._source_digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
