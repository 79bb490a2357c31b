"""The controls of a review: decide, note, edit, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_dino_uad.core.maps.finding_rows import FindingRow
    from napari_dino_uad.core.maps.review import Review

__all__ = ["ReviewBar"]

_NO_ROW = "Select a finding in the table first."


class ReviewBar(QWidget):
    """Buttons and the note of the selected finding.

    Signals
    -------
    decided : str
        "accepted", "rejected" or "open".
    noted : str
        Another note.
    stepped : int
        1 to the next finding, -1 to the one before.
    undone, redone
        The last decision or note is taken back, or repeated.
    edit_asked : bool
        The brush is wanted, or done with.
    """

    decided = Signal(str)
    noted = Signal(str)
    stepped = Signal(int)
    undone = Signal()
    redone = Signal()
    edit_asked = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.accept = _button("Accept", checkable=True)
        self.reject = _button("Reject", checkable=True)
        self.edit = _button("Edit", checkable=True)
        self.previous = _button("◀", "Finding before this one (P)")
        self.next = _button("▶", "Next finding (N)")
        self.undo = _button("↶")
        self.redo = _button("↷")
        self.note = QLineEdit()
        self._label = 0
        for button in (self.previous, self.next, self.undo, self.redo):
            button.setFixedWidth(30)
        row = QHBoxLayout()
        row.setSpacing(4)
        for button in (self.previous, self.next, self.accept, self.reject, self.edit):
            row.addWidget(button)
        row.addWidget(self.undo)
        row.addWidget(self.redo)
        note = QHBoxLayout()
        note.addWidget(QLabel("Note"))
        note.addWidget(self.note, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addLayout(note)
        self.accept.clicked.connect(lambda on: self.decided.emit("accepted" if on else "open"))
        self.reject.clicked.connect(lambda on: self.decided.emit("rejected" if on else "open"))
        self.edit.clicked.connect(lambda on: self.edit_asked.emit(bool(on)))
        self.previous.clicked.connect(lambda _: self.stepped.emit(-1))
        self.next.clicked.connect(lambda _: self.stepped.emit(1))
        self.undo.clicked.connect(lambda _: self.undone.emit())
        self.redo.clicked.connect(lambda _: self.redone.emit())
        self.note.editingFinished.connect(self._on_note)
        self._written = ""
        self.show_row(None)
        self.show_history(None)
        self.allow_edit("")

    def show_row(self, row: FindingRow | None) -> None:
        """Show the decision and the note of a finding, or that none is selected."""
        self.take_note()
        self._label = 0 if row is None else row.label
        for button, decision, tooltip in (
            (self.accept, "accepted", "This finding is real (A). Again takes it back."),
            (self.reject, "rejected", "A false alarm (R): grey, and not in the accepted total."),
        ):
            button.setEnabled(row is not None)
            button.setChecked(row is not None and row.decision == decision)
            button.setToolTip(_NO_ROW if row is None else tooltip)
        self.note.setEnabled(row is not None)
        self.note.setToolTip(
            _NO_ROW if row is None else "A note on this finding, for all exports and the report."
        )
        self._written = "" if row is None else row.note
        with QSignalBlocker(self.note):
            self.note.setText(self._written)
        self.note.setPlaceholderText("" if row is None else f"Note on finding {row.label}")

    def show_history(self, review: Review | None) -> None:
        """Show what can be undone and redone."""
        for button, verb, key, text in (
            (self.undo, "Undo", "Ctrl+Z", "" if review is None else review.undo_text),
            (self.redo, "Redo", "Ctrl+Shift+Z", "" if review is None else review.redo_text),
        ):
            button.setEnabled(bool(text))
            button.setToolTip(f"{verb} ({key}): {text}" if text else f"Nothing to {verb.lower()}")

    def allow_edit(self, why_not: str) -> None:
        """Enable the brush, or say why there is none."""
        self.edit.setEnabled(not why_not)
        self.edit.setToolTip(
            why_not
            or "Correct findings with the brush: paint on one to add to it, elsewhere to mark a "
            "lesion that was missed; E erases, Ctrl+Z takes a stroke back. Findings are measured "
            "again after each stroke."
        )

    def allow_steps(self, count: int) -> None:
        """Enable the buttons to the findings before and after."""
        for button, tooltip in (
            (self.previous, "Finding before this one (P)"),
            (self.next, "Next finding (N)"),
        ):
            button.setEnabled(count > 0)
            button.setToolTip(tooltip if count else "No findings yet.")

    def take_note(self) -> None:
        """Keep a note that is still being typed."""
        if self._label and self.note.text().strip() != self._written:
            self._on_note()

    def _on_note(self) -> None:
        text = self.note.text().strip()
        if self._label and text != self._written:
            self._written = text
            self.noted.emit(text)


def _button(text: str, tooltip: str = "", *, checkable: bool = False) -> Any:
    button = QPushButton(text)
    button.setToolTip(tooltip)
    button.setCheckable(checkable)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.setMinimumWidth(28)
    return button
