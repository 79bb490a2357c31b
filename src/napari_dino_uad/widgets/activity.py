"""Progress of jobs in napari's activity dock."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.widgets.workers import Job

__all__ = ["Activity"]

# Pause between two updates.
_PAUSE_MS = 100


class Activity(QObject):
    """Shows a job in napari's activity dock while it runs.

    napari handles waiting events whenever it updates such a bar. So it is updated from a timer,
    where nothing else is half done.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._bar: Any = None
        self._latest: Progress | None = None
        self._updating = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE_MS)
        self._timer.timeout.connect(self._update)
        job.progressed.connect(self._on_progress)
        job.stopped.connect(self._on_stopped)

    def _on_progress(self, progress: Progress) -> None:
        self._latest = progress
        if not self._timer.isActive():
            self._timer.start()

    def _on_stopped(self) -> None:
        self._latest = None
        self._timer.stop()
        if not self._updating:
            self._close()

    def _update(self) -> None:
        progress = self._latest
        if progress is None or self._updating:
            return
        self._updating = True
        try:
            self._show(progress)
        finally:
            self._updating = False
        if self._latest is None:
            # The job has ended meanwhile.
            self._close()

    def _show(self, progress: Progress) -> None:
        text = progress.step if not progress.detail else f"{progress.step}: {progress.detail}"
        if self._bar is None:
            self._bar = _make_bar(text)
        if self._bar.desc.rstrip(": ") != text:
            self._bar.set_description(text)
        percent = 100 * progress.done // progress.total if progress.total > 0 else 0
        if percent < self._bar.n:
            # The next step begins.
            self._bar.reset()
        self._bar.update(percent - self._bar.n)

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def _make_bar(text: str) -> Any:
    from napari.utils import progress

    # The bar is drawn in the window only; the terminal gets nothing.
    return progress(total=100, desc=text, file=io.StringIO(), mininterval=0)
