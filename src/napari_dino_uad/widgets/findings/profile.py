"""The highest anomaly score of each slice, as a curve along the slices."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.plots import still_plot

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap

__all__ = ["ProfilePlot", "profiler", "slice_peaks"]

_CURVE = (240, 150, 60)
# Visible on a dark and on a light background.
_THRESHOLD, _SLICE = (150, 150, 150), (0, 160, 210)
_HEIGHT = 100


class ProfilePlot(QWidget):
    """Scores along the slices, with the threshold and the slice on screen.

    Signals
    -------
    clicked : int
        The user clicked a slice.
    """

    clicked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._plot = still_plot(_HEIGHT)
        self._plot.setToolTip(
            "The highest anomaly score of each slice. Dashed: the threshold; blue: the slice on "
            "screen. Click to go to a slice."
        )
        self._plot.getAxis("left").setWidth(34)
        self._plot.scene().sigMouseClicked.connect(self._on_click)
        self._curve = self._plot.plot(pen=pg.mkPen(_CURVE, width=1.5), brush=(*_CURVE, 70))
        self._threshold = pg.InfiniteLine(
            angle=0, pen=pg.mkPen(_THRESHOLD, width=1, style=Qt.PenStyle.DashLine)
        )
        self._slice = pg.InfiniteLine(angle=90, pen=pg.mkPen(_SLICE, width=2))
        for line in (self._threshold, self._slice):
            self._plot.addItem(line)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._plot)
        self.scores: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._take_colours()

    def show_scores(self, scores: NDArray[np.float32], low: float, threshold: float) -> None:
        """Show the highest score of each slice, from a lowest one upwards, and the threshold."""
        self.scores = scores
        edges = np.arange(len(scores) + 1) - 0.5
        heights = np.maximum(scores, low)
        self._curve.setData(edges, heights, stepMode="center", fillLevel=low)
        top = max(float(heights.max(initial=low)), threshold)
        self._plot.setXRange(-0.5, len(scores) - 0.5, padding=0)
        self._plot.setYRange(low, top + 0.05 * max(top - low, 1e-3), padding=0)
        self.show_threshold(threshold)

    def show_threshold(self, threshold: float) -> None:
        """Move the line of the threshold."""
        self._threshold.setValue(threshold)

    def mark(self, number: int) -> None:
        """Mark the slice on screen."""
        self._slice.setValue(number)

    @property
    def marked(self) -> int:
        """The slice that is marked."""
        return round(float(self._slice.value()))

    def _on_click(self, event: Any) -> None:
        place = self._plot.getPlotItem().vb.mapSceneToView(event.scenePos())
        if len(self.scores):
            self.clicked.emit(int(np.clip(round(place.x()), 0, len(self.scores) - 1)))

    def changeEvent(self, event: Any) -> None:
        """Take the colours of another theme."""
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._take_colours()
        super().changeEvent(event)

    def showEvent(self, event: Any) -> None:
        """Take the colours of the theme."""
        self._take_colours()
        super().showEvent(event)

    def _take_colours(self) -> None:
        colour = self.palette().color(self.foregroundRole())
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setTextPen(colour)
            axis.setPen(_THRESHOLD)


def profiler(
    anomaly: AnomalyMap, axis: int, tissue_only: bool, without_scalp: bool
) -> Callable[[], Generator[Progress, None, NDArray[np.float32]]]:
    """Return a pipeline that finds the highest score of each slice along an axis (S, P, L)."""

    def pipeline() -> Generator[Progress, None, NDArray[np.float32]]:
        yield Progress("Profile", 0, 1)
        tissue = anomaly.tissue(without_scalp=without_scalp) if tissue_only else None
        return slice_peaks(anomaly.scores, axis, tissue)

    return pipeline


def slice_peaks(
    scores: NDArray[np.float32], axis: int, tissue: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Return the highest score of each slice; minus infinity where a slice has no tissue."""
    slices = np.moveaxis(scores, axis, 0)
    if tissue is None:
        return np.array([values.max() for values in slices], dtype=np.float32)
    inside = np.moveaxis(tissue, axis, 0)
    return np.array(
        [
            values.max(where=where, initial=-np.inf)
            for values, where in zip(slices, inside, strict=True)
        ],
        dtype=np.float32,
    )
