"""Dialogs that ask which of several DICOM series, or volumes of a file, to open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QLabel,
    QListWidget,
    QStyle,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dino_uad.widgets.reading import Cancelled
from napari_dino_uad.widgets.window import in_theme, main_window

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Series

__all__ = ["SeriesPicker", "VolumePicker", "pick_series", "pick_volume"]

_COLUMNS = ("Description", "Modality", "Slices", "Spacing (mm)", "Date", "Geometry")
_SLICES, _GEOMETRY = 2, 5
# Widths in pixels: the longest description shown in one line, the dialog, and its height.
_DESCRIPTION, _WIDTH, _HEIGHTS = 260, 960, (240, 640)
# Room in a column beside its text.
_SPARE = 10
_SOUND = "no fault found"


class SeriesPicker(QDialog):
    """A dialog with a table of the series of a folder, the largest first.

    Parameters
    ----------
    folder : str
        Name of the folder.
    series : sequence of Series
        Its series.
    parent : QWidget, optional
    """

    def __init__(
        self, folder: str, series: Sequence[Series], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._series = series
        self.setWindowTitle("Choose a DICOM series")
        layout = QVBoxLayout(self)
        question = QLabel(f"{folder} holds {len(series)} series. Which one should be opened?")
        question.setWordWrap(True)
        layout.addWidget(question)
        self.table = self._table()
        layout.addWidget(self.table)
        layout.addWidget(_buttons(self))
        in_theme(self)
        self.resize(_WIDTH, _HEIGHTS[0])

    @property
    def chosen(self) -> Series:
        """The series that is selected."""
        return self._series[max(0, self.table.currentRow())]

    def _table(self) -> QTableWidget:
        table = QTableWidget(len(self._series), len(_COLUMNS))
        table.setHorizontalHeaderLabels(_COLUMNS)
        table.verticalHeader().hide()
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setWordWrap(True)
        warning = self.style().standardIcon(QStyle.StandardPixmap.SP_MessageBoxWarning)
        for row, one in enumerate(self._series):
            for column, text in enumerate(_texts(one)):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                if column == _SLICES:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                if column == _GEOMETRY and text != _SOUND:
                    item.setIcon(warning)
                table.setItem(row, column, item)
        # Warnings wrap in what is left, and rows grow with them.
        table.horizontalHeader().setSectionResizeMode(_GEOMETRY, QHeaderView.ResizeMode.Stretch)
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        table.selectRow(0)
        table.doubleClicked.connect(self.accept)
        return table

    def showEvent(self, event: object) -> None:
        """Make the dialog high enough for its rows, within reason."""
        super().showEvent(event)
        # The theme has set the fonts by now.
        self.table.resizeColumnsToContents()
        for column in range(_GEOMETRY):
            width = self.table.columnWidth(column) + _SPARE
            self.table.setColumnWidth(column, min(width, _DESCRIPTION))
        rows = self.table.verticalHeader().length() + self.table.horizontalHeader().height()
        spare = self.height() - self.table.viewport().height()
        lowest, highest = _HEIGHTS
        self.resize(self.width(), min(max(lowest, rows + spare), highest))
        self.table.setFocus()


def _texts(series: Series) -> tuple[str, ...]:
    """Return the text of each column."""
    return (
        series.label,
        series.modality,
        str(series.slices),
        " x ".join(f"{value:.2f}" for value in series.spacing_mm),
        series.date,
        ". ".join(filter(None, (series.warning, *series.notices))) or _SOUND,
    )


def pick_series(folder: str, series: Sequence[Series]) -> Series:
    """Ask which series to open; raise `Cancelled` if none."""
    chosen: Series = _asked(SeriesPicker(folder, series, main_window()))
    return chosen


class VolumePicker(QDialog):
    """A list of the volumes of a file; the first is selected.

    Parameters
    ----------
    file : str
        Name of the file.
    volumes : sequence of str
        What they are, such as "volume 1 of 32, b = 1000".
    parent : QWidget, optional
    """

    def __init__(self, file: str, volumes: Sequence[str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a volume")
        layout = QVBoxLayout(self)
        question = QLabel(f"{file} has {len(volumes)} volumes. Open which one?")
        question.setWordWrap(True)
        layout.addWidget(question)
        self.list = QListWidget()
        self.list.addItems(list(volumes))
        self.list.setCurrentRow(0)
        self.list.doubleClicked.connect(self.accept)
        layout.addWidget(self.list)
        layout.addWidget(_buttons(self))
        in_theme(self)
        self.resize(420, 320)

    @property
    def chosen(self) -> int:
        """Number of the volume that is selected, counted from 1."""
        return max(0, self.list.currentRow()) + 1


def _buttons(dialog: QDialog) -> QDialogButtonBox:
    kinds = QDialogButtonBox.StandardButton
    buttons = QDialogButtonBox(kinds.Open | kinds.Cancel)
    buttons.button(kinds.Open).setDefault(True)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    return buttons


def pick_volume(file: str, volumes: Sequence[str]) -> int:
    """Ask which volume to open, counted from 1; raise `Cancelled` if none."""
    chosen: int = _asked(VolumePicker(file, volumes, main_window()))
    return chosen


def _asked(picker: SeriesPicker | VolumePicker) -> Any:
    """Return what is chosen in a picker; raise `Cancelled` if nothing is."""
    try:
        if not picker.exec():
            raise Cancelled
        return picker.chosen
    finally:
        # The window would keep it, and each further one.
        picker.deleteLater()
