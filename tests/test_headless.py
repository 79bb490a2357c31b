"""The command line and the Python API on a machine without napari and Qt."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Of these only pyqtgraph is installed with the package, and nothing but a window may import it.
BLOCKED = ("napari", "magicgui", "qtpy", "superqt", "pyqtgraph", "PyQt5", "PyQt6", "PySide6")
WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing())
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *map(str, arguments)],
        capture_output=True, encoding="utf-8", check=False, timeout=300,
    )  # fmt: skip


def command(*arguments):
    return python("from napari_dino_uad.cli import app; app()", *arguments)


def test_every_command_shows_its_help():
    told = command("--help")
    assert told.returncode == 0, told.stderr
    for name in ("fit", "detect", "evaluate", "failures", "report", "compare", "bench"):
        assert name in told.stdout
        assert command(name, "--help").returncode == 0


@pytest.mark.slow
def test_fit_to_report_without_a_window(heads, tmp_path):
    """Five commands, each in a process of its own that imports torch."""
    model, ill = tmp_path / "m.safetensors", heads / "ill"
    patterns = ("--pattern", "*_flair.nii.gz", "--mask-pattern", "*_lesion.nii.gz")
    small = ("--set", "components=20", "--set", "epochs=1", "--set", "max_patches=5000")
    for arguments in (
        ("fit", heads / "healthy", "-o", model, *small),
        ("detect", ill / "p_flair.nii.gz", "-m", model, "-o", tmp_path / "d"),
        ("evaluate", ill, "-m", model, "-o", tmp_path / "e", *patterns, "--report"),
        ("failures", tmp_path / "e", "--sheet", tmp_path / "e" / "worst.png"),
    ):
        told = command(*arguments)
        assert told.returncode == 0, told.stderr
    assert (tmp_path / "e" / "evaluation.html").is_file()
    assert (tmp_path / "e" / "worst.png").is_file()


def test_the_api_imports_without_a_window():
    told = python(
        "import napari_dino_uad\n"
        "for name in napari_dino_uad.__all__: getattr(napari_dino_uad, name)\n"
        "print('torch' in sys.modules)"
    )
    assert told.returncode == 0, told.stderr


def test_the_demo_says_what_to_install():
    told = command("demo")
    assert told.returncode == 2
    assert "napari-dino-uad[pyqt6,demo]" in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr
