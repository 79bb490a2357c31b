"""The threshold, as a rate of false positives on healthy tissue."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QPainter
from qtpy.QtWidgets import (
    QLabel,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionSlider,
    QVBoxLayout,
    QWidget,
)

from napari_dino_uad.core.maps.finding_settings import DEFAULT_RATE
from napari_dino_uad.widgets.controls import small_label
from napari_dino_uad.widgets.plots import (
    HEALTHY,
    healthy_shares,
    paint_plot,
    still_plot,
    when_plots,
)

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

    from napari_dino_uad.core.calibration import Calibration

__all__ = [
    "HIGHEST_RATE",
    "LOWEST_RATE",
    "ThresholdControl",
    "colour_ticks",
    "format_rate",
    "histogram_edges",
    "score_histogram",
]

HIGHEST_RATE, LOWEST_RATE = 0.1, 1e-4
# Rates marked on the colour bar.
_BAR_RATES = (0.1, 0.01, 0.001, 0.0001)
_STEPS = 300
_MARKS = (0.1, 0.05, 0.01, 0.001, 0.0001)
_DECADES = (0.1, 0.01, 0.001, 0.0001)
# Room in pixels between two marks.
_GAP = 6
_REST_MS = 150
_BINS = 96

_PLOT_HEIGHT = 84
_SCAN = (240, 150, 60)
# Visible on both histograms, on a dark and on a light background.
_LINE = (150, 150, 150)


def format_rate(rate: float) -> str:
    """Write a rate in percent with two significant digits."""
    percent = 100 * rate
    # No healthy pixel scores this high; digits beyond this would be made up.
    digits = max(0, 1 - math.floor(math.log10(percent))) if percent > 1e-3 else 0
    return f"{percent:.{digits}f} %"


def colour_ticks(calibration: Calibration) -> list[tuple[float, str]]:
    """Return scores and labels of a colour bar, in false-positive rates."""
    return [(calibration.threshold(rate), f"{100 * rate:g} %") for rate in _BAR_RATES]


def histogram_edges(calibration: Calibration) -> NDArray[np.float64]:
    """Return the edges of the bins for a histogram of a model's scores."""
    low = calibration.threshold(0.99)
    top = calibration.threshold(LOWEST_RATE)
    return np.linspace(low, low + 1.35 * (top - low), _BINS + 1)


def score_histogram(scores: NDArray[np.float32], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of scores in each bin; scores beyond are counted in the outer bins."""
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return counts / max(1, counts.sum())


class _Marks(QWidget):
    """Labels under the slider, each at its position."""

    def __init__(self, slider: QSlider) -> None:
        super().__init__()
        self._slider = slider
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(200, self.fontMetrics().height() + 2)

    def places(self) -> list[tuple[str, float, float]]:
        """Return the text, left edge and width of each mark that has room."""
        option = QStyleOptionSlider()
        self._slider.initStyleOption(option)
        handle = self._slider.style().pixelMetric(
            QStyle.PixelMetric.PM_SliderLength, option, self._slider
        )
        room = self.width() - handle
        placed: list[tuple[str, float, float]] = []
        # The decades first: they are what a narrow dock has room for.
        for rate in sorted(_MARKS, key=lambda rate: rate not in _DECADES):
            text = f"{100 * rate:g}" + (" %" if rate in (LOWEST_RATE, HIGHEST_RATE) else "")
            width = self.fontMetrics().horizontalAdvance(text)
            centre = handle / 2 + room * _to_step(rate) / _STEPS
            left = min(max(0.0, centre - width / 2), self.width() - width)
            apart = all(
                left >= other + wide + _GAP or left + width + _GAP <= other
                for _, other, wide in placed
            )
            if apart:
                placed.append((text, left, width))
        return placed

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        for text, left, _ in self.places():
            painter.drawText(int(left), self.fontMetrics().ascent(), text)


def _to_step(rate: float) -> int:
    span = math.log(HIGHEST_RATE / LOWEST_RATE)
    return round(_STEPS * math.log(HIGHEST_RATE / rate) / span)


def _to_rate(step: int) -> float:
    # As it is shown and saved: 0.01, not 0.010000000000000002.
    return float(f"{HIGHEST_RATE * (LOWEST_RATE / HIGHEST_RATE) ** (step / _STEPS):.4g}")


class ThresholdControl(QWidget):
    """A slider for the rate of healthy false positives, below histograms of the scores.

    Signals
    -------
    dragged : float
        The rate, at every movement.
    rested : float
        The rate, after it has not moved for a moment.
    """

    dragged = Signal(float)
    rested = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self._calibration: Calibration | None = None
        self._text = QLabel()
        self._interval = small_label()
        self._interval.setToolTip(
            "The anomaly score at this threshold, and the false alarms in single healthy scans, "
            "without the lowest and the highest tenth of them."
        )
        self._plot: Any = None
        self._line: Any = None
        self._legend: Any = None
        self._curves: dict[str, Any] = {}
        # Edges and shares of the histograms to draw, by name of the curve.
        self._shares: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._colours: tuple[str, str] | None = None
        self._holder = QWidget()
        self._holder.setFixedHeight(_PLOT_HEIGHT)
        inner = QVBoxLayout(self._holder)
        inner.setContentsMargins(0, 0, 0, 0)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _STEPS)
        self.slider.setPageStep(25)
        self.slider.setToolTip(
            "How much healthy tissue may be marked by mistake. Further right there are fewer "
            "false alarms, but faint lesions are missed."
        )
        self.slider.valueChanged.connect(self._on_slider)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._on_rest)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._text)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        layout.addWidget(self._holder)
        layout.addWidget(self.slider)
        self.marks = _Marks(self.slider)
        layout.addWidget(self.marks)
        layout.addWidget(self._interval)
        self.slider.setValue(_to_step(DEFAULT_RATE))
        self._show_text()
        self._show_scale()
        when_plots(self, self._build_plot)

    @property
    def ready(self) -> bool:
        """Whether the histogram is there."""
        return self._plot is not None

    def _build_plot(self) -> None:
        """Make the histogram, and draw what is known so far."""
        import pyqtgraph as pg

        plot = still_plot(_PLOT_HEIGHT)
        plot.hideAxis("left")
        plot.getAxis("bottom").setStyle(tickTextOffset=2)
        plot.setToolTip(
            "How often each anomaly score occurs, on a logarithmic scale: blue in the healthy "
            "scans the model was calibrated on, orange in this scan. Drag the line to move the "
            "threshold."
        )
        self._curves = {
            name: plot.plot(stepMode="center", fillLevel=0, pen=colour, brush=(*colour, 90))
            for name, colour in (("healthy", HEALTHY), ("scan", _SCAN))
        }
        for curve in self._curves.values():
            curve.hide()
        # Not pyqtgraph's own legend, whose entries hide their curves at a click.
        self._legend = pg.LabelItem(justify="right", size="8pt")
        self._legend.setParentItem(plot.getPlotItem().getViewBox())
        self._legend.anchor(itemPos=(1, 0), parentPos=(1, 0), offset=(-2, -2))
        self._line = pg.InfiniteLine(angle=90, movable=True, pen=pg.mkPen(_LINE, width=2))
        plot.addItem(self._line)
        self._line.sigPositionChanged.connect(self._on_line)
        self._holder.layout().addWidget(plot)
        self._plot = plot
        if self._colours is not None:
            self.paint(*self._colours)
        self._show_scale()
        for name, (edges, shares) in self._shares.items():
            self._draw(name, edges, shares)
        self._show_text()

    @property
    def legend(self) -> str:
        """The names of the histograms drawn, as HTML."""
        return "" if self._legend is None else str(self._legend.text)

    @property
    def rate(self) -> float:
        """The chosen false-positive rate."""
        return _to_rate(self.slider.value())

    @rate.setter
    def rate(self, value: float) -> None:
        self.slider.setValue(_to_step(min(max(value, LOWEST_RATE), HIGHEST_RATE)))

    @property
    def threshold(self) -> float:
        """The score at the chosen rate; raises RuntimeError without a calibration."""
        if self._calibration is None:
            raise RuntimeError("a threshold needs a calibration")
        return self._calibration.threshold(self.rate)

    def set_calibration(self, calibration: Calibration | None) -> None:
        """Show the scale of a model, or none, and remove the histogram of the scan."""
        self._forget("scan")
        if calibration is self._calibration:
            return
        self._calibration = calibration
        self._show_scale()
        if calibration is None:
            self._forget("healthy")
        else:
            edges = histogram_edges(calibration)
            self._draw("healthy", edges, healthy_shares(calibration, edges))
        self._show_text()

    def paint(self, background: str, text: str) -> None:
        """Give the histogram the colours of a theme, as hex codes."""
        self._colours = (background, text)
        if self._plot is not None:
            paint_plot(self._plot, background, text)
            self._legend.setText(self._legend.text, color=text)

    def _show_scale(self) -> None:
        """Enable the control and show the scale of scores, which only a model has."""
        known = self._calibration is not None
        self.setEnabled(known)
        if self._plot is not None:
            self._line.setVisible(known)
            self._plot.getAxis("bottom").setStyle(showValues=known)

    def show_rate(self, rate: float) -> None:
        """Move the slider without a signal, and drop a signal that is still due."""
        self._rest.stop()
        with QSignalBlocker(self.slider):
            self.rate = rate
        self._show_text()

    def show_scan(self, edges: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
        """Draw the histogram of the scan, as shares in bins."""
        self._draw("scan", edges, shares)

    def _draw(self, name: str, edges: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
        self._shares[name] = (edges, shares)
        if self._plot is None:
            return
        # Five decades: a bin below that holds a handful of pixels.
        height = np.clip(np.log10(np.maximum(shares, 1e-12)) + 5, 0, None)
        self._curves[name].setData(edges, height)
        self._curves[name].show()
        self._show_legend()
        if name == "healthy":
            self._plot.setXRange(edges[0], edges[-1], padding=0)

    def _forget(self, name: str) -> None:
        self._shares.pop(name, None)
        if self._curves:
            self._curves[name].hide()
            self._show_legend()

    def _show_legend(self) -> None:
        """Name the histograms that are drawn."""
        entries = (("healthy", HEALTHY, "healthy scans"), ("scan", _SCAN, "this scan"))
        lines = [
            f"<span style='color: rgb{colour}'>\u25a0</span> {text}"
            for name, colour, text in entries
            if name in self._shares
        ]
        self._legend.setText("<br>".join(lines))

    def _show_text(self) -> None:
        self._text.setText(f"False alarms in healthy tissue: {format_rate(self.rate)}")
        if self._calibration is None:
            self._interval.setText("")
            return
        low, high = (format_rate(rate) for rate in self._calibration.interval(self.rate))
        scans = len(self._calibration.scan_rates)
        most = f"{low} to {high} in most of {scans} healthy scans"
        one = "calibrated on one healthy scan"
        self._interval.setText(f"Score {self.threshold:.2f}; {most if scans > 1 else one}")
        if self._line is not None:
            self._line.blockSignals(True)
            self._line.setValue(self.threshold)
            self._line.blockSignals(False)

    def _on_slider(self) -> None:
        self._show_text()
        self.dragged.emit(self.rate)
        self._rest.start()

    def _on_rest(self) -> None:
        self.rested.emit(self.rate)

    def _on_line(self) -> None:
        if self._calibration is not None:
            self.rate = float(self._calibration.false_positive_rate(self._line.value()))
            self._show_text()
