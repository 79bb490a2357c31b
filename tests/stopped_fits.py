"""What tests of resumed fits share."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from napari_dino_uad import drain
from napari_dino_uad.core.progress import Progress

T = TypeVar("T")


def notes(fitting: Generator[Progress, None, T]) -> tuple[list[str], T]:
    """Run a fit; return its notes and the model."""
    found: list[str] = []
    model = drain(fitting, lambda progress: found.append(progress.note))
    return [note for note in found if note], model
