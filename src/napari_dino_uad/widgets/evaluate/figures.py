"""The curves and the pooled figures of an evaluation in the dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_dino_uad.core.evaluation.figures import figures_of
from napari_dino_uad.core.evaluation.settings import CONVENTIONS
from napari_dino_uad.core.evaluation.texts import pooled_lines, pooled_rows
from napari_dino_uad.widgets.controls import small_label
from napari_dino_uad.widgets.forms import combo_box, wide_form
from napari_dino_uad.widgets.plots import paint_plot, still_plot, when_plots

if TYPE_CHECKING:
    import pyqtgraph as pg

    from napari_dino_uad.core.evaluation.folder import EvaluationFolder

__all__ = ["FiguresPanel"]

_HEIGHT = 190
_LINE = (60, 140, 210)


class FiguresPanel(QWidget):
    """Pooled figures of one convention, and one curve at a time; hidden until there are any.

    Attributes
    ----------
    scope : ComboBox
        Which pixels count.
    curve : ComboBox
        Which curve is drawn.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder: EvaluationFolder | None = None
        self._figures: dict[str, Any] = {}
        self._colours = ("#262930", "#f0f1f2")
        self._plot: pg.PlotWidget | None = None
        about = "\n".join(f"{name}: {words}." for name, words in CONVENTIONS.items())
        self.scope = combo_box(
            list(CONVENTIONS), f"Which pixels count.\n{about}\nThe two cannot be compared."
        )
        self.scope.changed.connect(self._show)
        self.table = small_label()
        self.lines = small_label()
        self.curve = combo_box(lambda _: list(self._figures), "Which curve to draw.")
        self.curve.changed.connect(self._draw)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(wide_form([("Pixels", self.scope.native)]))
        for widget in (self.table, self.lines, self.curve.native):
            layout.addWidget(widget)
        self.hide()
        when_plots(self, self._build_plot)

    def _build_plot(self) -> None:
        self._plot = still_plot(_HEIGHT)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self._plot)
        paint_plot(self._plot, *self._colours)
        self._draw()

    def paint(self, background: str, text: str) -> None:
        """Take the colours of the theme."""
        self._colours = (background, text)
        if self._plot is not None:
            paint_plot(self._plot, background, text)

    def show_evaluation(self, folder: EvaluationFolder | None) -> None:
        """Show an evaluation, or nothing."""
        self._folder = folder
        self.setVisible(folder is not None)
        self._show()

    def _show(self, *_: Any) -> None:
        folder = self._folder
        if folder is None:
            return
        place = list(CONVENTIONS).index(self.scope.value)
        cells = "".join(
            f"<tr><td>{_unbroken(title)}</td><td>&nbsp; {_unbroken(texts[place])}</td></tr>"
            for title, texts in pooled_rows(folder.metrics)
        )
        self.table.setText(f"<table>{cells}</table>")
        self.lines.setText(" ".join(pooled_lines(folder.metrics)))
        chosen = self.curve.value
        figures = figures_of({"": folder.curves}, self.scope.value)
        self._figures = {figure.title: figure for figure in figures.values()}
        self.curve.reset_choices()
        if chosen is not None:
            # The same curve of the other convention.
            kind = str(chosen).partition(",")[0]
            self.curve.value = next(one for one in self._figures if one.startswith(kind))
        self._draw()

    def _draw(self, *_: Any) -> None:
        figure = self._figures.get(self.curve.value)
        if self._plot is None or figure is None:
            return
        self._plot.clear()
        [(_, points)] = figure.lines
        self._plot.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            pen=_LINE,
            antialias=True,
        )
        self._plot.setXRange(0, figure.widest, padding=0.02)
        self._plot.setYRange(0, 1, padding=0.02)
        self._plot.setLabel("bottom", figure.across)
        self._plot.setLabel("left", figure.up)


def _unbroken(text: str) -> str:
    return text.replace(" ", "&nbsp;")
