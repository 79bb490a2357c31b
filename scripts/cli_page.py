"""Write docs/reference/command_line.md: every command with its arguments and options.

python scripts/cli_page.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command_line.md"


def page() -> str:
    """Return the page as typer writes it."""
    command = [sys.executable, "-m", "typer", "napari_dino_uad.cli", "utils", "docs"]
    options = ["--name", "napari-dino-uad", "--title", "Command line"]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [*command, *options], capture_output=True, encoding="utf-8", check=True, env=environment
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
