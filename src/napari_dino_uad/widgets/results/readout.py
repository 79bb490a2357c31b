"""The place, value and score below the cursor, in the status bar of a viewer's window."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QLabel

from napari_dino_uad.core.maps.places import place_mm
from napari_dino_uad.widgets.layers import scan_shape, volume_of
from napari_dino_uad.widgets.threshold import format_rate

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.widgets.results.detection import Detection
    from napari_dino_uad.widgets.results.store import Results

__all__ = ["Readout", "describe_point"]

_TOOLTIP = (
    "The point below the cursor: millimetres to the patient's right (R) or left (L), front (A) or "
    "back (P), head (S) or feet (I) from the scan's origin, or bare RAS coordinates where the "
    "origin is not in the middle of the scan; its value, and after a detection its anomaly score "
    "and the share of healthy tissue that scores higher."
)


class Readout(QObject):
    """A label at the right end of the status bar.

    napari writes its own text on the left at every movement, in its own time; the label stays.

    Parameters
    ----------
    viewer : Viewer
    results : Results
        Of the viewer.
    """

    def __init__(self, viewer: Viewer, results: Results) -> None:
        super().__init__(results)
        self._viewer, self._results = weakref.ref(viewer), results
        self._world: tuple[float, ...] | None = None
        self.label: QLabel | None = None
        results.cursor_moved.connect(self._on_cursor)
        for signal in (results.scan_chosen, results.updated, results.changed):
            signal.connect(self._show)
        # The window may still be being made.
        QTimer.singleShot(0, self._install)

    def _install(self) -> None:
        window = getattr(getattr(self._viewer(), "window", None), "_qt_window", None)
        try:
            bar = None if window is None else window.statusBar()
        except RuntimeError:
            # Qt has deleted the window.
            return
        if bar is not None:
            self.label = QLabel()
            self.label.setToolTip(_TOOLTIP)
            bar.addPermanentWidget(self.label)
            self._show()

    def _on_cursor(self, world: tuple[float, ...], again: bool) -> None:
        if not again or self._world is not None:
            self._world = world
            self._show()

    def _show(self, *_: Any) -> None:
        if self.label is None:
            return
        scan = self._results.scan
        text = ""
        if scan is not None and self._world is not None:
            text = describe_point(scan, self._results.shown, self._world)
        try:
            self.label.setText(text)
        except RuntimeError:
            # Qt has deleted the window.
            self.label = None


def describe_point(scan: Image, detection: Detection | None, world: tuple[float, ...]) -> str:
    """Describe a point: place, value, score and how much healthy tissue scores higher.

    Parameters
    ----------
    scan : Image
        Layer of the scan.
    detection : Detection or None
        Of the scan.
    world : tuple of float
        World position of the point.

    Returns
    -------
    str
        Empty outside the scan.
    """
    if len(world) < scan.ndim:
        return ""
    index = tuple(round(float(one)) for one in scan.world_to_data(world[-scan.ndim :]))
    if any(not 0 <= i < n for i, n in zip(index, scan_shape(scan), strict=True)):
        return ""
    voxel = (0,) * (3 - len(index)) + index
    parts = [_place(scan, voxel), _value(scan.data[index])]
    if detection is not None and detection.anomaly is not None and not detection.held:
        anomaly = detection.anomaly
        if anomaly.foreground[voxel]:
            score = float(anomaly.scores[voxel])
            rate = float(anomaly.model.calibration.false_positive_rate(score))
            parts.append(f"score {score:.3f} ({format_rate(rate)} of healthy tissue is above)")
        else:
            parts.append("background")
    return "   ".join(parts)


def _value(value: Any) -> str:
    """Return a grey value, or red, green and blue, as text."""
    if np.ndim(value):
        return f"colour {', '.join(str(one) for one in np.asarray(value)[:3])}"
    return f"value {float(value):.4g}"


def _place(scan: Image, voxel: tuple[int, ...]) -> str:
    volume = volume_of(scan)
    if volume is not None and volume.spacing_known:
        return place_mm(volume, voxel)
    return " ".join(
        f"{name} {number}"
        for name, number in zip(("slice", "row", "column"), voxel, strict=True)
        if scan.ndim == 3 or name != "slice"
    )
