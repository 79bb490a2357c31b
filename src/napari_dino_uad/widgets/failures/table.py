"""The table of cases of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal

from napari_dino_uad.widgets.tables import SortedTable

__all__ = ["CaseTable"]

#: Title and tooltip of the columns that have short names; others keep theirs.
_TITLES = {
    "case": ("Case", "Name of the case"),
    "failure": ("Failure", "Largest missed lesion or false alarm of the case"),
    "average_precision": ("AP", "Average precision over tissue"),
    "auroc": ("AUROC", "Area under the ROC curve over tissue"),
    "aupro": ("AUPRO", "Overlap of regions up to 30 % FPR, over tissue"),
    "max_dice": ("max Dice", "Dice at the best threshold"),
    "lesions": ("Lesions", "Number of lesions"),
    "lesions_met": ("Met", "Lesions met by a finding"),
    "false_findings": ("False", "Findings that meet no lesion"),
    "lesion_ml": ("Lesion ml", "Volume of lesions"),
    "found_ml": ("Found ml", "Volume of findings"),
    "scan_score": ("Scan", "Score of the whole scan"),
    "note": ("Note", "Your note"),
}
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_WIDEST = 170
_SHOWN = 9


def _title(name: str) -> tuple[str, str]:
    if name in _TITLES:
        return _TITLES[name]
    for prefix, words in (("dice_at_fpr_", "Dice"), ("pro_at_fpr_", "PRO"), ("realised_", "FPR")):
        if name.startswith(prefix):
            rate = f"{100 * float(name.rpartition('_')[2]):g} %"
            return f"{words} {rate}", f"{words} at a nominal false-positive rate of {rate}"
    return name.replace("_", " "), name


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


class _Model(QAbstractTableModel):
    def __init__(self) -> None:
        super().__init__()
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self._unit = ""

    def show(self, columns: Sequence[str], rows: Sequence[dict[str, Any]], unit: str) -> None:
        """Show other rows."""
        self.beginResetModel()
        self._unit = unit
        self.columns, self.rows = list(columns), list(rows)
        self.endResetModel()

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Return the number of cases."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else len(self.columns)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return the title or tooltip of a column."""
        if orientation != Qt.Orientation.Horizontal or section >= len(self.columns):
            return None
        name = self.columns[section]
        title, about = _title(name)
        if name == "failure" and self._unit:
            title += f", {self._unit}"
        return {Qt.ItemDataRole.DisplayRole: title, Qt.ItemDataRole.ToolTipRole: about}.get(role)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell."""
        if not index.isValid() or index.row() >= len(self.rows):
            return None
        value = self.rows[index.row()].get(self.columns[index.column()])
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return _text(value)
        if role == Qt.ItemDataRole.UserRole:
            return value
        if role == Qt.ItemDataRole.TextAlignmentRole and isinstance(value, int | float):
            return _RIGHT
        return None


class CaseTable(SortedTable):
    """Cases with all their figures; a click on a title sorts them.

    Signals
    -------
    opened : str
        The user double-clicked a case or pressed Enter on it.
    """

    opened = Signal(str)

    def __init__(self) -> None:
        self._source = _Model()
        super().__init__(self._source)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setToolTip("Double-click a case to open it.")
        self.show_count(_SHOWN)
        self.entered.connect(self._on_entered)
        self.doubleClicked.connect(lambda _: self.opened.emit(self.case))

    def show_rows(
        self, columns: Sequence[str], rows: Sequence[dict[str, Any]], unit: str = ""
    ) -> None:
        """Show cases; the selected one stays selected, the order stays too.

        Parameters
        ----------
        columns : sequence of str
        rows : sequence of dict
        unit : str
            Of the failures' sizes; empty if they have several.
        """
        case, again = self.case, list(columns) != self._source.columns
        self._source.show(columns, rows, unit)
        if again:
            self._fit_columns()
            # The worst first.
            self.sortByColumn(list(columns).index("failure"), Qt.SortOrder.DescendingOrder)
        self.select(case)

    def _fit_columns(self) -> None:
        for column in range(self._sorted.columnCount()):
            title = str(self._sorted.headerData(column, Qt.Orientation.Horizontal))
            wanted = self.fontMetrics().horizontalAdvance(title) + 24
            width = max(wanted, self.sizeHintForColumn(column) + 8)
            self.setColumnWidth(column, min(width, _WIDEST))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The cases shown, in the order of the evaluation."""
        return self._source.rows

    @property
    def case(self) -> str:
        """Name of the selected case; empty if none is."""
        row = self.current_row
        return "" if row is None else str(self._source.rows[row]["case"])

    @property
    def order(self) -> list[str]:
        """Names of the cases in the order shown."""
        return [str(self._source.rows[row]["case"]) for row in self.row_order]

    def select(self, case: str) -> None:
        """Select a case, if it is shown."""
        order = self.order
        if case in order:
            self.select_row(order.index(case))

    def _on_entered(self) -> None:
        if self.case:
            self.opened.emit(self.case)
