"""Reads files in a thread while the window stays alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QProgressDialog, QWidget

__all__ = ["Cancelled", "read_beside"]

_Result = TypeVar("_Result")

# A dialog that flashes up for a small file would disturb.
_DIALOG_AFTER_S = 0.3
_POLL_MS = 15
_WIDTH = 380


class Cancelled(Exception):
    """The user does not want to open the file any more."""


class _Reading(Generic[_Result]):
    """A call in a thread, and what came of it.

    The thread knows nothing of Qt, so it may outlive the window.
    """

    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work = work
        self._results: list[_Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the window
            self._error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> _Result:
        if self._error is not None:
            raise self._error
        return self._results[0]


def read_beside(window: QWidget | None, what: str, work: Callable[[], _Result]) -> _Result:
    """Call a function in a thread, and return its result; the window is drawn meanwhile.

    The window takes no input until the result is there: from the first moment events of mouse and
    keyboard wait, and after 0.3 s a dialog with Cancel lies over it.

    Parameters
    ----------
    window : QWidget or None
        The window of napari; without one the function is simply called.
    what : str
        What is read, for the dialog.
    work : callable
        Called in the thread; must not touch layers or widgets.

    Raises
    ------
    Cancelled
        If the user pressed Cancel. The thread ends by itself, and its result is dropped.
    """
    if window is None:
        return work()
    reading = _Reading(work)
    _wait(reading)
    if not reading.done and not _wait_in_dialog(reading, window, what):
        raise Cancelled
    return reading.result()


def _wait(reading: _Reading[_Result]) -> None:
    """Wait a moment without a dialog; input events are delivered later."""
    loop = QEventLoop()
    began = time.monotonic()

    def poll() -> None:
        if reading.done or time.monotonic() - began > _DIALOG_AFTER_S:
            loop.quit()

    timer = QTimer()
    timer.timeout.connect(poll)
    timer.start(_POLL_MS)
    loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    timer.stop()


def _wait_in_dialog(reading: _Reading[_Result], window: QWidget, what: str) -> bool:
    """Wait with a dialog; return False if the user cancelled."""
    dialog = QProgressDialog(window)
    dialog.setWindowTitle("Opening")
    dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
    dialog.setAutoReset(False)
    dialog.setAutoClose(False)
    dialog.setRange(0, 0)
    room = _WIDTH - 60
    dialog.setLabelText(dialog.fontMetrics().elidedText(what, Qt.TextElideMode.ElideMiddle, room))
    dialog.setCancelButtonText("Cancel")
    dialog.setFixedWidth(_WIDTH)
    timer = QTimer(dialog)
    loop = QEventLoop()

    def poll() -> None:
        if reading.done or dialog.wasCanceled():
            loop.quit()

    timer.timeout.connect(poll)
    timer.start(_POLL_MS)
    dialog.show()
    loop.exec()
    timer.stop()
    cancelled = dialog.wasCanceled()
    dialog.hide()
    dialog.deleteLater()
    return not cancelled
