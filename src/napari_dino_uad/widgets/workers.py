"""Running a pipeline beside the window: one job at a time, cancellable, stale answers dropped."""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import QObject, Signal

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress

__all__ = ["Job", "describe_error", "gui_threads", "import_torch", "writing"]

_log = logging.getLogger(__name__)

Pipeline = Callable[[], Generator[Progress, None, Any]]


def gui_threads() -> int:
    """Return how many threads a computation may use beside a live window.

    With every core given to torch the window and torch fight for the last one, and the same
    work takes about twice as long as with one core fewer.
    """
    return max(1, (os.cpu_count() or 2) - 1)


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of a worker, as a value.

    Raised in a worker it would go wrong twice: napari takes a RuntimeError, which torch raises
    for everything, for a deleted Qt object and ends without a word; and it shows any other
    error with its traceback, beside the sentence in the widget.
    """

    error: Exception


def describe_error(error: BaseException) -> str:
    """Turn an error into a sentence for the widget.

    What the user can mend is an `InputError` and says so itself. Anything else is ours: the log
    gets the traceback, the user a sentence.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The computer ran out of memory; close other programs or choose a smaller input."
    if isinstance(error, OSError) and getattr(error, "winerror", None) == 1114:
        return (
            "torch could not be loaded (WinError 1114); start napari from a fresh terminal, or "
            "install the Microsoft Visual C++ Redistributable."
        )
    _log.error("unexpected error", exc_info=error)
    return f"Unexpected error: {type(error).__name__}: {error}. The log has the details."


@contextmanager
def writing(folder: Path, file: Path | None = None) -> Iterator[None]:
    """See that a folder can be written to, and turn what the system says into a sentence.

    Parameters
    ----------
    folder : Path
        What the user chose; made if it is not there.
    file : Path, optional
        The one file that is to be written.

    Raises
    ------
    InputError
        In place of an `OSError`.
    """
    from safetensors import SafetensorError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if file is not None and file.is_dir():
            raise InputError(f"Cannot write {file}: it is a folder; choose the name of a file.")
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(_why_not_written(folder, error)) from error


def _why_not_written(folder: Path, error: Exception) -> str:
    blocking = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    if not blocking.is_dir():
        return f"Cannot write to {folder}: {blocking.name} is a file; choose a folder."
    number = getattr(error, "errno", None) or 0
    why = {
        errno.EACCES: "you may not write there; choose another folder",
        errno.EPERM: "you may not write there; choose another folder",
        errno.EROFS: "the disk is read-only; choose another folder",
        errno.ENOSPC: "the disk is full; free some space or choose another disk",
        errno.EDQUOT: "your share of the disk is full; free some space or choose another disk",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }.get(number, f"{getattr(error, 'strerror', None) or error}; choose another folder")
    return f"Cannot write to {folder}: {why}."


# Two jobs may be the first to want torch at once.
_IMPORTING = threading.Lock()


def import_torch() -> None:
    """Import torch so that it does not bring the window down.

    On Linux, Mesa draws through LLVM in a shared library, and triton, which torch loads where it
    is installed, brings an LLVM of its own: loaded second, it ends the process with a
    segmentation fault. Only compiled models need triton, and there are none here. That torch is
    imported already does not help: it loads triton only when torchvision asks for its compiler.
    """
    with _IMPORTING:
        maps = Path("/proc/self/maps")
        clash = (
            "triton" not in sys.modules
            and maps.exists()
            and "libLLVM" in maps.read_text(encoding="utf-8", errors="replace")
        )
        if clash:
            sys.modules["triton"] = None  # type: ignore[assignment]  # makes its import fail
        try:
            import torch

            if clash:
                from torch.utils._triton import has_triton_package

                # torch remembers the answer, and does not try again.
                has_triton_package()
        finally:
            if clash:
                del sys.modules["triton"]
    torch.set_num_threads(gui_threads())


class _ClosingWorker(GeneratorWorker):
    """A worker that closes its pipeline when it is cancelled, in the thread of the pipeline.

    Otherwise the pipeline would end when it is garbage-collected, perhaps never, and not save the
    training of a stopped fit.
    """

    def work(self) -> Any:
        """Run the pipeline."""
        try:
            return super().work()
        finally:
            self._gen.close()


class Job(QObject):
    """One running pipeline of a widget.

    A new `start` supersedes what ran before: the old pipeline stops at its next yield, and
    whatever it still sends is dropped. Every signal arrives on the GUI thread.

    Signals
    -------
    progressed : Progress
        One step of the pipeline.
    succeeded : object
        What the pipeline returned.
    failed : str
        A sentence for the user.
    stopped
        The job ended, whichever way.
    """

    progressed = Signal(object)
    succeeded = Signal(object)
    failed = Signal(str)
    stopped = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._worker: GeneratorWorker | None = None
        self._generation = 0
        self._step = ""
        self._step_began = (0.0, 0)
        # A thread may outlive the widget, and nobody is left to hear it.
        self.destroyed.connect(lambda: self._drop())

    @property
    def running(self) -> bool:
        """Whether a pipeline is at work whose answer is still wanted."""
        return self._worker is not None

    def start(self, pipeline: Pipeline) -> None:
        """Run a pipeline in a thread.

        Parameters
        ----------
        pipeline : callable
            Called in the thread; returns a generator of `Progress`. It reads no widget: what it
            needs was read before.
        """
        self.cancel()
        self._generation += 1
        generation = self._generation
        self._step = ""

        def run() -> Generator[Progress, None, Any]:
            try:
                import_torch()
                return (yield from pipeline())
            except Exception as error:  # noqa: BLE001 - whatever it is, the user hears of it
                return _Failure(error)

        worker = create_worker(run, _worker_class=_ClosingWorker)
        current: Callable[[], bool] = lambda: generation == self._generation  # noqa: E731
        worker.yielded.connect(lambda value: current() and self.progressed.emit(value))
        worker.returned.connect(lambda value: current() and self._end(value))
        self._worker = worker
        worker.start()

    def cancel(self) -> bool:
        """Stop what runs; the widget is free at once. Return whether anything ran."""
        if self._worker is None:
            return False
        self._drop()
        self.stopped.emit()
        return True

    def seconds_left(self, progress: Progress) -> float | None:
        """Estimate the seconds left in the present step from its pace so far."""
        now = time.monotonic()
        if progress.step != self._step:
            self._step, self._step_began = progress.step, (now, progress.done)
        began, first = self._step_began
        done = progress.done - first
        if progress.total <= 0 or done <= 0:
            return None
        return (now - began) * (progress.total - progress.done) / done

    def _drop(self) -> None:
        """Let go of what runs: it stops at its next yield, and what it still sends is dropped."""
        self._generation += 1
        if self._worker is not None:
            self._worker.quit()
            self._worker = None

    def _end(self, value: Any) -> None:
        self._worker = None
        if isinstance(value, _Failure):
            self.failed.emit(describe_error(value.error))
        else:
            self.succeeded.emit(value)
        self.stopped.emit()
