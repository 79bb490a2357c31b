"""The ranked table of findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor, QPixmap

from napari_dino_uad.widgets.tables import SortedTable

if TYPE_CHECKING:
    from napari_dino_uad.core.maps.finding_rows import FindingRow

__all__ = ["FindingsTable"]

_MARKS = {"open": "", "accepted": "✓", "rejected": "✗"}
_WORDS = {"open": "not reviewed", "accepted": "accepted", "rejected": "rejected"}
_SWATCH = 10
# Rows that are seen at once.
_SHOWN = 7


@dataclass(frozen=True)
class _Column:
    """A column: its title, tooltip, text and the value it is sorted by."""

    title: str
    tooltip: str
    text: Callable[[FindingRow], str]
    key: Callable[[FindingRow], Any]
    number: bool = True


def _centre(row: FindingRow) -> str:
    return row.centre.removesuffix(" mm")


def _size(row: FindingRow) -> str:
    return f"{row.size:.2f}" if row.unit == "ml" else f"{row.size:.0f}"


_COLUMNS = (
    _Column(
        "#", "Number and colour of the finding; ✓ accepted, ✗ rejected",
        lambda row: f"{row.label} {_MARKS[row.decision]}".rstrip(), lambda row: row.label, False,
    ),
    _Column("ml", "Size", _size, lambda row: row.size),
    _Column(
        "Peak", "Highest anomaly score",
        lambda row: f"{row.finding.peak_score:.2f}", lambda row: row.finding.peak_score,
    ),
    _Column(
        "p", "Share of healthy tissue that scores as high as the peak",
        lambda row: f"{row.finding.p_value:.1g}", lambda row: row.finding.p_value,
    ),
    _Column(
        "Slices", "First and last slice",
        lambda row: row.slices,
        lambda row: (row.finding.first_slice, row.finding.last_slice),
    ),
    # "right" for "right side": the title says the rest.
    _Column(
        "Side", "Place in the tissue",
        lambda row: row.side.replace(" side", ""), lambda row: row.side, False,
    ),
    _Column(
        "Centre, mm",
        "Centre, in mm from the origin of the scan: right or left, front or back, up or down. "
        "RAS: bare coordinates, where the origin is not in the middle of the scan.",
        _centre, lambda row: row.finding.centroid_ras_mm or (), False,
    ),
    _Column(
        "Mean", "Mean anomaly score",
        lambda row: f"{row.finding.mean_score:.2f}", lambda row: row.finding.mean_score,
    ),
)  # fmt: skip


class _Model(QAbstractTableModel):
    """The rows of the detection shown."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[FindingRow] = []
        self._colours: dict[int, QColor] = {}
        self._unit = "ml"

    def show(self, rows: Sequence[FindingRow], colours: dict[int, QColor]) -> None:
        """Show other rows; where only decisions changed, the view keeps its place."""
        same = [row.finding for row in rows] == [row.finding for row in self.rows]
        if not same:
            self.beginResetModel()
        self.rows, self._colours = list(rows), colours
        if rows and rows[0].unit != self._unit:
            self._unit = rows[0].unit
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 1, 1)
        if not same:
            self.endResetModel()
        elif rows:
            last = self.index(len(rows) - 1, len(_COLUMNS) - 1)
            self.dataChanged.emit(self.index(0, 0), last)

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Return the number of findings."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else len(_COLUMNS)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return the title or tooltip of a column."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._unit if section == 1 else _COLUMNS[section].title
        if role == Qt.ItemDataRole.ToolTipRole:
            return _COLUMNS[section].tooltip
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell."""
        if not index.isValid() or index.row() >= len(self.rows):
            return None
        row, column = self.rows[index.row()], _COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row)
        if role == Qt.ItemDataRole.UserRole:
            return column.key(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and column.number:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.ToolTipRole:
            parts = [f"Finding {row.label}", _WORDS[row.decision], row.side, row.note]
            return ", ".join(part for part in parts if part)
        if role == Qt.ItemDataRole.DecorationRole and index.column() == 0:
            return _swatch(self._colours.get(row.label))
        if row.decision == "rejected":
            return _rejected(role)
        return None


def _rejected(role: int) -> Any:
    """Return how the cells of a rejected finding look."""
    if role == Qt.ItemDataRole.ForegroundRole:
        # Readable on napari's dark and on its light background.
        return QColor(135, 135, 135)
    if role == Qt.ItemDataRole.FontRole:
        from qtpy.QtGui import QFont

        font = QFont()
        font.setPointSizeF(_small(font.pointSizeF()))
        font.setStrikeOut(True)
        return font
    return None


def _small(points: float) -> float:
    return max(7.0, points * 0.9)


def _swatch(colour: QColor | None) -> QPixmap | None:
    if colour is None:
        return None
    square = QPixmap(_SWATCH, _SWATCH)
    square.fill(colour)
    return square


class FindingsTable(SortedTable):
    """Findings, largest first; a click on a title sorts them.

    Signals
    -------
    chosen : int
        The user clicked a finding, pressed Enter on it or moved to it; its label.
    selected : int
        Another finding is selected; its label, or 0 for none.
    """

    chosen = Signal(int)
    selected = Signal(int)

    def __init__(self) -> None:
        self._source = _Model()
        super().__init__(self._source)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setToolTip("Click a finding to go there.")
        font = self.font()
        font.setPointSizeF(_small(font.pointSizeF()))
        self.setFont(font)
        header = self.horizontalHeader()
        header.setFont(font)
        header.setStyleSheet("QHeaderView::section { padding: 1px 2px; }")
        self._fit_columns()
        self.show_count(_SHOWN)
        self.entered.connect(self._on_entered)
        self.clicked.connect(lambda _: self.chosen.emit(self.label))
        self.selectionModel().currentRowChanged.connect(lambda *_: self.selected.emit(self.label))

    def show_rows(self, rows: Sequence[FindingRow], colours: dict[int, QColor]) -> None:
        """Show findings, each with the colour of its outline; the selected one stays selected."""
        label = self.label
        self._source.show(rows, colours)
        for number, column in enumerate(_COLUMNS):
            # A picture without a spacing has no places in mm, and one of a single slice no slices.
            self.setColumnHidden(number, bool(rows) and not any(column.text(row) for row in rows))
        self._fit_columns()
        if self.label != label and any(row.label == label for row in rows):
            self.select(label)
        self.selected.emit(self.label)

    def _fit_columns(self) -> None:
        """Make columns as wide as their texts; Qt would leave room for an arrow in each title."""
        header = self.horizontalHeader()
        for column in range(self._sorted.columnCount()):
            title = str(self._sorted.headerData(column, Qt.Orientation.Horizontal))
            wanted = header.fontMetrics().horizontalAdvance(title) + 14
            self.setColumnWidth(column, max(wanted, self.sizeHintForColumn(column) + 2))

    @property
    def rows(self) -> list[FindingRow]:
        """The findings shown."""
        return self._source.rows

    @property
    def label(self) -> int:
        """Label of the selected finding; 0 if none is."""
        row = self.current_row
        return 0 if row is None else self._source.rows[row].label

    @property
    def row(self) -> FindingRow | None:
        """The selected finding."""
        label = self.label
        return next((row for row in self._source.rows if row.label == label), None)

    @property
    def order(self) -> list[int]:
        """Labels in the order shown."""
        return [self._source.rows[row].label for row in self.row_order]

    def select(self, label: int) -> None:
        """Select a finding."""
        if label in self.order:
            self.select_row(self.order.index(label))

    def step(self, by: int) -> None:
        """Go to the next finding in the order shown, or to the one before; round at the end."""
        order = self.order
        if not order:
            return
        if self.label:
            target = order[(order.index(self.label) + by) % len(order)]
        else:
            target = order[0 if by > 0 else -1]
        self.select(target)
        self.chosen.emit(target)

    def _on_entered(self) -> None:
        if self.label:
            self.chosen.emit(self.label)
