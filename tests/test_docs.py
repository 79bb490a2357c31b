"""The documentation: builds without a warning, and its commands exist."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from napari_dino_uad.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = "napari-dino-uad"


def commands_in(page: Path) -> list[str]:
    """Return the commands of a page that begin with our program, one for each."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    found = [line for line in lines if line.startswith(f"{PROGRAM} ")]
    found += re.findall(rf"`({PROGRAM} [^`]+)`", text)
    # "KEY" and "[MODEL]" stand for what the reader fills in.
    return [line.split(" #")[0].strip() for line in found if "[OPTIONS]" not in line]


COMMANDS = sorted({(page.name, one) for page in PAGES for one in commands_in(page)})


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_of_the_documentation_exist(page, command):
    _, *words = shlex.split(command)
    found = typer.main.get_command(app)
    while words and hasattr(found, "commands") and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    if not words or words == ["--help"]:
        return
    assert not hasattr(found, "commands") or words[0].startswith("-"), f"no command {words[0]}"
    found.make_context(command, words)


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 20


def test_the_page_of_commands_is_up_to_date():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from cli_page import PAGE, page
    finally:
        sys.path.pop(0)
    assert PAGE.read_text(encoding="utf-8") == page(), "run python scripts/cli_page.py"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "read_volume" in (tmp_path / "site/reference/python/index.html").read_text("utf-8")


def test_a_report_of_the_system_names_nobody():
    result = CliRunner().invoke(app, ["info", "--system"])
    assert result.exit_code == 0
    assert "torch" in result.output
    for private in (str(Path.home()), platform.node(), str(ROOT)):
        assert private not in result.output
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in result.output
    both = CliRunner().invoke(app, ["info", "model.safetensors", "--system"])
    assert both.exit_code == 2
    assert "leave one out" in both.stderr
