"""`failures` and `report`: what a model missed, and all its figures, from results on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dino_uad.cli.terminal import new_table, output, progress_bars

__all__ = ["register"]

Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder that evaluate wrote.")]
MovedTo = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where scans and masks are now, if they were moved."),
]

_MOST = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("failures")(_failures)
    app.command("report")(_report)


def _failures(
    folder: Results,
    most: Annotated[
        int, typer.Option("--most", metavar="N", min=1, help="How many to list and to draw.")
    ] = _MOST,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw the worst cases into this .png or .svg file."),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also draw cases chosen at random, with their maps, into this .png or .svg file.",
        ),
    ] = None,
    scans: MovedTo = None,
) -> None:
    """List missed lesions and false alarms, the largest first, without computing again."""
    from napari_dino_uad.core.evaluation.folder import read_evaluation

    results = read_evaluation(folder)
    notes = results.notes()
    found = results.failures
    table = new_table("case ", "failure ", "size", "peak score", "slice", "note ")
    for one in found[:most]:
        table.add_row(
            one.case, one.kind, one.size_text, f"{one.peak:.2f}",
            str(one.voxel[0]), notes.get(one.case, ""),
        )  # fmt: skip
    console = output()
    lesions = results.metrics["lesions"]
    console.print(table)
    missed = sum(one.kind == "missed lesion" for one in found)
    alarms = len(found) - missed
    told = f"{missed} of {lesions['lesions']} lesions missed and {alarms} false alarm"
    told += f"{'' if alarms == 1 else 's'} in {len(results.rows)} scans"
    rate = f"{lesions['rate']:.0%} FPR ({lesions['rule']})"
    console.print(f"{told} at {rate}.", soft_wrap=True)
    if sheet is not None:
        from napari_dino_uad.core.evaluation.pictures import contact_sheet
        from napari_dino_uad.core.progress import drain

        with progress_bars() as bars:
            names = drain(contact_sheet(results, sheet, count=most, scans=scans), bars)
        console.print(f"{len(names)} cases in {sheet}", soft_wrap=True)
    if samples is not None:
        from napari_dino_uad.core.evaluation.samples import sample_grid
        from napari_dino_uad.core.progress import drain

        with progress_bars() as bars:
            names = drain(sample_grid(results, samples, count=most, scans=scans), bars)
        console.print(f"{len(names)} cases in {samples}", soft_wrap=True)


def _report(folder: Results, scans: MovedTo = None) -> None:
    """Write evaluation.html and the curves into a folder of results, without computing again."""
    from napari_dino_uad.core.evaluation.folder import read_evaluation
    from napari_dino_uad.core.evaluation.page import write_evaluation_report
    from napari_dino_uad.core.progress import drain

    with progress_bars() as bars:
        path = drain(write_evaluation_report(read_evaluation(folder), scans=scans), bars)
    output().print(f"Written: {path}", soft_wrap=True)
