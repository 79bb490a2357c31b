"""A reader's hands and eyes: mouse and keyboard in a real window, and a watch on its silence."""

from __future__ import annotations

import faulthandler
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog, QLineEdit, QPushButton, QWidget

__all__ = ["Reader", "Watchdog"]

_TICK_MS = 10
_SAMPLE_S = 0.01
_LONG_S = 120.0

# A line of a stack as the interpreter writes it, and packages whose time is not ours.
_LINE = re.compile(r'File "(.+)", line (\d+) in')
_OTHERS = ("napari", "vispy", "superqt", "app_model", "psygnal")


class Watchdog:
    """Measures how long the window does not answer, for each part of the work.

    A thread looks at what the window does meanwhile. Time in napari, vispy and Qt's painting counts
    as napari's, even if we asked for it: adding a layer, for instance.

    Attributes
    ----------
    worst : dict of str to tuple of float
        The longest silence in ms, and our share of it, by part.
    where : dict of str to str
        Our line of code that the longest silence of our own was spent in, by part.
    """

    def __init__(self) -> None:
        self.worst: dict[str, tuple[float, float]] = {}
        self.where: dict[str, str] = {}
        self._ours: dict[str, float] = {}
        self._part = "start"
        self._last = time.perf_counter()
        self._samples: list[tuple[bool, str]] = []
        self._main = threading.get_ident()
        self._stopped = threading.Event()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(_TICK_MS)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Count silences from now on as those of this part."""
        QApplication.processEvents()
        self._samples.clear()
        self._part, self._last = part, time.perf_counter()
        yield
        QApplication.processEvents()
        self._tick()
        self._part = "between"

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.stop()
        self._stopped.set()

    def report(self) -> str:
        """Return a table of the longest silences."""
        lines = [f"{'part':14s} {'worst':>6s} {'ours':>6s}  in ms"]
        for part, (silent, ours) in self.worst.items():
            lines.append(f"{part:14s} {silent:6.0f} {ours:6.0f}  {self.where.get(part, '')}")
        return "\n".join(lines)

    def _tick(self) -> None:
        now = time.perf_counter()
        silent = max(0.0, 1000 * (now - self._last) - _TICK_MS)
        samples, self._samples = self._samples, []
        mine = [where for ours, where in samples if ours]
        ours = silent * len(mine) / len(samples) if samples else 0.0
        if silent > self.worst.get(self._part, (0.0, 0.0))[0]:
            self.worst[self._part] = (silent, ours)
        if ours > self._ours.get(self._part, 0.0):
            self._ours[self._part] = ours
            self.where[self._part] = f"{ours:.0f} ms at {max(set(mine), key=mine.count)}"
        self._last = time.perf_counter()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            if 1000 * (time.perf_counter() - self._last) > 3 * _TICK_MS:
                self._samples.append(_whose(_stack_of(self._main)))


def _stack_of(thread: int) -> list[tuple[str, str]]:
    """Return the files and lines of a thread's stack, the innermost first.

    No frame is looked at: one that ends meanwhile would be freed here, and with PySide its dialogs
    would die in this thread, with their timers still running.
    """
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        stack: list[tuple[str, str]] = []
        mine = False
        for line in file:
            if "most recent call first" in line:
                mine = f"{thread:x}" in line
            elif mine and (found := _LINE.search(line)):
                stack.append((found[1], found[2]))
    return stack


def _whose(stack: list[tuple[str, str]]) -> tuple[bool, str]:
    """Return whether the innermost package on a stack is ours or that of a library, and our line.

    A library that we call, such as numpy, is ours; napari and what it draws with are not.
    """
    inner = True
    for file, number in stack:
        if (place := file.rpartition("/napari_dino_uad/"))[1]:
            name = place[2].removesuffix(".py").replace("/", ".")
            return inner, f"{name}:{number}"
        if any(f"/site-packages/{one}/" in file for one in _OTHERS):
            inner = False
    return False, ""


class Reader:
    """Someone at the window, who counts clicks and keys.

    Parameters
    ----------
    viewer : napari.Viewer
        With a window on screen.

    Attributes
    ----------
    clicks : int
        Clicks and key presses so far; typing a file's name counts as one.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.window = viewer.window._qt_window
        self.clicks = 0

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Let the window work until a condition holds."""
        end = time.monotonic() + _LONG_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            QTest.qWait(10)

    def look(self, seconds: float = 0.1) -> None:
        """Let the window work for a moment."""
        QTest.qWait(int(1000 * seconds))

    def drop(self, path: Path) -> None:
        """Drop a file or a folder into the window."""
        target = self.viewer.window._qt_viewer
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        middle = target.rect().center()
        place = QPointF(middle) if hasattr(QDropEvent, "position") else middle
        # A drop event keeps only a pointer to its data.
        self._dropped = data
        event = QDropEvent(
            place,
            Qt.DropAction.CopyAction,
            data,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        target.dropEvent(event)
        self.look()

    def click(self, widget: QWidget, place: QPoint | None = None) -> None:
        """Click a widget that is on screen and enabled."""
        assert widget.isVisible() and widget.isEnabled(), widget.toolTip()
        self.clicks += 1
        where = widget.rect().center() if place is None else place
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, pos=where)

    def press(self, key: Qt.Key, modifier: Any = None, widget: QWidget | None = None) -> None:
        """Press a key; in the window if no widget is given."""
        self.clicks += 1
        if widget is None:
            # Without a window manager no window has the focus by itself.
            self.window.activateWindow()
            self.wait(self.window.isActiveWindow, "the window's focus")
        held = Qt.KeyboardModifier.NoModifier if modifier is None else modifier
        QTest.keyClick(widget or self.window, key, held)

    def button(self, parent: QWidget, text: str) -> QPushButton:
        """Find a button by its text."""
        found = [one for one in parent.findChildren(QPushButton) if one.text().startswith(text)]
        assert len(found) == 1, (text, [one.text() for one in found])
        return found[0]

    def answers(self, kind: type[QDialog], act: Callable[[Any], None]) -> _Answer:
        """Act on a dialog of this kind as soon as it is on screen."""
        return _Answer(kind, act)

    def names_file(self, path: Path) -> _Answer:
        """Type a path into the next file dialog, and press Enter."""

        def type_path(dialog: QFileDialog) -> None:
            self.clicks += 1
            line = dialog.findChild(QLineEdit)
            line.setFocus()
            line.setText(str(path))
            QTest.keyClick(line, Qt.Key.Key_Return)

        return _Answer(QFileDialog, type_path)


class _Answer:
    """Waits for a dialog, which may run an event loop of its own, and acts on it once."""

    def __init__(self, kind: type[QDialog], act: Callable[[Any], None]) -> None:
        self.given = False
        self._kind, self._act = kind, act
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(20)

    def _look(self) -> None:
        for widget in QApplication.topLevelWidgets():
            if isinstance(widget, self._kind) and widget.isVisible() and not self.given:
                self._timer.stop()
                self.given = True
                self._act(widget)
                return
