"""Work for the processes of a crew; they import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from napari_dino_uad.core.errors import InputError


def times(factor: int, item: int) -> int:
    return factor * item


def refuse_three(_: object, item: int) -> int:
    if item == 3:
        raise InputError("Expected no 3, got 3; leave it out.")
    return item


def die_once(folder: Path, item: int) -> int:
    """Kill the process that works on item 2, but only the first time."""
    if item == 2:
        try:
            (folder / "died").touch(exist_ok=False)
        except FileExistsError:
            return item
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die(_: object, item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def sleep(folder: Path, item: int) -> int:
    (folder / f"{os.getpid()}").touch()
    time.sleep(600)
    return item
