"""The Findings widget: the table, the review, the profile, exports and saved reviews."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton

from napari_dino_uad.core.dicom_export.source import why_no_dicom
from napari_dino_uad.core.maps.findings import size_unit
from napari_dino_uad.core.maps.review import REVIEW_ENDING
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.widgets.controls import DockWidget, small_label
from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.files import choose_file
from napari_dino_uad.widgets.findings.exporting import ExportChoice, ExportDialog, exporter
from napari_dino_uad.widgets.findings.keys import StepKeys
from napari_dino_uad.widgets.findings.profile import ProfilePlot, profiler
from napari_dino_uad.widgets.findings.review_bar import ReviewBar
from napari_dino_uad.widgets.findings.sessions import (
    Reopened,
    reopener,
    review_saver,
    scan_readers,
    show_review,
)
from napari_dino_uad.widgets.findings.table import FindingsTable
from napari_dino_uad.widgets.layers import slice_index
from napari_dino_uad.widgets.navigation import CrossLines, show_voxel
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.results.texts import why_no_saving
from napari_dino_uad.widgets.results.worst import worst_place
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.finding_rows import FindingRow
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["FindingsWidget"]

_FOLDER = "review folder"
_KINDS = f"Reviews (*{REVIEW_ENDING})"
_HELD = "This scan is not of the kind the model knows; press Show anyway in Detect."
_NOTHING = "No findings yet: press Detect in the Detect dock, or open a saved review."


class FindingsWidget(DockWidget):
    """Judge the findings of the scan chosen, one by one.

    All it shows is read from the `Detection` that the viewer's results show.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        # napari passes a proxy of the viewer, a new one each time.
        self._viewer: Viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._results = results_of(self._viewer)
        self._shown: Detection | None = None
        self._places: dict[int, tuple[int, ...]] = {}
        self._profiled: AnomalyMap | None = None
        self._profile_of = (0, True, False)
        self._opening: list[Image] = []
        self._build()
        self.keys = StepKeys(self._viewer, self, self.table.step)
        self.lines = CrossLines(self._viewer)
        self._connect()
        self.refresh()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.job, self.profile_job = Job(self), Job(self)
        self.summary = small_label()
        self.table = FindingsTable()
        self.details = small_label()
        self.bar = ReviewBar()
        self.profile = ProfilePlot()
        self.profile_title = small_label()
        self.export_button = QPushButton("Export…")
        self.save_button = QPushButton("Save review…")
        self.open_button = QPushButton("Open review…")
        self.open_button.setToolTip("Show a saved review with its decisions, without detecting.")
        self.message = small_label()
        buttons = QHBoxLayout()
        for button in (self.export_button, self.save_button, self.open_button):
            buttons.addWidget(button)
        notice = small_label(RESEARCH_USE)
        notice.setAlignment(Qt.AlignmentFlag.AlignCenter)
        parts = (self.summary, self.table, self.details, self.bar, self.profile_title, self.profile)
        for widget in parts:
            self.content.addWidget(widget)
        self.content.addLayout(buttons)
        self.content.addWidget(self.message)
        self.content.addStretch()
        self.content.addWidget(notice)

    def _connect(self) -> None:
        self.table.chosen.connect(self.jump)
        self.table.selected.connect(self._on_selected)
        self.bar.decided.connect(self.decide)
        self.bar.noted.connect(self.note)
        self.bar.stepped.connect(self.table.step)
        self.bar.undone.connect(self.undo)
        self.bar.redone.connect(self.redo)
        self.bar.edit_asked.connect(self.edit)
        self.profile.clicked.connect(self._go_to_slice)
        self.export_button.clicked.connect(lambda _: self._ask_export())
        self.save_button.clicked.connect(lambda _: self._ask_save())
        self.open_button.clicked.connect(lambda _: self._ask_open())
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(self._on_done)
        self.job.failed.connect(self._complain)
        self.job.stopped.connect(self._update_buttons)
        self.profile_job.succeeded.connect(self._on_profile)
        for signal, slot in self._outside():
            signal.connect(slot)
        dims = self._viewer.dims.events
        dims.current_step.connect(self._on_step)
        dims.order.connect(self._on_step)
        dims.ndisplay.connect(self._on_step)

    def _outside(self) -> list[tuple[Any, Any]]:
        """List the signals of objects that outlive the widget, with their slots here."""
        return [
            (self._results.scan_chosen, self.refresh),
            (self._results.changed, self.refresh),
            (self._results.updated, self._on_updated),
            (self._results.painted, self._on_painted),
            (crosshair_of(self._viewer).moved, self._on_crosshair),
        ]

    def release(self) -> None:
        """Stop all jobs, take away keys and crosshair, and disconnect from the viewer."""
        for signal, slot in self._outside():
            try:
                signal.disconnect(slot)
            except (RuntimeError, TypeError):
                # Released before.
                break
        else:
            dims = self._viewer.dims.events
            for event in (dims.current_step, dims.order, dims.ndisplay):
                event.disconnect(self._on_step)
            self.keys.release()
            self.lines.remove()
        super().release()

    # Showing ------------------------------------------------------------------------------

    def _on_updated(self, detection: Detection) -> None:
        if detection is self._results.shown:
            self.refresh()

    def _on_painted(self, _: Detection) -> None:
        self._results.search.start()

    def refresh(self, *_: Any) -> None:
        """Show the findings of the scan chosen."""
        detection = self._results.shown
        if detection is not self._shown:
            self.bar.take_note()
            self._shown = detection
            self._places = {}
            self.lines.remove()
        rows = [] if detection is None or detection.held else detection.rows
        if rows != self.table.rows:
            self._places = {}
            self.table.show_rows(rows, self._colours())
            self.table.selected.emit(self.table.label)
        self.table.setEnabled(detection is None or detection.current)
        self.keys.bind_layer(None if detection is None else detection.layers.findings)
        self.summary.setText(self._describe())
        self._update_buttons()
        self._update_profile()

    def _colours(self) -> dict[int, QColor]:
        """Return the colour of each finding's outline on screen."""
        layer = None if self._shown is None else self._shown.layers.findings
        if layer is None or self._shown is None:
            return {}
        found = {}
        for finding in self._shown.findings:
            colour = layer.get_color(finding.label)
            if colour is not None:
                found[finding.label] = QColor.fromRgbF(*(float(one) for one in colour))
        return found

    def _describe(self) -> str:
        """Summarise findings and decisions."""
        detection = self._shown
        if detection is None:
            return _NOTHING
        if detection.anomaly is None or detection.found is None:
            return "Findings come when the map is finished."
        if detection.held:
            return _HELD
        rows = detection.rows
        if not rows:
            return "No finding above the threshold."
        unit = size_unit(detection.anomaly.volume)

        def total(*decisions: str) -> str:
            chosen = [row.finding.voxels for row in rows if row.decision in decisions]
            return unit.text(sum(chosen)) if chosen else ""

        count = {row.decision: 0 for row in rows}
        for row in rows:
            count[row.decision] += 1
        plural = "s" if len(rows) > 1 else ""
        parts = [f"<b>{len(rows)} finding{plural}, {total('open', 'accepted', 'rejected')}</b>"]
        if accepted := total("accepted"):
            parts.append(f"{count['accepted']} accepted, {accepted}")
        if rejected := total("rejected"):
            parts.append(f"{count['rejected']} rejected, {rejected}")
        return "; ".join(parts) + "."

    def _update_buttons(self, *_: Any) -> None:
        """Enable what can be used now, and explain why the rest cannot."""
        detection = self._shown
        why = why_no_saving(detection)
        if self.job.running:
            why = "Wait until the files are written."
        self.export_button.setEnabled(not why)
        self.export_button.setToolTip(why or "Write map, findings and report into a folder.")
        self.save_button.setEnabled(not why)
        self.save_button.setToolTip(
            why or "Keep map, settings, corrections, decisions and notes, to go on later."
        )
        self.open_button.setEnabled(not self.job.running)
        self.bar.show_history(None if detection is None else detection.review)
        self.bar.allow_steps(len(self.table.rows))
        layer = None if detection is None else detection.layers.findings
        self.bar.edit.setChecked(layer is not None and self._is_painted_on(layer))
        self.bar.allow_edit(self._why_no_edit())

    def _why_no_edit(self) -> str:
        detection = self._shown
        if detection is None or detection.found is None:
            return "No findings yet."
        if detection.held:
            return _HELD
        if detection.layers.findings is None:
            return "The findings layer was deleted; move the threshold to draw it again."
        return ""

    # Moving about -------------------------------------------------------------------------

    def _on_selected(self, _: int) -> None:
        row = self.table.row
        self.bar.show_row(row)
        self.details.setText("" if row is None else _where(row))
        self.details.setVisible(row is not None)

    def jump(self, label: int) -> None:
        """Show the worst place of a finding, with crosshair and zoom."""
        detection = self._shown
        if detection is None or detection.held or detection.scan not in self._viewer.layers:
            return
        voxel = self._places.get(label) or worst_place(detection, label)
        if voxel is None:
            return
        self._places[label] = voxel
        show_voxel(self._viewer, detection.scan, voxel, _extent(detection, label, voxel))
        self.lines.mark(detection.scan, voxel)

    def _on_crosshair(self, _: Any = None) -> None:
        if self._shown is not None and self._shown.scan in self._viewer.layers:
            self.lines.follow(self._shown.scan)

    def _axis(self) -> int:
        """Return the axis (S, P, L) along which the viewer shows slices."""
        scan = None if self._shown is None else self._shown.scan
        if scan is None or scan.ndim == 2:
            return 0
        dims = self._viewer.dims
        hidden = [axis for axis in range(3) if axis + dims.ndim - 3 not in dims.displayed]
        return hidden[0] if len(hidden) == 1 else 0

    def _go_to_slice(self, number: int) -> None:
        detection = self._shown
        if detection is None or detection.scan.ndim != 3:
            return
        axis, dims = self._axis(), self._viewer.dims
        voxel = list(detection.scan.world_to_data(dims.point[-3:]))
        voxel[axis] = number
        world = detection.scan.data_to_world(voxel)
        dims.set_point(axis + dims.ndim - 3, world[axis])

    def _on_step(self, _: Any = None) -> None:
        detection = self._shown
        if detection is None or detection.scan not in self._viewer.layers:
            return
        self._update_profile()

    def _update_profile(self) -> None:
        """Draw the profile of the scan shown along the viewer's slider."""
        detection = self._shown
        seen = (
            detection is not None
            and detection.anomaly is not None
            and not detection.held
            and detection.scan.ndim == 3
        )
        self.profile.setVisible(seen)
        self.profile_title.setVisible(seen)
        if not seen or detection is None or detection.anomaly is None:
            self._profiled = None
            return
        axis, settings = self._axis(), detection.settings
        wanted = (axis, settings.tissue_only, settings.without_scalp)
        if self._profiled is not detection.anomaly or self._profile_of != wanted:
            self._profiled, self._profile_of = detection.anomaly, wanted
            plane = ("axial", "coronal", "sagittal")[axis]
            self.profile_title.setText(f"Highest score in each {plane} slice")
            self.profile_job.start(profiler(detection.anomaly, *wanted))
        self.profile.show_threshold(detection.threshold)
        self.profile.mark(slice_index(self._viewer, detection.scan, axis))

    def _on_profile(self, scores: Any) -> None:
        if self._shown is not None:
            self.profile.show_scores(scores, self._shown.edges[0], self._shown.threshold)

    # Review -------------------------------------------------------------------------------

    def decide(self, decision: Any) -> None:
        """Accept, reject or reopen the selected finding."""
        self._judge(self.table.label, decision=decision)

    def note(self, text: str) -> None:
        """Note something on the selected finding."""
        self._judge(self.table.label, note=text)

    def _judge(self, label: int, decision: Any = None, note: str | None = None) -> None:
        detection = self._shown
        if detection is None or detection.found is None or not label:
            return
        found = detection.found
        detection.review.judge(found.labels, found.findings, label, decision, note)
        self._on_review(detection)

    def undo(self) -> None:
        """Take back the last decision or note."""
        if self._shown is not None:
            self._shown.review.undo()
            self._on_review(self._shown)

    def redo(self) -> None:
        """Repeat the decision or note taken back last."""
        if self._shown is not None:
            self._shown.review.redo()
            self._on_review(self._shown)

    def _on_review(self, detection: Detection) -> None:
        detection.show_review()
        self._results.updated.emit(detection)
        self.bar.show_row(self.table.row)

    def _is_painted_on(self, layer: Any) -> bool:
        return self._viewer.layers.selection.active is layer and str(layer.mode) in (
            "paint",
            "erase",
            "fill",
            "polygon",
        )

    def edit(self, on: bool) -> None:
        """Take the brush to the selected finding, or put it away."""
        detection = self._shown
        layer = None if detection is None else detection.layers.findings
        if detection is None or layer is None:
            return
        if on:
            layer.visible = True
            self._viewer.layers.selection.active = layer
            layer.selected_label = self.table.label or 1
            layer.mode = "paint"
            self._say("Paint to add, E to erase. Each stroke is measured at once.")
        else:
            layer.mode = "pan_zoom"
            self._viewer.layers.selection.active = detection.scan
            self._say("")
        self._update_buttons()

    # Files --------------------------------------------------------------------------------

    def _ask_export(self) -> None:
        detection = self._shown
        if detection is None or detection.anomaly is None:
            return
        dialog = ExportDialog(self, why_no_dicom(detection.anomaly.volume))
        dialog.accepted.connect(lambda: self.export(dialog.target, dialog.choice))
        dialog.finished.connect(lambda _: dialog.deleteLater())
        dialog.open()

    def export(self, folder: Path | None, choice: ExportChoice) -> None:
        """Write files into a folder, in the background."""
        detection = self._shown
        if detection is None or detection.anomaly is None or folder is None:
            return
        self.bar.take_note()
        detection.absorb()
        self.job.start(exporter(detection, folder, choice))
        self._update_buttons()

    def _ask_save(self) -> None:
        detection = self._shown
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
        detection = self._shown
        if detection is None or detection.anomaly is None:
            return
        self.bar.take_note()
        detection.absorb()
        self.job.start(review_saver(detection, path))
        self._update_buttons()

    def _ask_open(self) -> None:
        file = choose_file(self, "Open a review", _FOLDER, _KINDS)
        if file is not None:
            self.open_review(file)

    def open_review(self, path: Path) -> None:
        """Show a saved review, read in the background."""
        self._opening, readers = scan_readers(self._viewer)
        self.job.start(reopener(path, readers))
        self._update_buttons()

    def _on_progress(self, progress: Progress) -> None:
        self._say(f"{progress.step}: {progress.detail}…" if progress.detail else progress.step)

    def _on_done(self, result: Any) -> None:
        if isinstance(result, str):
            self._say(result)
            return
        reopened: Reopened = result
        show_review(self._viewer, self._results, self._opening, reopened)
        self._opening = []
        self._say("The review is as it was saved.")

    def _say(self, text: str) -> None:
        self.message.setStyleSheet("")
        self.message.setText(text)

    def _complain(self, text: str) -> None:
        # Readable on napari's dark and on its light background.
        self.message.setStyleSheet("color: #e8604c; font-weight: bold;")
        self.message.setText(text)


def _where(row: FindingRow) -> str:
    """Say where a finding lies."""
    place = row.finding.centroid_ras_mm
    parts = [row.side]
    if place is not None:
        parts.append("centre R {:.0f} A {:.0f} S {:.0f} mm".format(*place))
    return f"Finding {row.label}: {', '.join(part for part in parts if part)}"


def _extent(
    detection: Detection, label: int, voxel: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """Return the lowest and highest voxel of a finding in the slices through a voxel of it."""
    if detection.found is None:
        return list(voxel), list(voxel)
    labels = detection.found.labels.reshape(detection.scan.data.shape)
    low, high = [float(one) for one in voxel], [float(one) for one in voxel]
    for fixed in range(labels.ndim):
        cut = labels.take(voxel[fixed], axis=fixed) == label
        others = [axis for axis in range(labels.ndim) if axis != fixed]
        for place, axis in enumerate(others):
            along = cut.any(axis=tuple(one for one in range(cut.ndim) if one != place)).nonzero()[0]
            if len(along):
                low[axis] = min(low[axis], float(along[0]))
                high[axis] = max(high[axis], float(along[-1]))
    return low, high
