"""`engines`: what can run a backbone on this machine, and what is fastest."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_dino_uad.cli.terminal import new_table, output

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("engines")(_engines)


def _engines(
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Forget all measurements; the next run measures again and may choose differently.",
        ),
    ] = False,
) -> None:
    """List the engines of this machine, and their measurements for each backbone."""
    from napari_dino_uad.core.backbones.engines.choice import available_engines, decide
    from napari_dino_uad.core.backbones.engines.measurement import forget as forget_all
    from napari_dino_uad.core.backbones.engines.measurement import remembered

    if forget:
        count = forget_all()
        typer.echo(f"{count} measurement{'s' if count != 1 else ''} forgotten.")
        return
    typer.echo("here      " + "; ".join(spec.words for spec in available_engines()))
    for where, measured in remembered():
        chosen = decide(measured, where["engines"])
        table = new_table(
            "engine ", "seconds per slice", "smallest cosine", "chosen ",
            title=f"{where['backbone']}, input {where['input_size']}, {where['processor']}",
        )  # fmt: skip
        for one in measured:
            table.add_row(
                one.engine,
                "" if one.seconds is None else f"{one.seconds:.3f}",
                one.failure if one.cosine is None else f"{one.cosine:.5f}",
                "yes" if one.engine == chosen else "" if one.faithful else "never",
            )
        output().print(table)
