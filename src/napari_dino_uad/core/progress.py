"""Progress reports, yielded by pipelines, which are generators."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
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
        Current activity, in words for the user ("Reading features").
    done, total : int
        Position within the step; `total` is 0 if unknown.
    detail : str
        Current scan, epoch or slice.
    result : object
        A partial result to show, such as the heatmap of some slices; or None.
    note : str
        A message for the user, shown once; usually empty.
    """

    step: str
    done: int
    total: int
    detail: str = ""
    result: Any = None
    note: str = ""


class Inner(Generic[Y, T]):
    """A pipeline run inside another one, which forwards its steps and needs its result.

    Iterate to the end; then `value` holds the pipeline's return value.

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

    If `on_progress` raises, or the user interrupts, the pipeline is closed at once.

    Parameters
    ----------
    pipeline : generator of Progress
        A pipeline such as `fit` or `detect`.
    on_progress : callable, optional
        Called with every `Progress`.

    Returns
    -------
    object
        The pipeline's return value.

    Examples
    --------
    >>> from napari_dino_uad import detect, load_model, read_volume
    >>> steps = []
    >>> pipeline = detect(read_volume("scan.nii.gz"), load_model("model.safetensors"))
    >>> anomaly = drain(pipeline, on_progress=lambda progress: steps.append(progress.step))
    >>> steps[-1]
    'Detecting'
    """
    inner = Inner(pipeline)
    with closing(pipeline):
        for progress in inner:
            if on_progress is not None:
                on_progress(progress)
    return inner.value
