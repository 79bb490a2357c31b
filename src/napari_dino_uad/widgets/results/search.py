"""Searches finished maps for findings after a threshold or a correction has changed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.results.found import find
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari_dino_uad.widgets.results.detection import Detection
    from napari_dino_uad.widgets.results.found import Found
    from napari_dino_uad.widgets.results.store import Results

__all__ = ["Search", "finder"]


class Search(QObject):
    """Finds what lies above the thresholds, in the background.

    Signals
    -------
    found
        Findings changed.
    recovered
        A search succeeded after one that failed.
    """

    found = Signal()
    recovered = Signal()

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        self._results = results
        self._failed = False
        self.job = Job(self)
        self.job.succeeded.connect(self._on_findings)
        self.job.failed.connect(self._on_failed)

    def start(self, *_: Any) -> None:
        """Search the maps whose findings do not match their settings."""
        wanted = [one for one in self._results if one.anomaly is not None and not one.current]
        if wanted:
            self.job.start(finder(wanted))

    def _on_failed(self, _: str) -> None:
        self._failed = True

    def _on_findings(self, results: list[tuple[Detection, Found]]) -> None:
        for detection, found in results:
            if self._results.of(detection.scan) is detection and detection.show(found):
                self._results.watch_findings(detection)
                self._results.updated.emit(detection)
        if self._failed:
            self._failed = False
            self.recovered.emit()
        self.found.emit()
        # FindingSettings may have changed during the search.
        self.start()


def finder(
    detections: Sequence[Detection],
) -> Callable[[], Generator[Progress, None, list[tuple[Detection, Found]]]]:
    """Return a pipeline that finds the regions above the thresholds of finished detections."""
    wanted = [
        (one, one.anomaly, one.settings, one.numbered)
        for one in detections
        if one.anomaly is not None
    ]

    def pipeline() -> Generator[Progress, None, list[tuple[Detection, Found]]]:
        results = []
        for number, (detection, anomaly, settings, known) in enumerate(wanted):
            yield Progress("Finding", number, len(wanted))
            results.append((detection, find(anomaly, settings, known)))
        return results

    return pipeline
