"""The Detect widget, made of the choice, the run, the findings and saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton

from napari_dino_uad.widgets.controls import DockWidget, RunControl, allow, research_notice
from napari_dino_uad.widgets.detect.choice import Choice
from napari_dino_uad.widgets.detect.compare import Compare
from napari_dino_uad.widgets.detect.model_loader import ModelLoader
from napari_dino_uad.widgets.detect.panel import FindingsPanel
from napari_dino_uad.widgets.detect.run import DetectionRun
from napari_dino_uad.widgets.files import choose_folder, choose_model, may_replace
from napari_dino_uad.widgets.navigation import show_voxel
from napari_dino_uad.widgets.results.saving import saver
from napari_dino_uad.widgets.results.store import HIDE_KEY, results_of
from napari_dino_uad.widgets.results.texts import why_no_detection, why_no_saving
from napari_dino_uad.widgets.results.worst import worst_place
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.settings import has_preferences, last_model, setting
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.findings import Finding
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["DetectWidget"]

_SAVE_TOOLTIP = (
    "Write the anomaly map and the findings on the grid of the scan's own file, with a CSV table."
)


class DetectWidget(DockWidget):
    """Find where a scan departs from healthy.

    All it shows of a result is read from that result, the `Detection` of the scan chosen. The
    viewer keeps the results, so that they stay when the dock is closed.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.

    Attributes
    ----------
    shown : Detection or None
        The result on screen: that of the scan chosen.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._results = results_of(self._viewer)
        self.loading = ModelLoader(self)
        self.saving = Job(self)
        self.shown: Detection | None = None
        # Detect was asked for before a model was loaded.
        self._wanted = False
        # The detection whose worst slice is shown once its findings are there.
        self._going_to: Detection | None = None
        self._build()
        self._connect()
        self.loading.load(None if session().models else last_model(), remembered=True)
        self._on_scan()
        self.find()

    def _leave(self) -> None:
        """Let go of the result: Python may keep a deleted widget for long."""
        self.shown = self._going_to = None

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.choice = Choice(self._viewer, self._results)
        self.scan, self.model = self.choice.scan_box, self.choice.model_box
        self.panel = FindingsPanel()
        self.threshold = self.panel.threshold
        self.minimum_size = self.panel.minimum_size
        self.tissue_only = self.panel.tissue_only
        self.findings_job = self._results.search.job
        self.job = Job(self)
        self.run = RunControl(
            self.job,
            "Detect",
            "Compute the heatmap, the slice on screen first (Ctrl+Shift+D).",
            "Stop; the slices that are done stay on screen.",
            remarks=False,
        )
        for job in (self.loading, self.saving):
            self.run.watch(job)
        self.detecting = DetectionRun(
            self.job, self._viewer, self._results, self.choice, self.panel, self
        )
        self.compare = Compare(self._viewer, self._results)
        self.save_button = QPushButton("Save map and findings…")
        self.save_button.setToolTip(_SAVE_TOOLTIP)
        for widget in (
            self.choice,
            self.run,
            self.panel,
            self.save_button,
            self.compare.fold,
        ):
            self.content.addWidget(widget)
        self.content.addStretch()
        if not has_preferences():
            settings = QPushButton("Settings…")
            settings.setToolTip("Default model, device, cache and colours.")
            settings.clicked.connect(self._open_settings)
            self.content.addWidget(settings)
        self.content.addWidget(research_notice())

    def _connect(self) -> None:
        self.run.start.clicked.connect(self.detect)
        self.run.cancel.clicked.connect(self.cancel)
        self.choice.load_asked.connect(self._choose_model_file)
        self.choice.model_changed.connect(self._on_model)
        self.save_button.clicked.connect(self._choose_folder)
        self.panel.dragged.connect(self._on_settings)
        self.panel.changed.connect(self._on_rest)
        self.panel.edits_discarded.connect(self._on_discard)
        self.panel.trusted.connect(self._on_trusted)
        self.panel.opacity_changed.connect(self._results.set_opacity)
        self.panel.show_opacity(self._results.opacity)
        self.detecting.shown.connect(self._on_result)
        self.detecting.said.connect(self.run.say)
        self.detecting.complained.connect(self.run.complain)
        self.detecting.stopped.connect(self._update_state)
        self.job.succeeded.connect(self.find)
        self.loading.said.connect(self.run.say)
        self.loading.complained.connect(self.run.complain)
        self.loading.remarked.connect(self.choice.show_engine)
        self.loading.stopped.connect(self._on_loaded)
        self.job.progressed.connect(lambda progress: self.choice.show_engine(progress.note))
        self.job.succeeded.connect(self._on_finished)
        self.saving.succeeded.connect(self.run.say)
        self.saving.failed.connect(self.run.complain)
        self.listen(
            (session().model_added, self.choice.choose_model),
            (self._results.scan_chosen, self._on_scan),
            (self._results.scan_opened, self._on_opened),
            (self._results.scan_closed, self._on_closed),
            (self._results.scan_replaced, self._on_replaced),
            (self._results.changed, self._on_layers),
            (self._results.updated, self.compare.follow),
            (self._results.updated, self._on_updated),
            (self._results.detect_asked, self.detect),
            (self._results.cursor_moved, self._on_cursor),
            (self._results.search.found, self._on_findings),
            (self._results.search.recovered, self._say_result),
            (self.findings_job.failed, self.run.complain),
        )
        self.follow_theme(self.threshold.paint)

    def release(self) -> None:
        """Stop all jobs; the slices that are done stay on screen."""
        self.cancel()
        super().release()

    @property
    def detection(self) -> AnomalyMap | None:
        """The finished map on screen."""
        return None if self.shown is None else self.shown.anomaly

    @property
    def findings(self) -> list[Finding]:
        """The findings on screen, with the user's corrections."""
        return [] if self.shown is None else self.shown.findings

    # Choices ------------------------------------------------------------------------------

    def load_model(self, path: Path | str) -> None:
        """Load a model file, in the background."""
        self.loading.load(Path(path))

    def _choose_model_file(self) -> None:
        file = choose_model(self)
        if file is not None:
            self.load_model(file)

    def _on_model(self) -> None:
        if self.shown is None:
            self.panel.show_nothing(self.choice.scan, self.choice.model)
        self._update_state()

    def _on_scan(self) -> None:
        """Show the result of the chosen scan, or that it has none."""
        self.choice.refresh_scans()
        detection = self._results.shown
        if not self.job.running and not self.loading.running:
            self.run.say("" if detection is None else detection.message)
        self._show(detection)

    def _show(self, detection: Detection | None) -> None:
        self.shown = detection
        if detection is None:
            self.panel.show_nothing(self.choice.scan, self.choice.model)
        else:
            self.panel.show_detection(detection)
        # The threshold of the result shown before may have moved without a search.
        self.find()
        self._update_state()

    # Layers -------------------------------------------------------------------------------

    def _on_closed(self, scan: Image) -> None:
        self.detecting.cancel_on(scan, f"{scan.name} was deleted.")

    def _on_replaced(self, scan: Image, dropped: bool) -> None:
        """Report that the voxels of a scan were replaced, and its result removed."""
        why = f"{scan.name} has other voxels now"
        if scan is self.choice.scan and self.shown is not None:
            self._on_scan()
        if dropped:
            self.run.say(f"{why}, so its result was removed; press Detect again.")
        self.detecting.cancel_on(scan, f"{why}; press Detect again.")

    def _on_layers(self) -> None:
        self.choice.refresh_scans()
        self.detecting.check_scan()
        if self._results.shown is not self.shown:
            self._on_scan()
        self.panel.show_findings(self.shown)
        self._update_state()

    # Detecting ----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a detection runs, or waits for its model."""
        return self.job.running or self._wanted

    def detect(self, *_: Any) -> None:
        """Detect on the chosen scan, from the slice on screen outwards.

        Without a model it waits for the one that is being loaded.
        """
        scan = self.choice.scan
        if scan is not None and self.choice.model is None and self.loading.path is not None:
            self._wanted = self.loading.running
        elif scan is not None and self.choice.model is not None and not self.job.running:
            self._wanted = False
            self.detecting.start(scan, self.choice.model_name)
        self._update_state()

    def _on_opened(self, scan: Image) -> None:
        """Detect on a scan that was opened, if the user wants that."""
        if setting("detect_on_opening") and not self.busy:
            # After the scan has become the chosen one.
            QTimer.singleShot(0, self.detect)

    def _on_loaded(self) -> None:
        wanted, self._wanted = self._wanted, False
        if not self.run.complaining:
            self.run.say("")
            self._say_result()
        self._update_state()
        if wanted:
            self.detect()

    def _on_finished(self, *_: Any) -> None:
        if setting("go_to_worst"):
            self._going_to = self._results.shown

    def _go_to_worst(self) -> None:
        """Show the worst slice of the largest finding, once after a run."""
        detection = self._going_to
        if detection is None or not detection.current or detection.held:
            return
        self._going_to = None
        voxel = worst_place(detection)
        if voxel is not None and detection is self.shown and not self.job.running:
            show_voxel(self._viewer, detection.scan, voxel)

    def _on_trusted(self) -> None:
        if self.shown is not None:
            self.shown.trust()
            self._on_result(self.shown)
            self._results.updated.emit(self.shown)
            self._go_to_worst()
            self._update_state()

    def cancel(self, *_: Any) -> None:
        """Stop the detection; the slices on screen stay."""
        self.detecting.cancel()

    def _on_result(self, detection: Detection) -> None:
        if self.shown is detection:
            self.panel.show_detection(detection)
        else:
            self._show(detection)

    # Threshold and findings ---------------------------------------------------------------

    def _on_settings(self) -> None:
        """Apply the controls to the heat, and grey out the findings until they follow."""
        if self.shown is not None:
            chosen = self.panel.settings
            self.shown.choose(
                chosen.rate, chosen.minimum_size, chosen.tissue_only, chosen.without_scalp
            )
            self._say_result()
            self._results.updated.emit(self.shown)

    def _say_result(self) -> None:
        """Show how the run ended, in place of a later message such as that of a saved file."""
        if not self.job.running and self.shown is not None:
            self.run.say(self.shown.message)

    def _on_rest(self) -> None:
        self._on_settings()
        self.find()

    def _on_discard(self) -> None:
        if self.shown is not None:
            self.shown.discard_edits()
            self._results.updated.emit(self.shown)
            self.find()

    def find(self, *_: Any) -> None:
        """Search for findings in the background, where the settings have changed."""
        self._results.search.start()

    def _on_findings(self) -> None:
        self.panel.show_findings(self.shown)
        self._go_to_worst()
        self._update_state()

    def _on_updated(self, detection: Detection) -> None:
        if detection is self.shown:
            self.panel.show_findings(detection)

    # Keys ---------------------------------------------------------------------------------

    def keyPressEvent(self, event: Any) -> None:
        """Hide heat and findings while the key is held, also when the dock has the focus."""
        if event.text().upper() == HIDE_KEY:
            self._results.hide_for_now(True)
        else:
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: Any) -> None:
        """Show them again."""
        if event.text().upper() == HIDE_KEY and not event.isAutoRepeat():
            self._results.hide_for_now(False)
        else:
            super().keyReleaseEvent(event)

    # Cursor, saving, state ----------------------------------------------------------------

    def _on_cursor(self, world: tuple[float, ...], again: bool) -> None:
        self.read_cursor(world, again=again)

    def read_cursor(self, world: tuple[float, ...], *, again: bool = False) -> None:
        """Show what lies under the cursor; parameters as in `FindingsPanel.read_cursor`."""
        self.panel.read_cursor(self.shown, world, again=again)

    def _open_settings(self) -> None:
        from napari_dino_uad.widgets.settings_dialog import SettingsDialog

        dialog = SettingsDialog(self)
        dialog.exec()
        dialog.deleteLater()

    def _choose_folder(self) -> None:
        from napari_dino_uad.core.results import ResultPaths

        detection = self.shown
        folder = choose_folder(self, "Save map and findings in", "results folder")
        if folder is None or detection is None or detection.anomaly is None:
            return
        if may_replace(self, ResultPaths.of(folder, detection.anomaly.volume.name)):
            self.save(folder)

    def save(self, folder: Path) -> None:
        """Write the map, the findings and their table into a folder, in the background."""
        detection = self.shown
        if detection is None or detection.anomaly is None:
            return
        self._results.take_painting()
        self.run.say("Saving…")
        self.saving.start(saver(detection, folder))

    def _update_state(self, *_: Any) -> None:
        """Enable what can be used now, and explain why the rest cannot."""
        loading = self.loading.running and self.loading.path is not None
        why = why_no_detection(self.choice.scan, self.choice.model)
        # Detect may be pressed while its model is being loaded, and starts then.
        self.run.allow("" if loading and self.choice.scan is not None else why)
        self.choice.compare(self.shown)
        self.compare.refresh()
        allow(self.save_button, why_no_saving(self.shown))
