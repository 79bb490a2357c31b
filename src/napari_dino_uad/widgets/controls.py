"""Qt pieces that several docks share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QStyle,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.widgets.activity import Activity
from napari_dino_uad.widgets.docks import tabify
from napari_dino_uad.widgets.plots import theme_colours
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = [
    "DockWidget",
    "Fold",
    "RunControl",
    "WrapLabel",
    "allow",
    "research_notice",
    "rule",
    "short_paths",
    "small_label",
    "warning_label",
]

# A line may also break after these characters, and within very long words.
_BREAKS = re.compile(r"([_\\/](?=\w)|[^\W_]{20}(?=[^\W_]))")
# Property that keeps the tooltip of a widget while it is disabled.
_HELP = "help"
# Width of a dock in pixels.
_NARROWEST, _WIDEST = 300, 380

# Absolute paths, of which a message shows the last two parts.
_PATHS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\s\\/:;,]+){3,}")


def short_paths(text: str) -> str:
    """Shorten the absolute paths in a message to their last two parts."""

    def shorten(found: re.Match[str]) -> str:
        parts = re.split(r"[\\/]", found.group())
        return "…/" + "/".join(parts[-2:])

    return re.sub(_PATHS, shorten, text)


class WrapLabel(QLabel):
    """A label that never widens its dock: long file names wrap too."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._raw = ""
        self.setWordWrap(True)
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Set the text, plain or rich."""
        self._raw = text or ""
        super().setText(re.sub(_BREAKS, "\\1\u200b", self._raw).replace("</\u200b", "</"))

    def text(self) -> str:
        """Return the text as it was set, without the breaks added for wrapping."""
        return self._raw

    def minimumSizeHint(self) -> QSize:
        """Return no width, so that the label never widens the dock."""
        return QSize(0, super().minimumSizeHint().height())


def small_label(text: str = "") -> WrapLabel:
    """Make a label in small type."""
    label = WrapLabel(text)
    font = label.font()
    font.setPointSizeF(max(7.0, font.pointSizeF() * 0.9))
    label.setFont(font)
    return label


def allow(widget: QWidget, why_not: str) -> None:
    """Enable a widget, or disable it and let its tooltip say why.

    Parameters
    ----------
    widget : QWidget
        Its tooltip at the first call is the one it has whenever it is enabled.
    why_not : str
        Empty if it can be used.
    """
    if widget.property(_HELP) is None:
        widget.setProperty(_HELP, widget.toolTip())
    widget.setEnabled(not why_not)
    widget.setToolTip(why_not or widget.property(_HELP))


def research_notice() -> WrapLabel:
    """Make the line that stands at the end of every dock with results."""
    label = small_label(RESEARCH_USE)
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    return label


def warning_label() -> WrapLabel:
    """Make a label for a warning; it is hidden until it gets a text."""
    label = WrapLabel()
    # Dark on amber is readable in dark and light themes alike.
    label.setStyleSheet("background: #f2b134; color: #1a1a1a; padding: 6px; border-radius: 3px;")
    label.hide()
    return label


class Fold(QWidget):
    """A button that shows and hides what it holds; closed at first.

    superqt's fold keeps the height that its content had when it was opened, and cuts longer texts.

    Parameters
    ----------
    title : str
    inner : QWidget
        What it holds.
    tooltip : str
    """

    def __init__(self, title: str, inner: QWidget, tooltip: str = "") -> None:
        super().__init__()
        self._inner = inner
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setToolTip(tooltip)
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.toggled.connect(self._on_toggled)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(inner)
        self._on_toggled(False)

    def _on_toggled(self, shown: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow
        self.button.setArrowType(arrow)
        self._inner.setVisible(shown)


def rule() -> QFrame:
    """Make a thin line between groups."""
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFrameShadow(QFrame.Shadow.Sunken)
    return line


class DockWidget(QWidget):
    """A narrow dock whose content scrolls when the window is too low for it.

    Subclasses add their controls to `content`, a vertical layout, and what must always be in sight
    to `footer`, below the part that scrolls.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        # napari passes a proxy of the viewer, a new one each time.
        self._viewer: Viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._paint: Callable[[str, str], None] | None = None
        self._docked = False
        self._released = False
        self._listening: list[tuple[Any, Any]] = []
        inner = QWidget()
        self.content = QVBoxLayout(inner)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        self._inner = inner
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.footer = QVBoxLayout()
        outer.addLayout(self.footer)
        self.setMinimumWidth(_NARROWEST)

    def minimumSizeHint(self) -> QSize:
        """Return a width at which nothing is cut off at the right edge."""
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        width = self._inner.minimumSizeHint().width() + bar
        return QSize(min(max(width, _NARROWEST), _WIDEST), super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        """Return a width that leaves most of the window to the image."""
        return QSize(350, 640)

    def closeEvent(self, event: Any) -> None:
        """Stop all jobs when the widget is closed."""
        self.release()
        super().closeEvent(event)

    def changeEvent(self, event: Any) -> None:
        """Stop all jobs when the user closes the dock.

        napari does not close the widget then: it takes it out of the dock, and makes a new one
        the next time.
        """
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
                # After napari has put the dock into its window.
                QTimer.singleShot(0, self._tabify)
            elif self._docked:
                self._docked = False
                self.release()
                # The widget is of no more use, unless a script docks it again at once.
                QTimer.singleShot(0, self._delete_undocked)
        super().changeEvent(event)

    def _tabify(self) -> None:
        if self.parent() is not None:
            tabify(self, DockWidget)

    def _delete_undocked(self) -> None:
        if self.parent() is None and not self.isVisible():
            self.deleteLater()

    def listen(self, *pairs: tuple[Any, Any]) -> None:
        """Connect signals of objects that outlive this widget, as long as it is in use.

        Parameters
        ----------
        pairs : tuple of (signal or event, slot)
            Signals of Qt or events of napari.
        """
        for signal, slot in pairs:
            signal.connect(slot)
        self._listening += pairs

    def follow_theme(self, paint: Callable[[str, str], None]) -> None:
        """Paint plots in the colours of the theme, now and whenever it changes.

        Parameters
        ----------
        paint : callable
            Called with the background and the text colour, as hex codes.
        """
        # A viewer without a window has no theme.
        if hasattr(self._viewer, "theme"):
            self._paint = paint
            self.listen((self._viewer.events.theme, self._on_theme))
            self._on_theme()

    def _on_theme(self, *_: Any) -> None:
        if self._paint is not None:
            self._paint(*theme_colours(self._viewer.theme))

    def release(self) -> None:
        """Stop all jobs, and disconnect from objects that outlive this widget."""
        for job in self.findChildren(Job):
            job.cancel()
        if self._released:
            return
        self._released = True
        for signal, slot in self._listening:
            # What it comes from may be gone already.
            with contextlib.suppress(RuntimeError, TypeError):
                signal.disconnect(slot)
        self._listening = []
        self._leave()

    def _leave(self) -> None:
        """Take away what this widget has put outside itself; called once."""


class RunControl(QWidget):
    """Buttons that start and cancel a job, its progress bar and its messages.

    Parameters
    ----------
    job : Job
        The job to show.
    text, tooltip : str
        Of the start button.
    cancel_tooltip : str
        Of the cancel button: what is kept.
    remarks : bool
        Whether remarks on the engine are shown below the message.
    """

    def __init__(
        self, job: Job, text: str, tooltip: str, cancel_tooltip: str, *, remarks: bool = True
    ) -> None:
        super().__init__()
        self._job = job
        self._watched = [job]
        self._complaining = False
        self._shows_remarks = remarks
        self.start = QPushButton(text)
        self.start.setToolTip(tooltip)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip(cancel_tooltip)
        row = QHBoxLayout()
        row.addWidget(self.start, 2)
        row.addWidget(self.cancel, 1)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(8)
        self._status = small_label()
        self._text = self._step = ""
        self._remarks = small_label()
        self._remarks.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self._bar)
        layout.addWidget(self._status)
        layout.addWidget(self._remarks)
        self._activity = [Activity(job)]
        job.progressed.connect(self._on_progress)
        job.failed.connect(self.complain)
        job.succeeded.connect(self._forget_complaint)
        self.allow("")

    def watch(self, job: Job) -> None:
        """Show the bar of another job too, while it runs; its messages come through `say`."""
        self._watched.append(job)
        self._activity.append(Activity(job))
        job.progressed.connect(lambda progress: self._on_other(job, progress))
        job.stopped.connect(self._on_other_stopped)
        job.succeeded.connect(self._forget_complaint)

    def allow(self, reason: str) -> None:
        """Enable the buttons that can be used now.

        Parameters
        ----------
        reason : str
            Why the job cannot start, shown to the user; empty if it can.
        """
        running = self._job.running
        allow(self.start, "Running; press Cancel to stop." if running else reason)
        allow(self.cancel, "" if running else "Nothing is running.")
        self._show_bar()
        if running:
            return
        if reason:
            self.say(reason)
            self._status.setProperty("reason", True)
        elif self._status.property("reason"):
            self.say("")

    @property
    def text(self) -> str:
        """The message."""
        return self._text

    @property
    def complaining(self) -> bool:
        """Whether the message is an error."""
        return self._complaining

    @property
    def remarks(self) -> str:
        """The remark below the message."""
        return self._remarks.text()

    def remark(self, text: str) -> None:
        """Show a remark below the message; an empty one keeps the remark before."""
        if text:
            self._remarks.setText(text)
            self._remarks.setVisible(self._shows_remarks)

    def say(self, text: str) -> None:
        """Show a message; the tooltip has its paths in full."""
        if text == self._text and not self._complaining and not self._status.property("reason"):
            return
        self._complaining = False
        self._text = text
        short = short_paths(text)
        self._status.setProperty("reason", False)
        self._status.setStyleSheet("")
        self._status.setText(short)
        self._status.setToolTip("" if short == text else text)
        self._status.setVisible(bool(text))

    def complain(self, text: str) -> None:
        """Show an error; the next success removes it."""
        self.say(text)
        self._complaining = True
        # Readable on napari's dark and on its light background.
        self._status.setStyleSheet("color: #e8604c; font-weight: bold;")

    def _forget_complaint(self, *_: Any) -> None:
        if self._complaining:
            self.say("")

    def _show_bar(self, *_: Any) -> None:
        self._bar.setVisible(any(job.running for job in self._watched))

    def _on_other_stopped(self) -> None:
        self._show_bar()
        if self._text and self._text == self._step:
            self.say("")

    def _on_other(self, job: Job, progress: Progress) -> None:
        if not self._job.running:
            self._on_progress(progress, job)
            self._show_bar()

    def _on_progress(self, progress: Progress, job: Job | None = None) -> None:
        self.remark(progress.note)
        # A bar of one step would stand still; Qt moves one without a length.
        total = 0 if progress.total <= 1 else progress.total
        self._bar.setRange(0, total)
        self._bar.setValue(progress.done)
        text = progress.step if not progress.detail else f"{progress.step}: {progress.detail}"
        if progress.total > 1:
            text += f", {progress.done} of {progress.total}"
        left = (job or self._job).seconds_left(progress)
        if left is not None and left > 2:
            minutes, seconds = divmod(round(left), 60)
            text += f", {f'{minutes} min ' if minutes else ''}{seconds} s left"
        self._step = text
        self.say(text)
