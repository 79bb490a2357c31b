"""Tables of rows that a click on a title sorts."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractItemModel, QModelIndex, QSortFilterProxyModel, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableView

__all__ = ["SortedRows", "SortedTable"]

# Room above and below the text of a row, in pixels.
_ROOM = 6


class SortedRows(QSortFilterProxyModel):
    """Rows in the order the user chose, by the values of a column; empty cells come first."""

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:
        """Compare two cells by their values."""
        role = Qt.ItemDataRole.UserRole
        one, other = (self.sourceModel().data(index, role) for index in (left, right))
        if one is None or other is None:
            return one is None and other is not None
        if isinstance(one, str) or isinstance(other, str):
            return str(one).lower() < str(other).lower()
        return bool(one < other)


class SortedTable(QTableView):
    """A table of whole rows, one of which is selected; it never widens its dock.

    Parameters
    ----------
    source : QAbstractItemModel
        The rows; the user sorts what is shown of them.

    Signals
    -------
    entered
        Enter was pressed on the table.
    """

    entered = Signal()

    def __init__(self, source: QAbstractItemModel) -> None:
        super().__init__()
        self._sorted = SortedRows()
        self._sorted.setSourceModel(source)
        self.setModel(self._sorted)
        self.setSortingEnabled(True)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setAlternatingRowColors(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(24)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)

    def show_count(self, rows: int) -> None:
        """Take the height of so many rows, in the table's font."""
        height = self.fontMetrics().height() + _ROOM
        self.verticalHeader().setDefaultSectionSize(height)
        self.setFixedHeight((rows + 2) * height)

    @property
    def current_row(self) -> int | None:
        """Number of the selected row in the source; None if none is selected."""
        index = self.currentIndex()
        return self._sorted.mapToSource(index).row() if index.isValid() else None

    @property
    def row_order(self) -> list[int]:
        """Numbers of the source's rows in the order shown."""
        return [
            self._sorted.mapToSource(self._sorted.index(row, 0)).row()
            for row in range(self._sorted.rowCount())
        ]

    def select_row(self, place: int) -> None:
        """Select the row at a place in the order shown."""
        self.setCurrentIndex(self._sorted.index(place, 0))

    def keyPressEvent(self, event: Any) -> None:
        """Report Enter instead of editing."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.entered.emit()
            return
        super().keyPressEvent(event)
