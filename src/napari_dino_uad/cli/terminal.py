"""Terminal output: results, progress with the time left, and errors as one sentence.

Results go to the standard output, everything else to the standard error, so that scripts can read
the results alone.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from napari_dino_uad.core.errors import InputError, sentence

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from rich.table import Table

    from napari_dino_uad.core.progress import Progress

__all__ = [
    "BAD_INPUT",
    "INTERRUPTED",
    "ProgressBars",
    "SentenceGroup",
    "new_table",
    "note",
    "output",
    "progress_bars",
    "sentence",
    "writable_file",
    "writable_folder",
]

BAD_INPUT = 2
INTERRUPTED = 130

# Width of a table in a pipe or file: as much as a page or an editor shows without wrapping.
_PIPE_COLUMNS = 120


class SentenceGroup(TyperGroup):
    """Commands whose expected errors end in one sentence and an exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (InputError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                # The reader of our output has closed it, as `head` does; typer exits quietly.
                raise
            typer.echo(f"Error: {sentence(error)}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as error:
            typer.echo("Stopped. Files written so far are complete.", err=True)
            raise typer.Exit(INTERRUPTED) from error


def note(text: str) -> None:
    """Print a message for the user on the standard error."""
    typer.echo(text, err=True)


def output() -> Console:
    """Return the console for results, on the standard output."""
    from rich.console import Console

    # Look at the stream on every call, because a test or a caller may replace it.
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(width=width, highlight=False, markup=False)


# Characters of a number in a table.
_NUMBER_WIDTH = 6


def new_table(*columns: str, title: str | None = None) -> Table:
    """Create a table; columns whose name ends in a space are text, the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        text = column.endswith(" ")
        # A number is never broken over two lines; names are, where the window is narrow.
        table.add_column(
            column.rstrip(),
            justify="left" if text else "right",
            overflow="fold",
            min_width=None if text else _NUMBER_WIDTH,
        )
    return table


class ProgressBars:
    """Progress bars, one for each step of a pipeline, with the time left.

    Call it with every `Progress`. If the standard error is not a terminal, each step is printed as
    a line instead.
    """

    def __init__(self, bars: RichProgress | None) -> None:
        self._bars = bars
        self._step: str | None = None
        self._task: TaskID | None = None

    def __call__(self, progress: Progress) -> None:
        """Show a `Progress`."""
        if progress.note:
            note(progress.note)
        new = progress.step != self._step
        if self._bars is None:
            if new:
                note(progress.step)
                self._step = progress.step
            return
        if new:
            self.finish()
            self._step = progress.step
            self._task = self._bars.add_task(
                progress.step, total=progress.total or None, detail=progress.detail
            )
        assert self._task is not None
        self._bars.update(
            self._task,
            completed=progress.done,
            total=progress.total or None,
            detail=progress.detail,
        )

    def finish(self) -> None:
        """Fill the bar of the current step, which has ended."""
        if self._bars is None or self._task is None:
            return
        total = self._bars.tasks[self._bars.task_ids.index(self._task)].total
        self._bars.update(self._task, completed=total or 1, total=total or 1, detail="")
        self._task = None


@contextmanager
def progress_bars() -> Iterator[ProgressBars]:
    """Show progress bars on the standard error while a pipeline runs."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield ProgressBars(None)
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        speed_estimate_period=60,
    ) as bars:
        shown = ProgressBars(bars)
        yield shown
        shown.finish()


def writable_folder(folder: Path) -> Path:
    """Create a folder and check that it is writable, before long work begins.

    Raises
    ------
    InputError
        If the path is a file, or the folder cannot be created or written to.
    """
    import tempfile

    from napari_dino_uad.core.storage.atomic import writing
    from napari_dino_uad.core.storage.folders import own_folder
    from napari_dino_uad.core.storage.temporary import sweep

    if folder.exists() and not folder.is_dir():
        raise InputError(f"Expected a folder for the results, got the file {folder}; name another.")
    with writing(folder):
        own_folder(folder)
        # Leftovers of killed runs go, whether this run writes anything or not.
        sweep(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def writable_file(path: Path, suffix: str) -> Path:
    """Check that a file can be written later, before long work begins.

    Raises
    ------
    InputError
        If the file has another suffix, the path is a folder, or its folder cannot be created or
        written to.
    """
    if path.suffix != suffix:
        raise InputError(f"The file must end in {suffix}, got {path.name}; rename it.")
    if path.is_dir():
        raise InputError(f"Expected the name of a file, got the folder {path}; add a file name.")
    writable_folder(path.parent)
    return path
