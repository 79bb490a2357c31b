"""The model that was fitted or loaded, and its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_dino_uad.widgets.controls import Fold, WrapLabel, allow, small_label
from napari_dino_uad.widgets.forms import in_row
from napari_dino_uad.widgets.plots import (
    HEALTHY,
    healthy_shares,
    label_below,
    paint_plot,
    still_plot,
    when_plots,
)
from napari_dino_uad.widgets.results.texts import cohort_words, model_details

if TYPE_CHECKING:
    import pyqtgraph as pg
    from qtpy.QtWidgets import QLayout

    from napari_dino_uad.core.model import FittedModel

__all__ = ["Result", "describe_cohort"]

_BINS = 96
_MARKED = 0.01
_LINE = (150, 150, 150)
# Decades that the histogram shows, as in Detect.
_DECADES = 5


class Result(QWidget):
    """Describes a model, plots the scores of healthy tissue, and offers its file.

    Attributes
    ----------
    buttons : QLayout
        Save and Load, to be put where they are always in sight.
    scores, history : PlotWidget or None
        Healthy scores, and the loss after each epoch; None until pyqtgraph is there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = WrapLabel()
        self.scores: pg.PlotWidget | None = None
        self.history: pg.PlotWidget | None = None
        self._model: FittedModel | None = None
        self._colours: tuple[str, str] | None = None
        self._summary = small_label()
        inner = QWidget()
        self._folded = QVBoxLayout(inner)
        self._folded.setContentsMargins(0, 0, 0, 0)
        self._folded.addWidget(self._summary)
        self.details = Fold("Details", inner, "Method, components or epochs, versions, engine.")
        self.save = QPushButton("Save model…")
        self.save.setToolTip("Write the model to a .safetensors file.")
        self.load = QPushButton("Load model…")
        self.load.setToolTip("Load a model file and describe it.")
        self.buttons: QLayout = in_row(self.save, self.load)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.text, self.details):
            self._layout.addWidget(widget)
        self.clear()
        self.allow_saving(False)
        when_plots(self, self._build_plots)

    def _build_plots(self) -> None:
        self.scores, self.history = still_plot(110), still_plot(110)
        self.scores.hideAxis("left")
        self.scores.setToolTip(
            "How often each anomaly score occurs in the healthy scans held out for calibration, on "
            "a logarithmic scale. The line marks 1 % false alarms."
        )
        self._layout.insertWidget(1, self.scores)
        self._folded.addWidget(self.history)
        if self._colours is not None:
            self.paint(*self._colours)
        self._plot()

    def paint(self, background: str, text: str) -> None:
        """Give the plots the colours of a theme, as hex codes."""
        self._colours = background, text
        for plot in (self.scores, self.history):
            if plot is not None:
                paint_plot(plot, background, text)

    def clear(self) -> None:
        """Show no model."""
        self.text.setText("")
        self.hide()

    def show_model(self, model: FittedModel, head: str, engine: str = "") -> None:
        """Show a model.

        Parameters
        ----------
        model : FittedModel
        head : str
            What the text begins with.
        engine : str
            What runs the backbone, for Details.
        """
        self._model = model
        self.text.setText(f"<b>{head}</b> {describe_cohort(model)}")
        self._summary.setText(model_details(model, engine))
        self._plot()
        self.show()

    def _plot(self) -> None:
        model, scores, losses = self._model, self.scores, self.history
        if model is None or scores is None or losses is None:
            return
        _plot_scores(scores, model)
        history = getattr(model.normative, "history_", [])
        losses.setVisible(len(history) > 1)
        if len(history) > 1:
            _plot_history(losses, history)

    def allow_saving(self, fitted: bool) -> None:
        """Enable Save, or explain why it is not."""
        allow(self.save, "" if fitted else "Fit a model first.")


def _plot_history(plot: pg.PlotWidget, history: list[float]) -> None:
    plot.clear()
    plot.plot(np.arange(1, len(history) + 1), history, pen=HEALTHY, symbol="o", symbolSize=4)
    label_below(plot, "epoch")
    plot.setTitle("validation loss", size="8pt")


def _plot_scores(plot: pg.PlotWidget, model: FittedModel) -> None:
    import pyqtgraph as pg

    calibration = model.calibration
    edges = np.linspace(calibration.threshold(0.99), calibration.threshold(1e-4), _BINS + 1)
    shares = healthy_shares(calibration, edges)
    height = np.clip(np.log10(np.maximum(shares, 1e-12)) + _DECADES, 0, None)
    plot.clear()
    plot.plot(edges, height, stepMode="center", fillLevel=0, pen=HEALTHY, brush=(*HEALTHY, 90))
    line = pg.InfiniteLine(
        calibration.threshold(_MARKED),
        angle=90,
        pen=pg.mkPen(_LINE, width=2),
        label="1 %",
        labelOpts={"position": 0.85, "color": _LINE, "anchors": [(0, 0.5), (0, 0.5)]},
    )
    plot.addItem(line)
    label_below(plot, "score of healthy tissue")


def describe_cohort(model: FittedModel) -> str:
    """Describe what a model knows, for a radiologist."""
    held = int(model.cohort.get("validation_scans", 0))
    text = cohort_words(model)
    if held:
        text += f"; calibrated on {held} other{'' if held == 1 else 's'}"
    return f"{text[0].upper()}{text[1:]}."
