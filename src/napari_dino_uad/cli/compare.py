"""`compare`: evaluations of several models on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dino_uad.cli.terminal import new_table, output, writable_folder

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.compare import Comparison, Difference

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(_compare)


def _compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", help="Folders that evaluate wrote, two or more."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder for comparison.json, a CSV and curves."
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", min=1, help="Resamples of the cases.")
    ] = 1000,
) -> None:
    """Compare evaluations of the same cases; the others with the first, in pairs."""
    from napari_dino_uad.core.evaluation.compare import compare_evaluations, write_comparison
    from napari_dino_uad.core.evaluation.folder import read_evaluation
    from napari_dino_uad.core.evaluation.settings import CONVENTIONS

    if out is not None:
        writable_folder(out)
    found = compare_evaluations([read_evaluation(path) for path in folders], repeats=bootstrap)
    console = output()
    for convention in CONVENTIONS:
        console.print(_table(found, convention))
    console.print(
        f"Differences from {next(iter(found.folders))}, with 95 % intervals and two-sided p over "
        f"{bootstrap} resamples of the cases. Figures over tissue and over all pixels cannot be "
        "compared.",
        soft_wrap=True,
    )
    if out is not None:
        write_comparison(found, out)
        console.print(f"Written to {out}", soft_wrap=True)


def _table(found: Comparison, convention: str) -> Any:
    from napari_dino_uad.core.evaluation.texts import OVERALL, number

    table = new_table("evaluation ", *OVERALL.values(), "Dice at 1 %", title=f"Over {convention}")
    for name, folder in found.folders.items():
        pooled = folder.metrics["conventions"][convention]
        cells = [number(pooled[metric]) for metric in OVERALL]
        table.add_row(name, *cells, number(pooled["dice_at_fpr"].get("0.01")))
    for name, differences in found.differences[convention].items():
        wanted = (*OVERALL, "dice_at_fpr_0.01")
        table.add_row(f"{name}, difference", *(_text(differences.get(one)) for one in wanted))
    return table


def _text(one: Difference | None) -> str:
    if one is None:
        return ""
    # Two lines, so that five of them stand side by side.
    return f"{one.value:+.3f}, p {one.p:.3f}\n[{one.low:+.3f}, {one.high:+.3f}]"
