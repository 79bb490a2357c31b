"""`demo` and `phantom`: try the plugin without a scan of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dino_uad.cli.terminal import note, progress_bars, writable_folder

__all__ = ["register"]

# Of the first head with lesions: heads of another seed are other heads.
_ILL_SEED = 1000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("demo")(_demo)
    app.command("phantom")(_phantom)


def _demo(
    screenshot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save a screenshot of the window to FILE, then close."),
    ] = None,
) -> None:
    """Open napari on a synthetic head with lesions and their anomaly map."""
    from napari_dino_uad.demo import run

    with progress_bars() as bars:
        run(screenshot=screenshot, on_progress=bars)
    if screenshot is not None:
        note(f"{screenshot} written.")


def _phantom(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the heads.")],
    count: Annotated[int, typer.Option(min=1, help="Number of heads.")] = 8,
    lesions: Annotated[int, typer.Option(min=0, help="Lesions in each head.")] = 0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seed of the first head; the others count up from it. Without it 0, and "
            f"{_ILL_SEED} with lesions, so that no head is both healthy and ill.",
        ),
    ] = None,
) -> None:
    """Write synthetic heads: NAME_flair.nii.gz and, with lesions, NAME_lesion.nii.gz."""
    import numpy as np

    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.core.scans.phantom import make_phantom
    from napari_dino_uad.core.scans.volume import write_volume

    first = seed if seed is not None else _ILL_SEED if lesions else 0
    writable_folder(out)
    with progress_bars() as bars:
        for number in range(count):
            bars(Progress("Making synthetic heads", number, count))
            phantom = make_phantom(first + number, lesions)
            name = f"phantom-{first + number:03d}"
            write_volume(out / f"{name}_flair.nii.gz", phantom.volume.array, phantom.volume)
            if lesions:
                mask = phantom.lesion.astype(np.uint8)
                write_volume(out / f"{name}_lesion.nii.gz", mask, phantom.volume)
        bars(Progress("Making synthetic heads", count, count))
