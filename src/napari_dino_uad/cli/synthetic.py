"""`demo` and `phantom`: trying it out without a scan of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("demo")(_demo)


def _demo(
    screenshot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a picture of the window there and close it."),
    ] = None,
) -> None:
    """Open napari on a synthetic head with lesions and their anomaly map."""
    from napari_dino_uad.demo import run

    run(screenshot=screenshot)
