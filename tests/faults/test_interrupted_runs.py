"""Runs that are killed, run twice at once or lose files: the next one gives what one alone gives.

NAPARI_DINO_UAD_KILLS sets how often each command is killed: 2 times if it is not set, more on
demand.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_dino_uad import load_model
from napari_dino_uad.cli.resume import Request, is_finished
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.maps.finding_settings import DEFAULT_RATE
from napari_dino_uad.core.scans.phantom import Phantom
from napari_dino_uad.core.scans.volume import volume_from_array, write_volume
from napari_dino_uad.core.storage.records import read_json, sealed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="starts processes by a fork server")

KILLS = int(os.environ.get("NAPARI_DINO_UAD_KILLS", "2"))
SETTINGS = ["--set=components=12", "--set=epochs=1", "--set=max_patches=3000"]

# Has the libraries loaded, so that a run takes a second and is killed in the middle of its work.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["torch", "timm", "SimpleITK", "sklearn.cluster", "napari_dino_uad.cli", __name__]
)


def _main(arguments: list[str], cache: str, log: str, limit_gb: str) -> None:
    import torch

    from napari_dino_uad.cli import app

    torch.set_num_threads(1)
    os.environ["NAPARI_DINO_UAD_CACHE"] = cache
    os.environ["NAPARI_DINO_UAD_CACHE_GB"] = limit_gb
    os.environ["NAPARI_DINO_UAD_ENGINE"] = "torch float32"
    sys.stdout = sys.stderr = Path(log).open("w", encoding="utf-8")
    app(arguments)


class Runner:
    """Starts commands that share a cache."""

    def __init__(self, folder: Path, limit_gb: float = 20.0) -> None:
        self.folder, self.cache, self.limit_gb = folder, folder / "cache", limit_gb

    def start(self, *words: object):
        log = self.folder / f"log-{time.monotonic_ns()}"
        texts = [str(one) for one in words]
        process = context.Process(
            target=_main, args=(texts, str(self.cache), str(log), str(self.limit_gb))
        )
        process.log = log
        process.start()
        return process

    def run(self, *arguments: object, code: int = 0) -> str:
        process = self.start(*arguments)
        process.join(240)
        told = process.log.read_text(encoding="utf-8")
        assert process.exitcode == code, told
        return told


def _slab(path: Path, head: Phantom, middle: int) -> None:
    """Write eight slices of a head, and the mask of its lesions where it has some."""
    part = slice(middle - 4, middle + 4)
    volume = volume_from_array(head.volume.array[part], head.volume.spacing_mm)
    write_volume(path, volume.array, volume)
    if head.lesion.any():
        mask_path = path.with_name(path.name.replace("flair", "lesion"))
        write_volume(mask_path, head.lesion[part].astype(np.uint8), volume)


@pytest.fixture(scope="module")
def scans(tmp_path_factory, healthy, ill) -> Path:
    """Thin slabs of heads: healthy/*.nii.gz, and ill/* with masks."""
    folder = tmp_path_factory.mktemp("scans")
    for number, head in enumerate(healthy[:3]):
        _slab(folder / "healthy" / f"s{number}_flair.nii.gz", head, len(head.volume.array) // 2)
    sick = np.flatnonzero(ill.lesion.any(axis=(1, 2)))
    for number, middle in enumerate((sick[0], sick[-1]), 3):
        _slab(folder / "ill" / f"s{number}_flair.nii.gz", ill, int(middle))
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, scans) -> Path:
    """Results of runs that nothing disturbed: m.safetensors, detect/ and evaluate/."""
    folder = tmp_path_factory.mktemp("alone")
    runner = Runner(folder)
    for name in ("fit", "detect", "evaluate", "export"):
        runner.run(*_command(name, scans, folder, folder))
    return folder


def _command(name: str, scans: Path, out: Path, alone: Path) -> list[object]:
    model = ["--model", alone / "m.safetensors"]
    ill = [scans / "ill", "--pattern", "*_flair.nii.gz"]
    return {
        "fit": ["fit", scans / "healthy", "--out", out / "m.safetensors", *SETTINGS],
        "detect": ["detect", *ill, *model, "--out", out / "detect"],
        "export": [
            "detect", *ill, *model, "--out", out / "export", "--report", "--components",
            "--likelihoods", "2",
        ],
        "evaluate": [
            "evaluate", *ill, "--mask-pattern", "*_lesion.nii.gz", *model,
            "--out", out / "evaluate",
        ],
    }[name]  # fmt: skip


def assert_same(name: str, first: Path, second: Path) -> None:
    """Compare what a command wrote; times of the clock may differ."""
    if name == "fit":
        one, two = (load_model(folder / "m.safetensors") for folder in (first, second))
        for key, tensor in one.normative.tensors().items():
            np.testing.assert_array_equal(tensor.numpy(), two.normative.tensors()[key].numpy())
        # Cached slices are scored in larger batches, whose sums round otherwise.
        for key, values in one.calibration.tensors().items():
            np.testing.assert_allclose(values, two.calibration.tensors()[key], atol=1e-4)
    elif name in ("detect", "export"):
        names = {path.name for path in (first / name).iterdir()}
        assert names == {path.name for path in (second / name).iterdir()}
        for image in (one for one in names if one.endswith(".nii.gz")):
            found, expected = (
                sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name / image)))
                for folder in (first, second)
            )
            np.testing.assert_allclose(found, expected, atol=1e-4)
    else:
        found, expected = (
            json.loads((folder / name / "metrics.json").read_text()) for folder in (first, second)
        )
        ours, theirs = (one["conventions"]["tissue"] for one in (found, expected))
        assert ours["pixels"] == theirs["pixels"]
        assert ours["auroc"] == pytest.approx(theirs["auroc"], abs=1e-5)
        rows = [
            list(csv.DictReader((folder / name / "cases.csv").read_text().splitlines()))
            for folder in (first, second)
        ]
        assert [row["case"] for row in rows[0]] == [row["case"] for row in rows[1]]


# A cache of 1 MB has room for one scan, so that each of the others evicts one.
@pytest.mark.parametrize(
    ("name", "limit_gb"),
    [("fit", 20), ("detect", 20), ("evaluate", 20), ("export", 20), ("evaluate", 0.001)],
)
def test_a_run_killed_at_any_moment_goes_on(name, limit_gb, scans, alone, tmp_path):
    chance = random.Random(os.environ.get("NAPARI_DINO_UAD_SEED", name))
    runner = Runner(tmp_path, limit_gb)
    command = _command(name, scans, tmp_path, alone)
    began = time.monotonic()
    runner.run(*command)
    whole = time.monotonic() - began
    for _ in range(KILLS):
        # Every run begins with nothing done, or with what the last one left.
        if chance.random() < 0.5:
            shutil.rmtree(runner.cache, ignore_errors=True)
        if name in ("detect", "export") and chance.random() < 0.5:
            for report in (tmp_path / name).glob("*.json"):
                report.unlink()
        process = runner.start(*command)
        process.join(chance.uniform(0, whole))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), process.log.read_text(encoding="utf-8")
    runner.run(*command)
    assert_same(name, tmp_path, alone)
    left = [
        path for path in tmp_path.rglob(".napari-dino-uad-*") if runner.cache not in path.parents
    ]
    assert not left
    cache = FeatureCache(runner.cache / "features")
    cache.clear()
    assert {path.name for path in cache.folder.glob("*")} <= {".lock", ".users"}


@pytest.mark.parametrize("name", ["fit", "detect"])
def test_two_runs_into_one_place(name, scans, alone, tmp_path):
    runner = Runner(tmp_path)
    command = _command(name, scans, tmp_path, alone)
    processes = [runner.start(*command) for _ in range(2)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0, process.log.read_text(encoding="utf-8")
    assert_same(name, tmp_path, alone)


def test_the_cache_is_cleared_during_a_fit(scans, alone, tmp_path):
    runner = Runner(tmp_path)
    process = runner.start(*_command("fit", scans, tmp_path, alone))
    cache = FeatureCache(runner.cache / "features")
    kept = 0
    while process.is_alive():
        cache.clear()
        kept = max(kept, cache.usage().in_use)
        time.sleep(0.01)
    assert process.exitcode == 0, process.log.read_text(encoding="utf-8")
    assert kept
    assert_same("fit", tmp_path, alone)


@pytest.fixture
def detected(alone, scans, tmp_path) -> tuple[Path, Path, Request]:
    """Return a copy of finished results, a scan, and what was asked for."""
    shutil.copytree(alone / "detect", tmp_path / "detect")
    request = Request.of(alone / "m.safetensors", DEFAULT_RATE, None)
    assert is_finished(tmp_path / "detect", "s3_flair", scans / "ill" / "s3_flair.nii.gz", request)
    return tmp_path / "detect", scans / "ill" / "s3_flair.nii.gz", request


@pytest.mark.parametrize("ending", ["_anomaly.nii.gz", "_findings.nii.gz", "_findings.csv"])
def test_a_damaged_result_is_made_again(detected, ending):
    folder, scan, request = detected
    path = folder / f"s3_flair{ending}"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for wrong in (b"", content[:-1], content[: len(content) // 2], bytes(flipped)):
        path.write_bytes(wrong)
        assert not is_finished(folder, "s3_flair", scan, request)
    path.unlink()
    assert not is_finished(folder, "s3_flair", scan, request)
    path.write_bytes(content)
    assert is_finished(folder, "s3_flair", scan, request)


def test_a_folder_in_place_of_a_result_is_named(detected, alone, scans, tmp_path):
    folder, _, _ = detected
    (folder / "s3_flair_anomaly.nii.gz").unlink()
    (folder / "s3_flair_anomaly.nii.gz").mkdir()
    (folder / "s4_flair_anomaly.nii.gz").write_bytes(b"")
    runner = Runner(tmp_path)
    told = runner.run(*_command("detect", scans, tmp_path, alone), code=2)
    assert "s3_flair_anomaly.nii.gz is a folder, but a file goes there" in told
    assert "Traceback" not in told
    assert (folder / "s4_flair_anomaly.nii.gz").stat().st_size > 1000


def test_no_json_in_place_of_a_report_ends_in_a_traceback(detected):
    folder, scan, request = detected
    report = folder / "s3_flair.json"
    whole = read_json(report)
    assert whole is not None
    others = [None, True, 5, -1, 1e400, "", "\ud800", [], [[]], {}, {"bytes": {}}]
    contents = [json.dumps(other) for other in others] + ["", "{", "[" * 100_000]
    for field in ("files", "scan", "scan_fingerprint", "model_sha256", "false_positive_rate"):
        for other in others:
            changed = {**whole, field: other}
            contents.append(json.dumps(changed))
            changed.pop("xxh3_128")
            contents.append(json.dumps(sealed(changed)))
        contents.append(json.dumps({key: value for key, value in whole.items() if key != field}))
    for content in contents:
        report.write_text(content)
        try:
            assert not is_finished(folder, "s3_flair", scan, request)
        except InputError as error:
            assert "is the result of another scan" in str(error)
            str(error).encode()
    report.write_text(json.dumps(whole))
    assert is_finished(folder, "s3_flair", scan, request)
