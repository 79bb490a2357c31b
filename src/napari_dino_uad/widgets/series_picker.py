"""Dialogs that ask which of several DICOM series, or volumes of a file, to open."""

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
    QListWidget,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Series

__all__ = ["SeriesPicker", "VolumePicker", "pick_series", "pick_volume"]

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
        layout.addWidget(_buttons(self))
        self.resize(760, 320)

    @property
    def chosen(self) -> Series:
        """The series that is selected."""
        return self._series[max(0, self.table.currentRow())]


def pick_series(folder: str, series: Sequence[Series]) -> Series | None:
    """Ask which series to open; return None if the user cancelled."""
    picker = SeriesPicker(folder, series, QApplication.activeWindow())
    return picker.chosen if picker.exec() else None


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

    def __init__(self, file: str, volumes: Sequence[str], parent: object = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a volume")
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(f"{file} has {len(volumes)} volumes. Open which one?"))
        self.list = QListWidget()
        self.list.addItems(list(volumes))
        self.list.setCurrentRow(0)
        self.list.doubleClicked.connect(self.accept)
        layout.addWidget(self.list)
        layout.addWidget(_buttons(self))
        self.resize(420, 320)

    @property
    def chosen(self) -> int:
        """Number of the volume that is selected, counted from 1."""
        return max(0, self.list.currentRow()) + 1


def _buttons(dialog: QDialog) -> QDialogButtonBox:
    buttons = QDialogButtonBox(QDialogButtonBox.Open | QDialogButtonBox.Cancel)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    return buttons


def pick_volume(file: str, volumes: Sequence[str]) -> int | None:
    """Ask which volume to open, counted from 1; None where the user cancelled."""
    picker = VolumePicker(file, volumes, QApplication.activeWindow())
    return picker.chosen if picker.exec() else None
