"""The Detect widget: it conducts choice, run, findings and saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.widgets.controls import DockWidget, RunControl, small_label
from napari_dino_uad.widgets.detect.choice import Choice
from napari_dino_uad.widgets.detect.detection import Detection
from napari_dino_uad.widgets.detect.panel import FindingsPanel
from napari_dino_uad.widgets.detect.pipelines import (
    Drawing,
    detector,
    finder,
    loader,
    saver,
)
from napari_dino_uad.widgets.detect.results import results_of
from napari_dino_uad.widgets.detect.texts import describe_cancelled, describe_cursor
from napari_dino_uad.widgets.layers import slice_index, volume_reader
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Image
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.findings import Finding
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.widgets.detect.found import Detected, Found

__all__ = ["DetectWidget"]

_SAVE_TOOLTIP = (
    "Write the anomaly map and the findings on the grid of the scan's own file, with a CSV table."
)


class DetectWidget(DockWidget):
    """Find where a scan departs from healthy.

    Everything it shows of a result is read from that result, the `Detection` of the scan chosen;
    results are kept by the viewer, so that they outlive the dock.

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
        super().__init__()
        # napari gives docks a proxy, which is another object each time.
        self._viewer: Viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._results = results_of(self._viewer)
        self.job = Job(self)
        self.findings_job = Job(self)
        self.loading = Job(self)
        self.saving = Job(self)
        self.shown: Detection | None = None
        self._running: Detection | None = None
        self._find_failed = False
        self._build()
        self._connect()
        self._results.attach(self)
        self.loading.start(loader(None))
        self._on_scan()
        self.find()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.choice = Choice(self._viewer)
        self.scan, self.model = self.choice.scan_box, self.choice.model_box
        self.run = RunControl(
            self.job,
            "Detect",
            "Compute the heatmap, the slice on screen first (Ctrl+Shift+D).",
            "Stop; the slices that are done stay on screen.",
        )
        self.panel = FindingsPanel()
        self.threshold = self.panel.threshold
        self.minimum_size = self.panel.minimum_size
        self.tissue_only = self.panel.tissue_only
        self.save_button = QPushButton("Save map and findings…")
        notice = small_label(RESEARCH_USE)
        notice.setAlignment(Qt.AlignmentFlag.AlignCenter)
        for widget in (self.choice, self.run, self.panel, self.save_button):
            self.content.addWidget(widget)
        self.content.addStretch()
        self.content.addWidget(notice)

    def _connect(self) -> None:
        self.run.start.clicked.connect(self.detect)
        self.run.cancel.clicked.connect(self.cancel)
        self.choice.load_asked.connect(self._choose_model_file)
        self.choice.scan_changed.connect(self._on_scan)
        self.choice.model_changed.connect(self._on_model)
        self.save_button.clicked.connect(self._choose_folder)
        self.panel.dragged.connect(self._on_settings)
        self.panel.changed.connect(self._on_rest)
        self.panel.edits_discarded.connect(self._on_discard)
        session().model_added.connect(self.choice.choose_model)
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(self._on_detected)
        self.job.failed.connect(self._on_failed)
        self.job.stopped.connect(self._on_stopped)
        self.findings_job.succeeded.connect(self._on_findings)
        self.loading.succeeded.connect(self._on_loaded)
        self.loading.progressed.connect(self._on_loading)
        self.loading.stopped.connect(self._update_state)
        self.saving.succeeded.connect(self.run.say)
        self.findings_job.failed.connect(self._on_find_failed)
        for job in (self.loading, self.saving):
            job.failed.connect(self.run.complain)
        self._results.scan_opened.connect(self._on_opened)
        self._results.scan_closed.connect(self._on_closed)
        self._results.changed.connect(self._on_layers)
        self._results.painted.connect(self.find)

    def release(self) -> None:
        """Stop what runs, and leave the viewer to the next widget."""
        self.cancel()
        self._results.detach(self)
        for signal, slot in (
            (self._results.scan_opened, self._on_opened),
            (self._results.scan_closed, self._on_closed),
            (self._results.changed, self._on_layers),
            (self._results.painted, self.find),
            (session().model_added, self.choice.choose_model),
        ):
            try:
                signal.disconnect(slot)
            except (RuntimeError, TypeError):
                # Released before.
                break
        super().release()

    @property
    def detection(self) -> AnomalyMap | None:
        """The finished map on screen."""
        return None if self.shown is None else self.shown.anomaly

    @property
    def findings(self) -> list[Finding]:
        """What lies above the threshold, with the user's corrections."""
        return [] if self.shown is None else self.shown.findings

    # Choices ------------------------------------------------------------------------------

    def load_model(self, path: Path | str) -> None:
        """Load a model file, in the background."""
        self.run.say(f"Loading {Path(path).name}…")
        self.loading.start(loader(Path(path)))

    def _choose_model_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Load a model", recall("model folder"), "Models (*.safetensors)"
        )
        if path:
            remember("model folder", str(Path(path).parent))
            self.load_model(path)

    def _on_loading(self, progress: Progress) -> None:
        self.run.remark(progress.note)

    def _on_loaded(self, result: tuple[str, FittedModel, str] | None) -> None:
        if result is None:
            return
        name, model, problem = result
        self.run.say("")
        session().add_model(name, model)
        if problem:
            self.run.complain(problem)

    def _on_model(self) -> None:
        if self.shown is None:
            self.panel.show_nothing(self.choice.scan, self.choice.model)
        self._update_state()

    def _on_scan(self) -> None:
        """Show the result of the scan chosen, or that there is none."""
        detection = self._results.of(self.choice.scan)
        if not self.job.running:
            self.run.say("" if detection is None else detection.message)
        self._show(detection)

    def _show(self, detection: Detection | None) -> None:
        self.shown = detection
        if detection is None:
            self.panel.show_nothing(self.choice.scan, self.choice.model)
        else:
            self.panel.show_detection(detection)
        # The threshold of the one shown before may not have come to rest.
        self.find()
        self._update_state()

    def _on_opened(self, scan: Image) -> None:
        self.choice.choose_scan(scan)

    def _on_closed(self, scan: Image) -> None:
        if self._running is not None and self._running.scan is scan:
            self.job.cancel()
            self.run.say(f"Cancelled: {scan.name} was deleted.")

    def _on_layers(self) -> None:
        self.choice.refresh_scans()
        running = self._running
        if running is not None and running.scan not in self._viewer.layers:
            self._on_closed(running.scan)
        if self._results.of(self.choice.scan) is not self.shown:
            self._on_scan()
        self.panel.show_findings(self.shown)
        self._update_state()

    # Detecting ----------------------------------------------------------------------------

    def detect(self, *_: Any) -> None:
        """Detect on the chosen scan, from the slice on screen outwards."""
        scan, model = self.choice.scan, self.choice.model
        if scan is None or model is None or self.job.running:
            self._update_state()
            return
        from napari_dino_uad.core.slices.planes import plane_axis

        try:
            read = volume_reader(scan)
        except ValueError as error:
            self.run.complain(str(error))
            return
        axis = plane_axis(model.preprocessing.plane)
        first = slice_index(self._viewer, scan, axis) if scan.ndim == 3 else 0
        running = Detection(self._viewer, scan, self.choice.model_name, model, self.panel.settings)
        self._running = running
        self.run.say("")
        self.job.start(detector(read, running, first))
        self._update_state()

    def cancel(self, *_: Any) -> None:
        """Stop detecting; what is on screen stays."""
        running = self._running
        if running is None or not self.job.running:
            return
        running.message = describe_cancelled(running, self._results.of(running.scan))
        self.job.cancel()
        self.run.say(running.message)

    def _on_progress(self, progress: Progress) -> None:
        drawing, running = progress.result, self._running
        if not isinstance(drawing, Drawing) or running is None:
            return
        running.slices_done += len(drawing.indices)
        if self._results.of(running.scan) is running:
            running.layers.refresh(drawing.indices, drawing.axis)
        else:
            self._take_over(running, drawing.array)

    def _take_over(self, running: Detection, array: NDArray[np.float32]) -> None:
        """Put a detection in the place of its scan's earlier one, in picture and panel."""
        chosen = self.choice.scan is running.scan
        if chosen:
            # The controls may have been moved since the button was pressed.
            running.settings = self.panel.settings
        running.begin(array, self._results.of(running.scan))
        self._results.keep(running)
        if chosen:
            running.layers.reveal()
            self._show(running)

    def _on_detected(self, detected: Detected) -> None:
        running = self._running
        if running is None:
            return
        if self._results.of(running.scan) is not running:
            # A scan without tissue has no slice to show on the way.
            self._take_over(running, detected.array)
        running.finish(detected)
        named = running.message
        if self.choice.scan is not running.scan:
            named = f"{running.scan.name}: {running.message}"
        self.run.say(named)
        if self.shown is running:
            self.panel.show_detection(running)
        self.find()

    def _on_failed(self, text: str) -> None:
        running = self._running
        if running is None:
            return
        running.message = text
        if running.scan is not self.choice.scan:
            self.run.complain(f"{running.scan.name}: {text}")

    def _on_stopped(self) -> None:
        self._running = None
        self._update_state()

    # Threshold and findings ---------------------------------------------------------------

    def _on_settings(self) -> None:
        """Move the heat with the controls, and grey the findings until they follow."""
        if self.shown is not None:
            chosen = self.panel.settings
            self.shown.choose(chosen.rate, chosen.minimum_size, chosen.tissue_only)
            self._say_result()
            self.panel.show_findings(self.shown)

    def _say_result(self) -> None:
        """Go back to how the result came about from what was said since, as of a file saved."""
        if not self.job.running and self.shown is not None:
            self.run.say(self.shown.message)

    def _on_rest(self) -> None:
        self._on_settings()
        self.find()

    def _on_discard(self) -> None:
        if self.shown is not None:
            self.shown.discard_edits()
            self.find()

    def find(self, *_: Any) -> None:
        """Find what lies above the thresholds, in the background, where that is not known."""
        wanted = [one for one in self._results if one.anomaly is not None and not one.current]
        if wanted:
            self.findings_job.start(finder(wanted))

    def _on_find_failed(self, text: str) -> None:
        self._find_failed = True
        self.run.complain(text)

    def _on_findings(self, results: list[tuple[Detection, Found]]) -> None:
        for detection, found in results:
            if self._results.of(detection.scan) is detection and detection.show(found):
                self._results.watch_findings(detection)
        if self._find_failed:
            self._find_failed = False
            self._say_result()
        self.panel.show_findings(self.shown)
        self._update_state()
        self.find()

    # Cursor, saving, state ----------------------------------------------------------------

    def read_cursor(self, world: tuple[float, ...], *, again: bool = False) -> None:
        """Say what lies under the cursor.

        Parameters
        ----------
        world : tuple of float
            Where it is.
        again : bool
            Whether the slice has changed under a cursor at rest; nothing is said then if nothing
            was before.
        """
        if again and not self.panel.cursor_text.text():
            return
        text = "" if self.shown is None else describe_cursor(self.shown, world)
        self.panel.cursor_text.setText(text)

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Save map and findings in", recall("results folder")
        )
        if folder:
            remember("results folder", folder)
            self.save(Path(folder))

    def save(self, folder: Path) -> None:
        """Write the map, the findings and their table into a folder, in the background."""
        detection = self.shown
        if detection is None or detection.anomaly is None:
            return
        detection.absorb()
        self.run.say("Saving…")
        self.saving.start(saver(detection, folder))
        self.find()

    def _update_state(self, *_: Any) -> None:
        """Enable what can be used now, and say why the rest cannot."""
        reason = ""
        if self.choice.scan is None:
            reason = "Open a scan first: drag a file or folder into the window."
        elif self.choice.model is None:
            reason = "No model yet: fit one in the Fit widget, or load a model file."
        self.run.allow(reason)
        self.choice.compare(self.shown)
        why = ""
        if self.shown is None:
            why = "Detect first: no map yet."
        elif self.shown.anomaly is None:
            why = "This map is not finished; press Detect to make it whole."
        self.save_button.setEnabled(not why)
        self.save_button.setToolTip(why or _SAVE_TOOLTIP)
