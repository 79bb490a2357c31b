"""The dialog that asks which of several DICOM series to open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Series

__all__ = ["SeriesPicker", "pick_series"]

_COLUMNS = ("Description", "Modality", "Slices", "Spacing (mm)", "Date", "Warning")


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
        layout.addWidget(
            QLabel(f"{folder} holds {len(series)} series. Which one should be opened?")
        )
        self.table = QTableWidget(len(series), len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        for row, one in enumerate(series):
            texts = (
                one.label,
                one.modality,
                str(one.slices),
                " x ".join(f"{value:.2f}" for value in one.spacing_mm),
                one.date,
                one.warning or "",
            )
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                if column == 2:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.table.setItem(row, column, item)
        self.table.resizeColumnsToContents()
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.selectRow(0)
        self.table.doubleClicked.connect(self.accept)
        layout.addWidget(self.table)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel
        )
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)
        self.resize(760, 320)

    @property
    def chosen(self) -> Series:
        """The series that is selected."""
        return self._series[max(0, self.table.currentRow())]


def pick_series(folder: str, series: Sequence[Series]) -> Series | None:
    """Ask which series to open; return None if the user cancelled."""
    picker = SeriesPicker(folder, series, QApplication.activeWindow())
    return picker.chosen if picker.exec() else None
