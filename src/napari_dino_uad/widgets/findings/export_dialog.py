"""The dialog that asks what to export, and where to."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_dino_uad.widgets.controls import rule, small_label
from napari_dino_uad.widgets.files import already_there, choose_folder
from napari_dino_uad.widgets.findings.exporting import ExportChoice
from napari_dino_uad.widgets.forms import browse_button, line_edit, text_of
from napari_dino_uad.widgets.settings import recall, remember

__all__ = ["ExportDialog"]

_FOLDER = "results folder"

_BOXES = (
    ("results", "Map, labels, table and record (NIfTI, CSV, JSON)",
     "On the grid of the scan's own file, with decisions and notes."),
    ("pdf", "Report (PDF)", "One page with the three highest findings pictured."),
    ("html", "Report (HTML)", "The same page for a browser; pictures are inside the file."),
    ("dicom_seg", "Findings (DICOM segmentation)",
     "On the slices of the DICOM series; each finding is a segment that names its decision."),
    ("dicom_map", "Map (DICOM parametric map)", "On the slices of the DICOM series."),
)  # fmt: skip
_OPTIONS = (
    ("rejected", "Rejected findings too",
     "They are marked as rejected. Without them, labels and tables have the others only."),
    ("named", "Name the scan in the report",
     "Off by default: names of files often hold names of patients."),
)  # fmt: skip


class ExportDialog(QDialog):
    """Asks what to export, and where to.

    Parameters
    ----------
    parent : QWidget
    scan_name : str
        The name that the files begin with.
    why_no_dicom : str
        Why DICOM is not possible; empty if it is.
    """

    def __init__(self, parent: QWidget, scan_name: str, why_no_dicom: str) -> None:
        super().__init__(parent)
        self._scan_name = scan_name
        self.setWindowTitle("Export findings")
        last = ExportChoice.last()
        self.boxes: dict[str, QCheckBox] = {}
        layout = QVBoxLayout(self)
        for name, text, tooltip in (*_BOXES, *_OPTIONS):
            if name == _OPTIONS[0][0]:
                layout.addWidget(rule())
            box = QCheckBox(text)
            box.setToolTip(tooltip)
            box.setChecked(bool(getattr(last, name)))
            if name.startswith("dicom") and why_no_dicom:
                box.setEnabled(False)
                box.setChecked(False)
                box.setToolTip(why_no_dicom)
            box.toggled.connect(self._update)
            self.boxes[name] = box
            layout.addWidget(box)
            if name == "dicom_map" and why_no_dicom:
                layout.addWidget(small_label(why_no_dicom))
        self.folder = line_edit("choose a folder", "Folder for the files")
        self.folder.setText(recall(_FOLDER))
        self.folder.textChanged.connect(self._update)
        row = QHBoxLayout()
        row.addWidget(QLabel("Folder"))
        row.addWidget(self.folder, 1)
        row.addWidget(browse_button("Choose the folder", self._browse))
        layout.addLayout(row)
        self.replaced = small_label()
        layout.addWidget(self.replaced)
        kinds = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(kinds.Ok | kinds.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout.addWidget(self.buttons)
        self.setMinimumWidth(420)
        self._update()

    @property
    def choice(self) -> ExportChoice:
        """What is chosen."""
        return ExportChoice(**{name: box.isChecked() for name, box in self.boxes.items()})

    @property
    def target(self) -> Path | None:
        """The folder; None if it is empty."""
        text = text_of(self.folder)
        return None if text is None else Path(text).expanduser()

    def _browse(self) -> None:
        folder = choose_folder(self, "Export into", _FOLDER)
        if folder is not None:
            self.folder.setText(str(folder))

    def _update(self, *_: object) -> None:
        """Enable Export once there is something to write, and a place for it."""
        button = self.buttons.button(QDialogButtonBox.StandardButton.Ok)
        report = self.boxes["pdf"].isChecked() or self.boxes["html"].isChecked()
        self.boxes["named"].setEnabled(report)
        why = "" if self.choice.any else "Choose at least one kind of file."
        why = why or ("" if self.target is not None else "Choose a folder.")
        button.setEnabled(not why)
        button.setToolTip(why)
        target = self.target
        paths = [] if target is None else self.choice.paths(target, self._scan_name)
        there = already_there(paths)
        button.setText("Replace" if there else "Export")
        self.replaced.setVisible(bool(there))
        self.replaced.setText(f"Already there, and replaced: {', '.join(there)}" if there else "")

    def accept(self) -> None:
        """Keep the choice and close."""
        self.choice.remember()
        remember(_FOLDER, str(self.target))
        super().accept()
