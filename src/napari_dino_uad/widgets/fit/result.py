"""The model that was fitted or loaded, and its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_dino_uad.widgets.controls import WrapLabel
from napari_dino_uad.widgets.forms import in_row
from napari_dino_uad.widgets.plots import HEALTHY, healthy_shares, still_plot

if TYPE_CHECKING:
    from napari_dino_uad.core.model import FittedModel

__all__ = ["Result"]

_BINS = 96


class Result(QWidget):
    """Describes a model, plots how it was fitted, and offers its file."""

    def __init__(self) -> None:
        super().__init__()
        self._text = WrapLabel()
        self._plot = still_plot(120)
        self.save = QPushButton("Save model…")
        self.load = QPushButton("Load model…")
        self.load.setToolTip("Load a model file and describe it.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._text)
        layout.addWidget(self._plot)
        layout.addLayout(in_row(self.save, self.load))
        self.clear()
        self.allow_saving(False)

    def clear(self) -> None:
        """Show no model."""
        self._text.setText("")
        self._text.hide()
        self._plot.hide()

    def show_model(self, model: FittedModel, head: str) -> None:
        """Show a model.

        Parameters
        ----------
        model : FittedModel
        head : str
            What the text begins with.
        """
        self._text.setText(f"<b>{head}</b> {model.summary()}")
        self._text.show()
        self._plot.clear()
        history = getattr(model.normative, "history_", [])
        if len(history) > 1:
            self._plot_history(history)
        else:
            self._plot_scores(model)
        self._plot.show()

    def allow_saving(self, fitted: bool) -> None:
        """Enable Save, or explain why it is not."""
        self.save.setEnabled(fitted)
        self.save.setToolTip(
            "Write the model to a .safetensors file." if fitted else "Fit a model first."
        )

    def _plot_history(self, history: list[float]) -> None:
        epochs = np.arange(1, len(history) + 1)
        self._plot.plot(epochs, history, pen=HEALTHY, symbol="o", symbolSize=4)
        self._plot.setLabel("bottom", "epoch")
        self._plot.setTitle("validation loss", size="8pt")

    def _plot_scores(self, model: FittedModel) -> None:
        calibration = model.calibration
        edges = np.linspace(calibration.threshold(0.99), calibration.threshold(1e-4), _BINS + 1)
        shares = healthy_shares(calibration, edges)
        self._plot.plot(edges, shares, stepMode="center", fillLevel=0, brush=(*HEALTHY, 90))
        self._plot.setLabel("bottom", "healthy scores")
        self._plot.setTitle(None)
