"""Runs one detection at a time, and shows its slices as they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_dino_uad.widgets.detect.pipelines import Drawing, detector
from napari_dino_uad.widgets.layers import slice_index, volume_reader
from napari_dino_uad.widgets.results.detection import Detection
from napari_dino_uad.widgets.results.texts import describe_cancelled

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Image
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.widgets.detect.choice import Choice
    from napari_dino_uad.widgets.detect.panel import FindingsPanel
    from napari_dino_uad.widgets.results.found import Detected
    from napari_dino_uad.widgets.results.store import Results
    from napari_dino_uad.widgets.workers import Job

__all__ = ["DetectionRun"]


class DetectionRun(QObject):
    """Runs a detection on the scan and model chosen, and keeps its result in `Results`.

    Parameters
    ----------
    job : Job
        Runs the detection.
    viewer : Viewer
    results : Results
        Where the result is kept once its first slices are there.
    choice : Choice
    panel : FindingsPanel
        Where the settings are read.
    parent : QObject

    Signals
    -------
    shown : Detection
        The chosen scan has a new result, or its result is finished.
    said, complained : str
        A sentence for the user, on what happened or on what went wrong.
    stopped
        The run ended: succeeded, failed or cancelled.
    """

    shown = Signal(object)
    said = Signal(str)
    complained = Signal(str)
    stopped = Signal()

    def __init__(
        self,
        job: Job,
        viewer: Viewer,
        results: Results,
        choice: Choice,
        panel: FindingsPanel,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._results = viewer, results
        self._choice, self._panel = choice, panel
        self.job = job
        self._running: Detection | None = None
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(self._on_detected)
        self.job.failed.connect(self._on_failed)
        self.job.stopped.connect(self._on_stopped)

    def start(self, scan: Image, model_name: str) -> None:
        """Detect on a scan with the model chosen, from the slice on screen outwards."""
        model = self._choice.model
        if model is None:
            return
        from napari_dino_uad.core.slices.planes import plane_axis

        try:
            read = volume_reader(scan)
        except ValueError as error:
            self.complained.emit(str(error))
            return
        axis = plane_axis(model.preprocessing.plane)
        first = slice_index(self._viewer, scan, axis) if scan.ndim == 3 else 0
        running = Detection(self._viewer, scan, model_name, model, self._panel.settings)
        self._running = running
        self.said.emit("")
        self.job.start(detector(read, running, first))

    def cancel(self) -> None:
        """Stop; the slices that are done stay on screen."""
        running = self._running
        if running is None or not self.job.running:
            return
        running.message = describe_cancelled(running, self._results.of(running.scan))
        self.job.cancel()
        self.said.emit(running.message)

    def cancel_on(self, scan: Image, why: str) -> None:
        """Stop if the run is on this scan, and report why."""
        if self._running is not None and self._running.scan is scan:
            self.job.cancel()
            self.said.emit(f"Cancelled: {why}")

    def check_scan(self) -> None:
        """Stop if the scan of the run was deleted."""
        running = self._running
        if running is not None and running.scan not in self._viewer.layers:
            self.cancel_on(running.scan, f"{running.scan.name} was deleted.")

    def _on_progress(self, progress: Progress) -> None:
        drawing, running = progress.result, self._running
        if not isinstance(drawing, Drawing) or running is None:
            return
        running.slices_done += len(drawing.indices)
        held = running.held
        running.warn(drawing.warning)
        if self._results.of(running.scan) is running:
            running.layers.refresh(drawing.indices, drawing.axis)
            if running.held != held:
                self._results.updated.emit(running)
                if self._choice.scan is running.scan:
                    self.shown.emit(running)
        else:
            self._take_over(running, drawing.array)

    def _take_over(self, running: Detection, array: NDArray[np.float32]) -> None:
        """Replace the scan's earlier result, in picture and panel."""
        chosen = self._choice.scan is running.scan
        if chosen:
            # The controls may have been moved since the button was pressed.
            running.settings = self._panel.settings
        running.begin(array, self._results.of(running.scan))
        self._results.keep(running)
        self._results.updated.emit(running)
        if chosen:
            running.layers.reveal()
            self.shown.emit(running)

    def _on_detected(self, detected: Detected) -> None:
        running = self._running
        if running is None:
            return
        if self._results.of(running.scan) is not running:
            # A scan without tissue has shown no slice on the way.
            self._take_over(running, detected.array)
        running.finish(detected)
        self._results.updated.emit(running)
        if self._choice.scan is running.scan:
            self.said.emit(running.message)
            self.shown.emit(running)
        else:
            self.said.emit(f"{running.scan.name}: {running.message}")

    def _on_failed(self, text: str) -> None:
        running = self._running
        if running is None:
            return
        running.message = text
        if running.scan is not self._choice.scan:
            self.complained.emit(f"{running.scan.name}: {text}")

    def _on_stopped(self) -> None:
        self._running = None
        self.stopped.emit()
