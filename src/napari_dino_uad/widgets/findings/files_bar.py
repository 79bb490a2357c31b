"""Exports of findings, and reviews saved and opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_dino_uad.core.dicom_export.source import why_no_dicom
from napari_dino_uad.core.maps.review import REVIEW_ENDING
from napari_dino_uad.widgets.controls import allow, small_label
from napari_dino_uad.widgets.files import choose_file
from napari_dino_uad.widgets.findings.export_dialog import ExportDialog
from napari_dino_uad.widgets.findings.exporting import ExportChoice, exporter
from napari_dino_uad.widgets.findings.sessions import (
    Reopened,
    reopener,
    review_saver,
    scan_readers,
    show_review,
)
from napari_dino_uad.widgets.results.texts import why_no_saving
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.widgets.results.store import Results

__all__ = ["FilesBar"]

_FOLDER = "review folder"
_KINDS = f"Reviews (*{REVIEW_ENDING})"


class FilesBar(QWidget):
    """Buttons for the files of the result shown, and a line that says what became of them.

    Parameters
    ----------
    viewer : Viewer
    results : Results
        Of the viewer.

    Signals
    -------
    writing
        The result is written next; what is still being typed has to be kept now.
    """

    writing = Signal()

    def __init__(self, viewer: Viewer, results: Results) -> None:
        super().__init__()
        self._viewer, self._results = viewer, results
        self._opening: list[Image] = []
        self.job = Job(self)
        self.export_button = QPushButton("Export…")
        self.save_button = QPushButton("Save review…")
        self.open_button = QPushButton("Open review…")
        self.export_button.setToolTip("Write map, findings and report into a folder.")
        self.save_button.setToolTip(
            "Keep map, settings, corrections, decisions and notes, to go on later."
        )
        self.open_button.setToolTip("Show a saved review with its decisions, without detecting.")
        self.message = small_label()
        buttons = QHBoxLayout()
        for button in (self.export_button, self.save_button, self.open_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.message)
        self.export_button.clicked.connect(lambda _: self._ask_export())
        self.save_button.clicked.connect(lambda _: self._ask_save())
        self.open_button.clicked.connect(lambda _: self._ask_open())
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(self._on_done)
        self.job.failed.connect(self.complain)
        self.job.stopped.connect(self.refresh)

    def refresh(self, *_: Any) -> None:
        """Enable what can be used now, and explain why the rest cannot."""
        why = why_no_saving(self._results.shown)
        if self.job.running:
            why = "Wait until the files are done."
        allow(self.export_button, why)
        allow(self.save_button, why)
        allow(self.open_button, why if self.job.running else "")

    # Writing ------------------------------------------------------------------------------

    def _ask_export(self) -> None:
        detection = self._results.shown
        if detection is None or detection.anomaly is None:
            return
        volume = detection.anomaly.volume
        dialog = ExportDialog(self, volume.name, why_no_dicom(volume))
        dialog.accepted.connect(lambda: self.export(dialog.target, dialog.choice))
        dialog.finished.connect(lambda _: dialog.deleteLater())
        dialog.open()

    def export(self, folder: Path | None, choice: ExportChoice) -> None:
        """Write files into a folder, in the background."""
        detection = self._results.shown
        if detection is None or detection.anomaly is None or folder is None:
            return
        self.writing.emit()
        self._results.take_painting()
        self.job.start(exporter(detection, folder, choice))
        self.refresh()

    def _ask_save(self) -> None:
        detection = self._results.shown
        if detection is None or detection.anomaly is None:
            return
        name = f"{detection.anomaly.volume.name}{REVIEW_ENDING}"
        start = str(Path(recall(_FOLDER)) / name)
        file, _ = QFileDialog.getSaveFileName(self, "Save the review", start, _KINDS)
        if file:
            path = Path(file)
            if not path.name.endswith(REVIEW_ENDING):
                path = path.with_name(path.name.removesuffix(".json") + REVIEW_ENDING)
            remember(_FOLDER, str(path.parent))
            self.save_review(path)

    def save_review(self, path: Path) -> None:
        """Save the review, in the background."""
        detection = self._results.shown
        if detection is None or detection.anomaly is None:
            return
        self.writing.emit()
        self._results.take_painting()
        self.job.start(review_saver(detection, path))
        self.refresh()

    # Opening ------------------------------------------------------------------------------

    def _ask_open(self) -> None:
        file = choose_file(self, "Open a review", _FOLDER, _KINDS)
        if file is not None:
            self.open_review(file)

    def open_review(self, path: Path) -> None:
        """Show a saved review, read in the background."""
        self._opening, readers = scan_readers(self._viewer)
        self.job.start(reopener(path, readers))
        self.refresh()

    # Messages -----------------------------------------------------------------------------

    def _on_progress(self, progress: Progress) -> None:
        self.say(f"{progress.step}: {progress.detail}…" if progress.detail else progress.step)

    def _on_done(self, result: Any) -> None:
        if isinstance(result, str):
            self.say(result)
            return
        reopened: Reopened = result
        show_review(self._viewer, self._results, self._opening, reopened)
        self._opening = []
        self.say("The review is as it was saved.")

    def say(self, text: str) -> None:
        """Show a message."""
        self.message.setStyleSheet("")
        self.message.setText(text)

    def complain(self, text: str) -> None:
        """Show an error."""
        # Readable on napari's dark and on its light background.
        self.message.setStyleSheet("color: #e8604c; font-weight: bold;")
        self.message.setText(text)
