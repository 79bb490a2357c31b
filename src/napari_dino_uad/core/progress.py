"""Progress of long work: pipelines are generators, and this is what they yield."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Inner", "Progress", "drain"]

T = TypeVar("T")
Y = TypeVar("Y")


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
    note : str
        What the user should hear of beside the progress, once; mostly nothing.
    """

    step: str
    done: int
    total: int
    detail: str = ""
    result: Any = None
    note: str = ""


class Inner(Generic[Y, T]):
    """A pipeline run by another one, which watches its steps and wants its result.

    Iterate over it to the end; then `value` is what the pipeline returned.

    Parameters
    ----------
    pipeline : generator
        The inner pipeline.
    """

    def __init__(self, pipeline: Generator[Y, None, T]) -> None:
        self._pipeline = pipeline
        self.value: T

    def __iter__(self) -> Iterator[Y]:
        self.value = yield from self._pipeline


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
    inner = Inner(pipeline)
    for progress in inner:
        if on_progress is not None:
            on_progress(progress)
    return inner.value
