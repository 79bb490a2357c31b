"""Benchmarks: runs that are made once, and the tables that come of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from typer.testing import CliRunner

from napari_dino_uad import load_backbone, write_volume
from napari_dino_uad.cli import app
from napari_dino_uad.core.bench import run as bench_module
from napari_dino_uad.core.bench.memory import _Remembering
from napari_dino_uad.core.bench.run import bench
from napari_dino_uad.core.bench.splits import lgg_split, oct_split
from napari_dino_uad.core.bench.table import bench_table, read_section, replace_section
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative.methods import new_normative
from napari_dino_uad.core.progress import drain
from scan_files import real_scan

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"components": 30, "epochs": 1, "max_patches": 6000}
METHODS = {"dpmm": SMALL, "memory-bank": {"patches": 300}}
MAPS = ("raw", "either")


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
    running = bench(
        lgg_split(data), METHODS, [0, 1], out, backbone=backbone, maps=MAPS, cache=cache
    )
    return out, drain(running)


def test_every_method_runs_with_every_seed(finished, ill):
    out, result = finished
    runs = result["runs"]
    made = [(run["request"]["method"], run["request"]["seed"]) for run in runs[::2]]
    assert made == [("dpmm", 0), ("dpmm", 1), ("memory-bank", 0), ("memory-bank", 1)]
    assert [run["request"]["maps"] for run in runs] == [*MAPS] * 4
    for run in runs:
        assert run["metrics"]["conventions"]["tissue"]["auroc"] > (
            0.5 if run["request"]["maps"] == "raw" else 0.7
        )
        assert run["metrics"]["lesions"]["scans_with_lesion"] == 1
        assert run["metrics"]["conventions"]["tissue"]["lesion_pixels"] == ill.lesion.sum()
        assert run["fit_seconds"] > 0
        # The scores of patches are computed for the first map alone.
        assert (run["score_ms_a_slice"] is None) == (run["request"]["maps"] == "either")
        assert run["features_cached"]
    # Seeds give other models, and a bank of 300 patches is larger than 30 components.
    assert (
        runs[0]["metrics"]["conventions"]["tissue"] != runs[2]["metrics"]["conventions"]["tissue"]
    )
    assert runs[4]["model_bytes"] > runs[0]["model_bytes"] > 1000
    # The maps of one fit.
    assert runs[0]["fit_seconds"] == runs[1]["fit_seconds"]
    assert (
        runs[0]["metrics"]["conventions"]["tissue"] != runs[1]["metrics"]["conventions"]["tissue"]
    )
    # Embedded once, not by each run.
    assert 28 < result["features"]["slices"] <= 4 * 28
    left = sorted(path.name for path in (out / "runs").iterdir())
    expected = [
        f"lgg-{method}-{seed}-{maps}.json" for method in METHODS for seed in (0, 1) for maps in MAPS
    ]
    assert left == sorted([*expected, "lgg-features.json"])


def test_finished_runs_are_not_made_again(finished, data, backbone, cache, monkeypatch):
    out, result = finished
    monkeypatch.setattr(bench_module, "fit", None)
    monkeypatch.setattr(bench_module, "evaluate", None)
    running = bench(
        lgg_split(data), METHODS, [0, 1], out, backbone=backbone, maps=MAPS, cache=cache
    )
    assert drain(running) == result


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
        drain(
            bench(
                split, methods, [0], out,
                backbone=backbone, maps=MAPS, cache=cache, overwrite=overwrite,
            )
        )  # fmt: skip


def test_a_run_stopped_after_its_fit_is_only_evaluated(
    finished, data, backbone, cache, tmp_path, monkeypatch
):
    arguments = (lgg_split(data), {"dpmm": SMALL}, [0], tmp_path)
    running = bench(*arguments, backbone=backbone, maps=["either"], cache=cache)
    for progress in running:
        if progress.step == "dpmm, seed 0, either: Evaluating":
            break
    running.close()
    assert not (tmp_path / "runs" / "lgg-dpmm-0-either.json").exists()
    monkeypatch.setattr(bench_module, "fit", None)
    result = drain(bench(*arguments, backbone=backbone, maps=["either"], cache=cache))
    _, whole = finished
    assert (
        result["runs"][0]["metrics"]["conventions"]["tissue"]
        == whole["runs"][1]["metrics"]["conventions"]["tissue"]
    )
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["lgg-dpmm-0-either.json"]
    # Nothing was left to embed, so nothing is said of how long that takes.
    assert result["features"] is None


def test_the_table_holds_means_and_deviations(finished):
    _, result = finished
    lines = bench_table(result).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:6]] == [
        ["| `dpmm` (components=30, epochs=1, max_patches=6000)", "raw"],
        ["| `dpmm` (components=30, epochs=1, max_patches=6000)", "either"],
        ["| `memory-bank` (patches=300)", "raw"],
        ["| `memory-bank` (patches=300)", "either"],
    ]
    aurocs = [run["metrics"]["conventions"]["tissue"]["auroc"] for run in result["runs"][:4:2]]
    mean, deviation = np.mean(aurocs), abs(aurocs[0] - aurocs[1]) / np.sqrt(2)
    assert f"| {mean:.3f} ± {deviation:.3f} |" in lines[2]
    assert "over the seeds 0, 1" in lines[7]
    assert "above the threshold of 1 % FPR" in lines[7] and "1 of 1 scans have a lesion" in lines[7]
    alone = bench_table({**result, "runs": result["runs"][:1]})
    assert "±" not in alone and "Seed 0." in alone


def test_remembered_scores_are_those_of_the_model():
    model = new_normative("memory-bank", 0, {"patches": 20})
    features = FeatureSet(Context(), (6,))
    values = np.random.default_rng(0).normal(size=(3, 6, 5, 5)).astype(np.float16)
    mask = np.ones((3, 5, 5), dtype=bool)
    features.add(values, mask)
    list(model.fit(features, features))
    scores = {}
    again = _Remembering(model, scores)
    for part, inside, _ in features.transformed(size=1):
        tissue = torch.from_numpy(inside)
        expected = model.score_tissue(part, tissue)
        assert torch.equal(again.score_tissue(part, tissue), expected)
        assert torch.equal(again.score_tissue(part, tissue), expected)
    assert len(scores) == 3


def test_baselines_need_no_model(data, backbone, cache, tmp_path):
    methods = {"mean": {}, "brightness": {}, "asymmetry": {}}
    maps = ["raw", "none", "bright"]
    running = bench(
        lgg_split(data), methods, [0, 1], tmp_path, backbone=backbone, maps=maps, cache=cache
    )
    runs = drain(running)["runs"]
    made = [tuple(run["request"][name] for name in ("method", "seed", "maps")) for run in runs]
    assert made == [
        *(("mean", seed, name) for seed in (0, 1) for name in maps),
        *((method, 0, name) for method in ("brightness", "asymmetry") for name in maps[:2]),
    ]
    found = {
        made: run["metrics"]["conventions"]["tissue"]["auroc"]
        for made, run in zip(made, runs, strict=True)
    }
    # The lesion lies on one side, and is not the brightest tissue.
    assert found["asymmetry", 0, "none"] > found["brightness", 0, "none"]
    assert runs[-1]["model_bytes"] == runs[-1]["fit_seconds"] == 0


def test_a_table_in_a_readme_is_replaced(finished):
    table = bench_table(finished[1])
    place = (
        "# Figures\n\n<!-- lgg table: made by napari-dino-uad bench lgg -->\nold\n"
        "<!-- end of lgg table -->\n\nMore.\n"
    )
    text = replace_section(place, "lgg", table)
    assert read_section(text, "lgg") == table
    assert text.startswith("# Figures") and text.endswith("More.\n") and "\nold\n" not in text
    assert replace_section(text, "lgg", table) == text
    with pytest.raises(InputError, match="no place for the table; put the two lines"):
        read_section(text, "oct")


def test_docs_hold_the_committed_tables():
    readme = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
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
        "--seeds", "3", "--maps", "none", "--set", "memory-bank.patches=200",
        "--readme", str(readme),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "`memory-bank` (patches=200)" in result.output
    assert "`memory-bank` (patches=200)" in readme.read_text()
    with (tmp_path / "out" / "lgg.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["method"], row["seed"], row["maps"]) == ("memory-bank", "3", "none")
    saved = json.loads((tmp_path / "out" / "lgg.json").read_text())
    assert float(row["auroc"]) == saved["runs"][0]["metrics"]["conventions"]["tissue"]["auroc"]
    assert (tmp_path / "out" / "lgg.md").read_text() == bench_table(saved) + "\n"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--methods", "magic"], "There is no method 'magic'"),
        (["--seeds", "a"], "Seeds must be whole numbers"),
        (["--methods", "dpmm", "--set", "ar.epochs=2"], "one of dpmm, got 'ar.epochs=2'"),
        (["--methods", ""], "at least one method"),
        (["--maps", "red"], "There is no map 'red'; choose from raw, either"),
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
