"""The package as a whole: its layers, its manifest and its wheel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).resolve().parents[1]


def modules_after(code: str) -> set[str]:
    """Return the top-level names of all modules that a fresh Python holds after some code."""
    report = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"numpy", "torch", "SimpleITK", "timm", "napari", "qtpy", "scipy", "sklearn", "typer"}
    assert not modules_after("import napari_dino_uad") & heavy


def test_the_core_never_imports_the_viewer():
    names = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in sorted((ROOT / "src" / "napari_dino_uad" / "core").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert len(names) > 20
    code = "import " + ", ".join(names)
    assert not modules_after(code) & {"napari", "qtpy", "magicgui", "tqdm_qt", "PyQt5", "PyQt6"}


def test_the_command_line_does_not_import_the_viewer():
    assert not modules_after("import napari_dino_uad.cli") & {"napari", "qtpy", "torch"}


def test_reading_a_scan_does_not_import_torch(heads):
    path = heads / "ill" / "p_flair.nii.gz"
    code = (
        f"from napari_dino_uad.reader import get_reader; get_reader({str(path)!r})({str(path)!r})"
    )
    assert not modules_after(code) & {"torch", "timm", "napari"}


def test_manifest_is_valid_and_commands_exist():
    manifest = PluginManifest.from_file(ROOT / "napari.yaml")
    manifest.validate_imports()
    commands = {command.id for command in manifest.contributions.commands}
    used = {
        contribution.command
        for kind in ("widgets", "readers", "writers", "sample_data")
        for contribution in getattr(manifest.contributions, kind)
    }
    used |= {item.command for items in manifest.contributions.menus.values() for item in items}
    assert used == commands


def test_the_entry_point_leads_to_the_manifest():
    [entry] = [
        entry for entry in entry_points(group="napari.manifest") if entry.name == "napari-dino-uad"
    ]
    assert entry.value == "napari_dino_uad:napari.yaml"
    found = ROOT / "src" / "napari_dino_uad" / "napari.yaml"
    assert found.read_bytes() == (ROOT / "napari.yaml").read_bytes()


@pytest.mark.slow
def test_wheel_has_manifest_but_no_scan_or_weights(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("napari_dino_uad/napari.yaml") == (ROOT / "napari.yaml").read_bytes()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    assert "Classifier: Framework :: napari" in text
    required = [line for line in text.splitlines() if line.startswith("Requires-Dist")]
    assert not [line for line in required if "PyQt" in line and "extra ==" not in line]
    endings = (
        ".py",
        ".yaml",
        ".html",
        "py.typed",
        "bmad_pixel.json",
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "LICENSE",
    )
    assert all(name.endswith(endings) for name in names), names


@pytest.mark.slow
def test_the_source_package_builds_the_same_wheel_and_passes_twine(tmp_path):
    pytest.importorskip("twine")

    def build(*options):
        command = [sys.executable, "-m", "build", "--no-isolation", *options]
        subprocess.run(command, check=True, capture_output=True)

    build("-o", tmp_path / "both", ROOT)
    build("--wheel", "-o", tmp_path / "tree", ROOT)
    [packed] = (tmp_path / "both").glob("*.whl")
    [plain] = (tmp_path / "tree").glob("*.whl")
    with zipfile.ZipFile(packed) as one, zipfile.ZipFile(plain) as other:
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in one.namelist())
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *(tmp_path / "both").iterdir()],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_version_stands_in_one_place():
    import re
    from importlib.metadata import version

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1] == version("napari-dino-uad")


def test_a_release_has_absolute_addresses():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from release_readme import absolute, with_urls
    finally:
        sys.path.pop(0)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    released = absolute(readme, "owner/name", "v1.0.0")
    places = re.findall(r"\]\(([^)\s]+)\)", released)
    assert len(places) > 10
    assert all(one.startswith(("https://", "#")) for one in places)
    # Every picture and page is a file of the repository.
    prefixes = (
        "https://raw.githubusercontent.com/owner/name/v1.0.0/",
        "https://github.com/owner/name/blob/v1.0.0/",
    )
    ours = [one.removeprefix(prefix) for one in places for prefix in prefixes if prefix in one]
    assert ours and all((ROOT / one.partition("#")[0]).is_file() for one in ours)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    urls = tomllib.loads(with_urls(project, "owner/name"))["project"]["urls"]
    assert urls["Source"] == "https://github.com/owner/name"
