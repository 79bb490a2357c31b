"""The command line: it only translates between a shell and the core.

One module for each group of commands; what they share is in `terminal` and `options`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from napari_dino_uad import __version__
from napari_dino_uad.cli import (
    bench,
    cache,
    compare,
    detect,
    engines,
    evaluate,
    failures,
    fit,
    models,
    reproduce,
    synthetic,
)
from napari_dino_uad.cli.terminal import SentenceGroup

__all__ = ["app"]

app = typer.Typer(
    name="napari-dino-uad",
    cls=SentenceGroup,
    help="See where a scan departs from healthy. Research use only; not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-dino-uad {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


fit.register(app)
detect.register(app)
evaluate.register(app)
failures.register(app)
compare.register(app)
models.register(app)
engines.register(app)
cache.register(app)
bench.register(app)
reproduce.register(app)
synthetic.register(app)
