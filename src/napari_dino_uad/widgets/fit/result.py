"""The model that was fitted or loaded, and its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_dino_uad.widgets.controls import WrapLabel, small_label
from napari_dino_uad.widgets.forms import in_row
from napari_dino_uad.widgets.plots import HEALTHY, healthy_shares, still_plot

if TYPE_CHECKING:
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
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = WrapLabel()
        self.scores = still_plot(110)
        self.scores.hideAxis("left")
        self.scores.setToolTip(
            "How often each anomaly score occurs in the healthy scans held out for calibration, on "
            "a logarithmic scale. The line marks 1 % false alarms."
        )
        self.history = still_plot(110)
        self._summary = small_label()
        inner = QWidget()
        folded = QVBoxLayout(inner)
        folded.setContentsMargins(0, 0, 0, 0)
        folded.addWidget(self._summary)
        folded.addWidget(self.history)
        self.details = QCollapsible("Details")
        self.details.setDuration(0)
        self.details.addWidget(inner)
        self.save = QPushButton("Save model…")
        self.load = QPushButton("Load model…")
        self.load.setToolTip("Load a model file and describe it.")
        self.buttons: QLayout = in_row(self.save, self.load)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.text, self.scores, self.details):
            layout.addWidget(widget)
        self.clear()
        self.allow_saving(False)

    def clear(self) -> None:
        """Show no model."""
        self.text.setText("")
        self.hide()

    def show_model(self, model: FittedModel, head: str) -> None:
        """Show a model.

        Parameters
        ----------
        model : FittedModel
        head : str
            What the text begins with.
        """
        self.text.setText(f"<b>{head}</b> {describe_cohort(model)}")
        self._summary.setText(model.summary())
        self._plot_scores(model)
        history = getattr(model.normative, "history_", [])
        self.history.setVisible(len(history) > 1)
        if len(history) > 1:
            self._plot_history(history)
        self.show()

    def allow_saving(self, fitted: bool) -> None:
        """Enable Save, or explain why it is not."""
        self.save.setEnabled(fitted)
        self.save.setToolTip(
            "Write the model to a .safetensors file." if fitted else "Fit a model first."
        )

    def _plot_history(self, history: list[float]) -> None:
        epochs = np.arange(1, len(history) + 1)
        self.history.clear()
        self.history.plot(epochs, history, pen=HEALTHY, symbol="o", symbolSize=4)
        self.history.setLabel("bottom", "epoch")
        self.history.setTitle("validation loss", size="8pt")

    def _plot_scores(self, model: FittedModel) -> None:
        calibration = model.calibration
        edges = np.linspace(calibration.threshold(0.99), calibration.threshold(1e-4), _BINS + 1)
        shares = healthy_shares(calibration, edges)
        height = np.clip(np.log10(np.maximum(shares, 1e-12)) + _DECADES, 0, None)
        self.scores.clear()
        self.scores.plot(
            edges, height, stepMode="center", fillLevel=0, pen=HEALTHY, brush=(*HEALTHY, 90)
        )
        marked = calibration.threshold(_MARKED)
        self.scores.addItem(
            pg.InfiniteLine(
                marked,
                angle=90,
                pen=pg.mkPen(_LINE, width=2),
                label="1 %",
                labelOpts={"position": 0.85, "color": _LINE, "anchors": [(0, 0.5), (0, 0.5)]},
            )
        )
        self.scores.setLabel("bottom", "score of healthy tissue")


def describe_cohort(model: FittedModel) -> str:
    """Describe what a model knows, for a radiologist."""
    cohort = model.cohort
    scans, held = (int(cohort.get(key, 0)) for key in ("scans", "validation_scans"))
    planes = ", ".join(model.planes)
    text = f"{scans} healthy scan{'' if scans == 1 else 's'}, {planes} slices"
    if any(view.scale.brightness for view in model.views):
        text += f", for {model.lesions_text}"
    if held:
        text += f"; calibrated on {held} other{'' if held == 1 else 's'}"
    return f"{text}."
