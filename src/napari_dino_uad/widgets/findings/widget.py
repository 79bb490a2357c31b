"""The Findings widget: the table, the review, the profile, exports and saved reviews."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QPushButton

from napari_dino_uad.widgets.controls import DockWidget, research_notice, small_label
from napari_dino_uad.widgets.cross_lines import cross_lines_of
from napari_dino_uad.widgets.dock_keys import DockKeys
from napari_dino_uad.widgets.findings.files_bar import FilesBar
from napari_dino_uad.widgets.findings.profile import ProfilePlot, profiler
from napari_dino_uad.widgets.findings.review_bar import ReviewBar
from napari_dino_uad.widgets.findings.table import FindingsTable
from napari_dino_uad.widgets.findings.texts import describe_place, describe_review, why_no_edit
from napari_dino_uad.widgets.layers import slice_index
from napari_dino_uad.widgets.navigation import show_voxel
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.results.worst import extent_around, worst_place
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["FindingsWidget"]


class FindingsWidget(DockWidget):
    """Judge the findings of the scan chosen, one by one.

    All it shows is read from the `Detection` that the viewer's results show.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._results = results_of(self._viewer)
        self._shown: Detection | None = None
        self._places: dict[int, tuple[int, ...]] = {}
        self._profiled: AnomalyMap | None = None
        self._profile_of = (0, True, False)
        self._build()
        self.keys = DockKeys(
            self._viewer,
            self,
            {
                "N": partial(self.table.step, 1),
                "P": partial(self.table.step, -1),
                "A": partial(self._press, self.bar.accept),
                "R": partial(self._press, self.bar.reject),
                "Control-Z": self.undo,
                "Control-Shift-Z": self.redo,
            },
        )
        self.lines = cross_lines_of(self._viewer)
        self._connect()
        self.refresh()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.profile_job = Job(self)
        self.summary = small_label()
        self.table = FindingsTable()
        self.details = small_label()
        self.bar = ReviewBar()
        self.profile = ProfilePlot()
        self.profile_title = small_label()
        self.files = FilesBar(self._viewer, self._results)
        parts = (self.summary, self.table, self.details, self.bar, self.profile_title, self.profile)
        for widget in parts:
            self.content.addWidget(widget)
        self.content.addWidget(self.files)
        self.content.addStretch()
        self.content.addWidget(research_notice())

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
        self.files.writing.connect(self.bar.take_note)
        self.profile_job.succeeded.connect(self._on_profile)
        dims = self._viewer.dims.events
        self.listen(
            (self._results.scan_chosen, self.refresh),
            (self._results.changed, self.refresh),
            (self._results.updated, self._on_updated),
            (dims.current_step, self._on_step),
            (dims.order, self._on_step),
            (dims.ndisplay, self._on_step),
        )

    def _leave(self) -> None:
        """Take away keys and crosshair."""
        self.keys.release()
        self.lines.hide(self)
        self._shown = self._profiled = None

    # Showing ------------------------------------------------------------------------------

    def _on_updated(self, detection: Detection) -> None:
        if detection is self._results.shown:
            self.refresh()

    def refresh(self, *_: Any) -> None:
        """Show the findings of the scan chosen."""
        detection = self._results.shown
        if detection is not self._shown:
            self.bar.take_note()
            self._shown = detection
            self._places = {}
            self.lines.hide(self)
        rows = [] if detection is None or detection.held else detection.rows
        if rows != self.table.rows:
            self._places = {}
            self.table.show_rows(rows, self._colours())
            self.table.selected.emit(self.table.label)
        self.table.setEnabled(detection is None or detection.current)
        self.keys.bind_layer(None if detection is None else detection.layers.findings)
        self.summary.setText(describe_review(self._shown))
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

    def _update_buttons(self, *_: Any) -> None:
        """Enable what can be used now, and explain why the rest cannot."""
        detection = self._shown
        self.bar.show_history(None if detection is None else detection.review)
        self.bar.allow_steps(len(self.table.rows))
        layer = None if detection is None else detection.layers.findings
        self.bar.edit.setChecked(layer is not None and self._is_painted_on(layer))
        self.bar.allow_edit(why_no_edit(detection))
        self.files.refresh()

    # Moving about -------------------------------------------------------------------------

    def _on_selected(self, _: int) -> None:
        row = self.table.row
        self.bar.show_row(row)
        self.details.setText("" if row is None else describe_place(row))
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
        show_voxel(self._viewer, detection.scan, voxel, extent_around(detection, label, voxel))
        self.lines.show(self, detection.scan)

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

    def _press(self, button: QPushButton) -> None:
        """Press a button by its key, or say why it cannot be pressed."""
        if button.isEnabled():
            button.click()
        else:
            self.files.say(button.toolTip())

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
        """Take back the last decision, note or correction."""
        self._step(self._results.undo)

    def redo(self) -> None:
        """Repeat what was taken back last."""
        self._step(self._results.redo)

    def _step(self, step: Callable[[Detection], None]) -> None:
        if self._shown is not None:
            step(self._shown)
            self.bar.show_row(self.table.row)

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
            self.files.say(
                "Paint on a finding to add to it, elsewhere to mark a missed one; E erases. Each "
                "stroke is measured at once."
            )
        else:
            layer.mode = "pan_zoom"
            self._viewer.layers.selection.active = detection.scan
            self.files.say("")
        self._update_buttons()
