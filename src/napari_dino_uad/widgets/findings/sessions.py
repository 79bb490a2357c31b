"""Saves a review, and opens one without a new detection."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from napari_dino_uad.core.maps.review import Review
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.layers import is_scan_layer, volume_reader
from napari_dino_uad.widgets.results.detection import Detection
from napari_dino_uad.widgets.results.found import Detected, finish_map
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.workers import writing

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.saved_review import OpenedReview
    from napari_dino_uad.core.scans.volume import Volume
    from napari_dino_uad.widgets.results.store import Results

__all__ = ["Reopened", "reopener", "review_saver", "scan_readers", "show_review"]

Reopened = tuple["OpenedReview", Detected]


def review_saver(detection: Detection, path: Path) -> Callable[[], Generator[Progress, None, str]]:
    """Return a pipeline that saves the review of a detection as it is at this moment."""
    anomaly, settings, name = detection.anomaly, detection.settings, detection.model_name
    review, labels = Review(detection.review.judgements), detection.numbered
    if anomaly is None:
        raise RuntimeError("only the review of a finished map can be saved")

    def pipeline() -> Generator[Progress, None, str]:
        from napari_dino_uad.core.saved_review import save_review

        yield Progress("Saving the review", 0, 1)
        with writing(path.parent, path):
            save_review(path, anomaly, settings, review, name, labels)
        return f"Saved the review as {path.name}."

    return pipeline


def scan_readers(viewer: Viewer) -> tuple[list[Image], list[Callable[[], Volume]]]:
    """Return the scan layers of a viewer, and functions that make their volumes."""
    layers: list[Image] = []
    readers: list[Callable[[], Volume]] = []
    for layer in viewer.layers:
        if is_scan_layer(layer):
            try:
                readers.append(volume_reader(layer))
            except ValueError:
                continue
            layers.append(layer)
    return layers, readers


def reopener(
    path: Path, readers: Sequence[Callable[[], Volume]]
) -> Callable[[], Generator[Progress, None, Reopened]]:
    """Return a pipeline that opens a review and makes its map for display."""
    models = dict(session().models)

    def pipeline() -> Generator[Progress, None, Reopened]:
        from napari_dino_uad.core.saved_review import open_review

        started = time.perf_counter()
        opening = Inner(open_review(path, readers, models))
        yield from opening
        opened = opening.value
        array = np.empty(opened.anomaly.volume.shape, dtype=np.float32)
        return opened, finish_map(
            array, opened.anomaly, opened.settings, opened.model_name, started
        )

    return pipeline


def show_review(
    viewer: Viewer, results: Results, layers: Sequence[Image], reopened: Reopened
) -> Detection:
    """Show an opened review on its scan, which is added to the viewer if it is not there."""
    opened, detected = reopened
    model = opened.anomaly.model
    names = [name for name, one in session().models.items() if one is model]
    name = names[0] if names else session().add_model(opened.model_name, model)
    scan = None if opened.scan is None else layers[opened.scan]
    if scan is None or scan not in viewer.layers:
        data, keywords, _ = volume_layer(opened.anomaly.volume)
        scan = Image(data, **keywords)
        viewer.layers.append(scan)
    settings = opened.settings
    detection = Detection(viewer, scan, name, model, settings)
    earlier = results.of(scan)
    if earlier is not None:
        # The layers are used again, but not the decisions and corrections of before.
        detection.layers = earlier.layers
    # A reader has judged this map before.
    detection.trusted = True
    detection.begin(detected.array, None)
    detection.reopen(settings, opened.review, opened.numbered)
    detection.finish(detected)
    detection.message = "Opened from a saved review"
    results.keep(detection)
    results.go_to(scan)
    results.updated.emit(detection)
    detection.layers.reveal()
    results.search.start()
    return detection
