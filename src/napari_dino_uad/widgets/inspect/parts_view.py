"""Bars of what makes a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_dino_uad.widgets.inspect.texts import PART_NAMES
from napari_dino_uad.widgets.plots import HEALTHY

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

    from napari_dino_uad.core.explain.parts import ScoreParts

__all__ = ["PartsView"]

# Adds to the score, as the scan's histogram is drawn; takes away, as the healthy one is.
_ADDS = (240, 150, 60)
_LABELS, _VALUES = 0.44, 0.13
_TOOLTIP = (
    "What adds to the score (orange) and takes from it (blue), in standard deviations (SD) of "
    "healthy tissue. The dashed line is the threshold."
)


class PartsView(QWidget):
    """A row with a bar for each part of a score, and one for the score and its threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, float]] = []
        self._threshold = 0.0
        self.setToolTip(_TOOLTIP)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_parts(self, parts: ScoreParts, threshold: float) -> None:
        """Show the parts that are not zero, then the score."""
        self.rows = [
            (name, value)
            for key, name in PART_NAMES.items()
            if (value := getattr(parts, key)) != 0 or key == "score"
        ]
        self._threshold = threshold
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height of all rows."""
        return QSize(280, len(self.rows) * self._row() + 4)

    def minimumSizeHint(self) -> QSize:
        """Return no width, so that the bars never widen the dock."""
        return QSize(0, self.sizeHint().height())

    def _row(self) -> int:
        return self.fontMetrics().height() + 4

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the rows."""
        if not self.rows:
            return
        painter = QPainter(self)
        colour = self.palette().color(self.foregroundRole())
        height, width = self._row(), self.width()
        left, right = width * _LABELS, width * (1 - _VALUES)
        values = [value for _, value in self.rows] + [self._threshold, 0.0]
        low, high = min(values), max(values)
        scale = (right - left - 8) / max(high - low, 1e-6)

        def at(value: float) -> float:
            return left + 4 + (value - low) * scale

        for number, (name, value) in enumerate(self.rows):
            top = number * height
            last = number == len(self.rows) - 1
            font = painter.font()
            font.setBold(last)
            painter.setFont(font)
            painter.setPen(colour)
            text = QRectF(0, top, left - 4, height)
            metrics = painter.fontMetrics()
            short = metrics.elidedText(name, Qt.TextElideMode.ElideRight, int(text.width()))
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.drawText(text, middle | Qt.AlignmentFlag.AlignLeft, short)
            shown = f"{value:.1f}" if last else f"{value:+.1f}"
            box = QRectF(right, top, width - right - 1, height)
            painter.drawText(box, middle | Qt.AlignmentFlag.AlignRight, shown)
            start, end = sorted((at(0.0), at(value)))
            bar = QRectF(start, top + 3, max(end - start, 1.0), height - 6)
            painter.fillRect(bar, QColor(*(_ADDS if value > 0 else HEALTHY)))
        bottom = len(self.rows) * height
        painter.setPen(QPen(colour, 1))
        painter.drawLine(int(at(0.0)), 0, int(at(0.0)), bottom)
        painter.setPen(QPen(colour, 1, Qt.PenStyle.DashLine))
        line = int(at(self._threshold))
        painter.drawLine(line, bottom - height, line, bottom)
