"""Controls of a form, made alike in every dock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from magicgui.widgets import ComboBox
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)

__all__ = [
    "add_rows",
    "browse_button",
    "combo_box",
    "in_row",
    "line_edit",
    "number_box",
    "text_of",
    "wide_form",
]

# A combo box may get this narrow; without it the longest choice would widen the dock.
_NARROWEST = 60


def wide_form(rows: Sequence[tuple[str, QWidget | QLayout]] = ()) -> QFormLayout:
    """Make a form whose fields use the full width.

    Parameters
    ----------
    rows : sequence of (str, QWidget or QLayout)
        Label and field of each row; a field without a label spans the row.
    """
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    add_rows(form, rows)
    return form


def add_rows(form: QFormLayout, rows: Sequence[tuple[str, QWidget | QLayout]]) -> None:
    """Add rows to a form, as in `wide_form`."""
    for label, field in rows:
        if label:
            form.addRow(label, field)
        else:
            form.addRow(field)


def combo_box(choices: Sequence[Any] | Callable[[Any], Sequence[Any]], tooltip: str) -> ComboBox:
    """Make a combo box that can get narrower than its longest choice."""
    box = ComboBox(choices=choices)
    box.native.setMinimumWidth(_NARROWEST)
    box.native.setToolTip(tooltip)
    return box


def number_box(lowest: int, highest: int, tooltip: str) -> QSpinBox:
    """Make a box for an integer in a range."""
    box = QSpinBox()
    box.setRange(lowest, highest)
    box.setToolTip(tooltip)
    return box


def line_edit(placeholder: str, tooltip: str) -> QLineEdit:
    """Make a line of text that shows what an empty one stands for."""
    edit = QLineEdit()
    edit.setPlaceholderText(placeholder)
    edit.setToolTip(tooltip)
    return edit


def text_of(edit: QLineEdit) -> str | None:
    """Return the text without the spaces around it, or None if it is empty."""
    return edit.text().strip() or None


def browse_button(tooltip: str, chosen: Callable[[], None]) -> QPushButton:
    """Make the small button beside a path that opens a dialog."""
    button = QPushButton("…")
    button.setFixedWidth(32)
    button.setToolTip(tooltip)
    button.clicked.connect(lambda _: chosen())
    return button


def in_row(*widgets: QWidget) -> QHBoxLayout:
    """Lay widgets side by side."""
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row
