"""The choice whether scans open with this plugin without asking."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_dino_uad.widgets.controls import small_label
from napari_dino_uad.widgets.default_reader import (
    clear_default,
    is_default,
    make_default,
    other_readers,
)

__all__ = ["DefaultChoice"]


class DefaultChoice(QWidget):
    """A check box, and a question where the user has chosen another reader before."""

    def __init__(self) -> None:
        super().__init__()
        self.box = QCheckBox("Open scans and folders without asking")
        self.box.setToolTip(
            "napari opens NIfTI, NRRD, MHA, DICOM and folders with DINO UAD, and does not ask "
            "which reader to take."
        )
        self.others = small_label()
        self.override = QPushButton("Take these too")
        self.override.setToolTip("Replace the readers that you chose for these files.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.box, self.others, self.override):
            layout.addWidget(widget)
        self.box.toggled.connect(self._on_box)
        self.override.clicked.connect(self._on_override)
        self.refresh()

    def refresh(self) -> None:
        """Show napari's present setting."""
        self._show(is_default())

    def showEvent(self, event: object) -> None:
        """Read the setting again: it may have been changed in napari's preferences."""
        self.refresh()
        super().showEvent(event)

    def _show(self, checked: bool) -> None:
        others = other_readers() if checked else {}
        with QSignalBlocker(self.box):
            self.box.setChecked(checked)
        for widget in (self.others, self.override):
            widget.setVisible(bool(others))
        if others:
            files = ", ".join(sorted({one.lower() for one in others}))
            readers = ", ".join(sorted(set(others.values())))
            self.others.setText(f"You chose {readers} for {files}; that stays.")

    def _on_box(self, checked: bool) -> None:
        if checked:
            make_default()
        else:
            clear_default()
        self._show(checked)

    def _on_override(self) -> None:
        make_default(override=True)
        self._show(True)
