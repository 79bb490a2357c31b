"""Runs pipelines in threads: one at a time for each job, cancellable; stale results are dropped."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import QObject, QTimer, Signal

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.storage.folders import own_folder

__all__ = ["Job", "describe_error", "gui_threads", "import_torch", "writing"]

_log = logging.getLogger(__name__)

Pipeline = Callable[[], Generator[Progress, None, Any]]


def gui_threads() -> int:
    """Return how many threads a computation may use while a window is open.

    If torch uses every core, it competes with the window for the last one, and the same work
    takes about twice as long as with one core fewer.
    """
    return max(1, (os.cpu_count() or 2) - 1)


@dataclass(frozen=True)
class _Failure:
    """An error that a worker returns as a value.

    Raising it in the worker would not do. napari takes any RuntimeError for a deleted Qt object
    and drops it silently, and torch raises RuntimeError for most of its errors. napari also shows
    every other error with its traceback, beside our sentence in the widget.
    """

    error: Exception


def describe_error(error: BaseException) -> str:
    """Turn an error into a sentence for the widget.

    An `InputError` already is a sentence that tells the user what to do. Any other error is a
    fault of the program: its traceback goes to the log.
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
    """Check that a folder can be written to, and turn errors of the system into a sentence.

    Parameters
    ----------
    folder : Path
        The folder the user chose; created if it does not exist.
    file : Path, optional
        The file to be written.

    Raises
    ------
    InputError
        In place of an `OSError`.
    """
    from safetensors import SafetensorError

    try:
        own_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if file is not None and file.is_dir():
            raise InputError(f"Cannot write {file}: it is a folder; choose the name of a file.")
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(_why_not_written(folder, error)) from error


def _why_not_written(folder: Path, error: Exception) -> str:
    blocking = next((one for one in (folder, *folder.parents) if _exists(one)), folder)
    if not blocking.is_dir():
        return f"Cannot write to {folder}: {blocking.name} is a file; choose a folder."
    number = getattr(error, "errno", None) or 0
    why = {
        errno.EACCES: "you have no permission to write there; choose another folder",
        errno.EPERM: "you have no permission to write there; choose another folder",
        errno.EROFS: "the disk is read-only; choose another folder",
        errno.ENOSPC: "the disk is full; free some space or choose another disk",
        errno.EDQUOT: "your disk quota is used up; free some space or choose another disk",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }.get(number, f"{getattr(error, 'strerror', None) or error}; choose another folder")
    return f"Cannot write to {folder}: {why}."


def _exists(path: Path) -> bool:
    """Return whether a path exists; one with a name that is too long does not."""
    try:
        return path.exists()
    except OSError:
        return False


# Two jobs may import torch at the same time.
_IMPORTING = threading.Lock()


def import_torch() -> None:
    """Import torch without triton if triton would crash the process.

    On Linux, Mesa draws with a shared LLVM library, and triton, which torch loads if it is
    installed, has an LLVM of its own. When triton's is loaded second, the process ends with a
    segmentation fault. Only compiled models need triton, and this plugin has none. It does not
    help if torch was imported before: torch loads triton only when torchvision asks for its
    compiler.
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

                # torch caches the answer and does not try again.
                has_triton_package()
        finally:
            if clash:
                del sys.modules["triton"]
    torch.set_num_threads(gui_threads())


# Name of the threads that run pipelines, those that run, and how long the process waits for them.
_THREAD = "pipeline"
_THREADS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_LAST_WAIT_S = 30.0


class _ClosingWorker(GeneratorWorker):
    """A worker with a thread of its own, which closes its pipeline when it is cancelled.

    Otherwise the pipeline would end when it is garbage-collected, perhaps never, and not save the
    training of a stopped fit.

    Attributes
    ----------
    waiting : list of callable
        The pipeline until it begins. napari keeps every worker and its function for ever, to list
        what has run, and pipelines hold scans and maps.
    """

    waiting: list[Pipeline]

    def start(self) -> None:
        """Start outside Qt's global thread pool.

        Qt scales images in that pool. If workers fill it and wait for Python's lock, which the
        main thread holds while it waits for Qt's image, napari hangs for ever: with two cores, two
        workers suffice.
        """
        self._worker_set.add(self)
        self._finished.connect(self._set_discard)
        thread = threading.Thread(target=self.run, name=_THREAD, daemon=True)
        _THREADS.add(thread)
        # In the event loop, so that signals connected after the start are not missed. PyQt keeps no
        # reference to the object of a method, but it does to a function.
        QTimer.singleShot(1, lambda: thread.start())

    def work(self) -> Any:
        """Run the pipeline."""
        try:
            return super().work()
        finally:
            self._gen.close()
            # Cancelled before it began, the pipeline is still there.
            self.waiting.clear()


def _end_threads() -> None:
    """Let running pipelines end at the end of the process.

    A thread that is killed inside torch takes the process down with it.
    """
    for worker in list(GeneratorWorker._worker_set):
        worker.quit()
    end = time.monotonic() + _LAST_WAIT_S
    for thread in list(_THREADS):
        if thread.is_alive():
            thread.join(max(0.0, end - time.monotonic()))


atexit.register(_end_threads)


class Job(QObject):
    """One running pipeline of a widget.

    A new `start` replaces the pipeline before: that one stops at its next yield, and its results
    are dropped. All signals arrive on the GUI thread.

    Signals
    -------
    progressed : Progress
        One step of the pipeline.
    succeeded : object
        Result of the pipeline.
    failed : str
        A sentence for the user.
    stopped
        The job ended: succeeded, failed or cancelled.
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
        # The thread may outlive the widget.
        self.destroyed.connect(lambda: self._drop())

    @property
    def running(self) -> bool:
        """Whether a pipeline is running whose result is still wanted."""
        return self._worker is not None

    def start(self, pipeline: Pipeline) -> None:
        """Run a pipeline in a thread.

        Parameters
        ----------
        pipeline : callable
            Called in the thread; returns a generator of `Progress`. It must not read widgets:
            values are read before it starts.
        """
        self.cancel()
        self._generation += 1
        generation = self._generation
        self._step = ""
        waiting = [pipeline]
        del pipeline

        def run() -> Generator[Progress, None, Any]:
            try:
                import_torch()
                return (yield from waiting.pop()())
            except Exception as error:  # noqa: BLE001 - every error is shown to the user
                return _Failure(error)

        worker = create_worker(run, _worker_class=_ClosingWorker)
        worker.waiting = waiting

        def on_yielded(value: Progress) -> None:
            # Qt may deliver the last steps after the result.
            if generation == self._generation and self.running:
                self.progressed.emit(value)

        def on_returned(value: Any) -> None:
            if generation == self._generation:
                self._end(value)

        worker.yielded.connect(on_yielded)
        worker.returned.connect(on_returned)
        self._worker = worker
        worker.start()

    def cancel(self) -> bool:
        """Stop the pipeline, without waiting for it; return whether one was running."""
        if self._worker is None:
            return False
        self._drop()
        self.stopped.emit()
        return True

    def seconds_left(self, progress: Progress) -> float | None:
        """Estimate the seconds left in the current step from its pace so far."""
        now = time.monotonic()
        if progress.step != self._step:
            self._step, self._step_began = progress.step, (now, progress.done)
        began, first = self._step_began
        done = progress.done - first
        if progress.total <= 0 or done <= 0:
            return None
        return (now - began) * (progress.total - progress.done) / done

    def _drop(self) -> None:
        """Make the pipeline stop at its next yield, and drop its results."""
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
