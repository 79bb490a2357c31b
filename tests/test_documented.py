"""What the documentation shows does run: every command, code block and `>>>` example.

Synthetic heads stand where the pages have a user's scans, under the same names.
"""

from __future__ import annotations

import csv
import doctest
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import napari_dino_uad
from napari_dino_uad.cli import app
from test_docs import PAGES, PROGRAM, commands_in

#: Commands that cannot run here, and where they are tried instead.
ELSEWHERE = {
    f"{PROGRAM} demo": "opens the window: tests/e2e/test_demo.py",
    f"{PROGRAM} backbones download": "needs a network: tests/core/backbones/test_backbone_hub.py",
    f"{PROGRAM} bench": "needs data that is not public as files: tests/core/bench/test_bench.py",
    f"{PROGRAM} reproduce": "needs a data set: tests/core/bench/test_reproduce.py",
    f"{PROGRAM} fit scans --out model.safetensors --scheduler": "tests/core/test_crew.py",
}
#: What a reader fills in.
FILLED_IN = {
    "SCANS ...": "SCANS --pattern '*_flair.nii.gz' --mask-pattern '*_lesion.nii.gz'",
    "info MODEL": "info model.safetensors",
}
#: In the order in which a reader needs them; the reference lists options alone.
ORDER = [
    "README.md", "fit.md", "evaluate.md", "compare.md", "failures.md", "layouts.md", "cluster.md",
    "faq.md", "install.md", "first_scan.md", "reproduce.md", "benchmarks.md", "CONTRIBUTING.md",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, heads):
    """A folder with scans under the names that the pages use."""
    place = tmp_path_factory.mktemp("documented")
    healthy, ill = heads / "healthy", heads / "ill"
    for name in ("HEALTHY", "healthy", "other_healthy", "scans", "lgg/train", "lgg/valid"):
        shutil.copytree(healthy, place / name)
    for name in ("ill", "SCANS", "lgg/test"):
        shutil.copytree(ill, place / name)
    for part in ("train", "valid"):
        for scan in (place / "lgg" / part).glob("*_flair.nii.gz"):
            no_lesion(scan, ill / "p_lesion.nii.gz")
    shutil.copy(ill / "p_flair.nii.gz", place / "scan.nii.gz")
    write_table(place / "cohort.csv")
    write_bids(place / "bids", ill)
    return place


def no_lesion(scan: Path, like: Path) -> None:
    """Write an empty mask beside a scan."""
    from napari_dino_uad import read_volume, write_volume

    mask = read_volume(like)
    write_volume(
        scan.with_name(scan.name.replace("_flair", "_lesion")), 0 * mask.array.astype("uint8"), mask
    )


def write_table(path: Path) -> None:
    scans = sorted((path.parent / "healthy").glob("*_flair.nii.gz"))
    rows = [("train", f"healthy/{scan.name}", "", "yes") for scan in scans]
    rows.append(("test", "ill/p_flair.nii.gz", "ill/p_lesion.nii.gz", "no"))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("split", "scan", "mask", "healthy"), *rows])


def write_bids(root: Path, ill: Path) -> None:
    stem = "sub-01_ses-1"
    scan = root / "sub-01/ses-1/anat" / f"{stem}_FLAIR.nii.gz"
    mask = root / "derivatives/manual/sub-01/ses-1/anat" / f"{stem}_label-lesion_mask.nii.gz"
    for path, source in ((scan, "p_flair.nii.gz"), (mask, "p_lesion.nii.gz")):
        path.parent.mkdir(parents=True)
        shutil.copy(ill / source, path)
    description = {"Name": "heads", "BIDSVersion": "1.9.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))


def documented() -> list[str]:
    """Return the commands of all pages, each once, in the order a reader meets them."""
    pages = {page.name: page for page in PAGES if "reference" not in page.parts}
    names = [*ORDER, *sorted(set(pages) - set(ORDER))]
    commands = [one for name in names for one in commands_in(pages[name])]
    return list(dict.fromkeys(" ".join(one.split()) for one in commands))


def blocks() -> list[str]:
    """Return the Python blocks of all pages, each once."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    found = [block for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.S)]
    return list(dict.fromkeys(found))


@pytest.mark.slow
@pytest.mark.backbone
def test_every_command_of_the_pages_runs(place, monkeypatch):
    """Fits five models with the settings users get, which takes most of a minute each."""
    monkeypatch.chdir(place)
    ran = 0
    for command in documented():
        if any(command.startswith(one) for one in ELSEWHERE):
            continue
        for shown, meant in FILLED_IN.items():
            command = command.replace(shown, meant)
        prepare(place, command)
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        ran += 1
    assert ran > 15
    assert (place / "worst.png").stat().st_size > 0


def prepare(place: Path, command: str) -> None:
    """Make what a command takes from its reader: models under names of their own, results."""
    for name in ("a", "b", "dpmm"):
        if f"{name}.safetensors --out" in command and not (place / f"{name}.safetensors").exists():
            shutil.copy(place / "model.safetensors", place / f"{name}.safetensors")
    if " other_results" in command:
        shutil.copytree(place / "results", place / "other_results", dirs_exist_ok=True)


@pytest.mark.slow
@pytest.mark.backbone
def test_every_python_block_of_the_pages_runs(place, monkeypatch):
    monkeypatch.chdir(place)
    assert blocks()
    for block in blocks():
        exec(compile(block, "block", "exec"), {})


@pytest.mark.slow
@pytest.mark.backbone
def test_the_examples_of_the_public_functions_run(place, monkeypatch):
    monkeypatch.chdir(place)
    names = [name for name in napari_dino_uad.__all__ if name != "__version__"]
    # Those that make what the others read come first.
    names.sort(key=lambda name: {"fit": 0, "evaluate": 1}.get(name, 2))
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    for name in names:
        public = getattr(napari_dino_uad, name)
        module = importlib.import_module(public.__module__)
        [examples] = finder.find(public, name, globs=dict(vars(module)))
        assert examples.examples, f"{name} has no example"
        found = runner.run(examples)
        assert found.failed == 0, name
