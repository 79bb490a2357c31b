"""Plots of scores, drawn alike in every dock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QGraphicsView, QSizePolicy

if TYPE_CHECKING:
    import pyqtgraph as pg

    from napari_dino_uad.core.calibration import Calibration

__all__ = [
    "HEALTHY",
    "healthy_shares",
    "label_below",
    "paint_plot",
    "still_plot",
    "theme_colours",
    "when_plots",
]

#: Colour of healthy scans.
HEALTHY = (110, 160, 220)

# After this time a new dock is on screen.
_SHOWN_MS = 50
# Room for what pyqtgraph draws of a label below its axis, in pixels.
_TAILS = 6


def when_plots(parent: QObject, build: Callable[[], None]) -> None:
    """Call a function that makes plots, after a new dock is shown if pyqtgraph is not there yet.

    The import of pyqtgraph takes a fifth of a second. It has to stay on the GUI thread: in another
    one it has crashed.

    Parameters
    ----------
    parent : QObject
        The function is not called after this was deleted.
    build : callable
    """
    if "pyqtgraph" in sys.modules:
        build()
        return
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(build)
    timer.start(_SHOWN_MS)


def still_plot(height: int) -> pg.PlotWidget:
    """Make a plot that cannot be dragged or zoomed, of a height in pixels."""
    import pyqtgraph as pg

    plot = pg.PlotWidget(background=None)
    plot.setFixedHeight(height)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    plot.setMenuEnabled(False)
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    # A cached background keeps the colour of the theme in which the plot was made.
    plot.setCacheMode(QGraphicsView.CacheModeFlag.CacheNone)
    return plot


def label_below(plot: pg.PlotWidget, text: str) -> None:
    """Label the lower axis; pyqtgraph would cut the tails of its letters."""
    plot.setLabel("bottom", text)
    plot.getPlotItem().layout.setContentsMargins(0, 0, 0, _TAILS)


def theme_colours(theme: str) -> tuple[str, str]:
    """Return the background and the text colour of one of napari's themes, as hex codes."""
    from napari.utils.theme import get_theme

    chosen = get_theme(theme)
    return chosen.background.as_hex(), chosen.text.as_hex()


def paint_plot(plot: pg.PlotWidget, background: str, text: str) -> None:
    """Give a plot the colours of a theme.

    Parameters
    ----------
    plot : PlotWidget
    background, text : str
        Colours, as hex codes.
    """
    plot.setBackground(background)
    for name in ("bottom", "left"):
        axis = plot.getAxis(name)
        axis.setPen(text)
        axis.setTextPen(text)


def healthy_shares(calibration: Calibration, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of healthy scores in each bin of a histogram.

    Parameters
    ----------
    calibration : Calibration
        Of the model.
    edges : ndarray of float64, (N + 1,)
        Of the bins.

    Returns
    -------
    ndarray of float64, (N,)
    """
    rates = np.exp(np.interp(edges, calibration.scores, np.log(calibration.rates)))
    return -np.diff(rates)
