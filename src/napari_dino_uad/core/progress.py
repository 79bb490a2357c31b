"""Progress of long work: pipelines are generators, and this is what they yield."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Progress", "drain"]

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One step of a pipeline.

    Attributes
    ----------
    step : str
        What is being done, in words a user reads ("Reading features").
    done, total : int
        Position within the step; `total` is 0 where it is not known.
    detail : str
        The scan, epoch or slice in hand.
    result : object
        A partial result to show, such as the heatmap of some slices, or None.
    """

    step: str
    done: int
    total: int
    detail: str = ""
    result: Any = None


def drain(
    pipeline: Generator[Progress, None, T],
    on_progress: Callable[[Progress], None] | None = None,
) -> T:
    """Run a pipeline to its end and return its result.

    Parameters
    ----------
    pipeline : generator of Progress
        A pipeline such as `fit` or `detect`.
    on_progress : callable, optional
        Called with every `Progress`.

    Returns
    -------
    object
        What the pipeline returns.
    """
    while True:
        try:
            progress = next(pipeline)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        if on_progress is not None:
            on_progress(progress)
