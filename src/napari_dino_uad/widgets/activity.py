"""Progress of jobs in napari's activity dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

if TYPE_CHECKING:
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.widgets.workers import Job

__all__ = ["Activity"]


class Activity(QObject):
    """Shows a job in napari's activity dock while it runs.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._bar: Any = None
        job.progressed.connect(self._on_progress)
        job.stopped.connect(self.close)

    def _on_progress(self, progress: Progress) -> None:
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

    def close(self) -> None:
        """Remove the bar."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def _make_bar(text: str) -> Any:
    import io

    from napari.utils import progress

    # The bar is drawn in the window only; the terminal gets nothing.
    return progress(total=100, desc=text, file=io.StringIO(), mininterval=0)
