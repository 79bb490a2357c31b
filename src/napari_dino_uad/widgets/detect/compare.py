"""A second model on the same scan: where the two agree, or their maps beside each other."""

from __future__ import annotations

import html
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.controls import Fold, RunControl, small_label
from napari_dino_uad.widgets.detect.side_by_side import SideBySide
from napari_dino_uad.widgets.forms import combo_box, wide_form
from napari_dino_uad.widgets.layers import (
    layer_geometry,
    layer_size_unit,
    scan_shape,
    volume_reader,
)
from napari_dino_uad.widgets.results.found import find
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.threshold import format_rate
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.finding_settings import FindingSettings
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.volume import Volume
    from napari_dino_uad.widgets.results.detection import Detection
    from napari_dino_uad.widgets.results.store import Results

__all__ = ["BOTH", "ONLY_A", "ONLY_B", "Compare", "agreement"]

#: Labels of the comparison.
BOTH, ONLY_A, ONLY_B = 1, 2, 3

# Colours that colour-blind eyes tell apart (Okabe and Ito).
_COLOURS: dict[int | None, str] = {BOTH: "#f0e442", ONLY_A: "#d55e00", ONLY_B: "#56b4e9"}
_OPACITY = 0.65


@dataclass(frozen=True)
class _Compared:
    """Two maps of one scan.

    Attributes
    ----------
    detection : Detection
        That of the first model.
    name : str
        Of the second model.
    second : AnomalyMap
    settings : FindingSettings
        Of the labels.
    labels : ndarray of uint8, (S, P, L)
        `BOTH`, `ONLY_A` and `ONLY_B`.
    found : ndarray of uint8, (S, P, L)
        Findings of the second model.
    """

    detection: Detection
    name: str
    second: AnomalyMap
    settings: FindingSettings
    labels: NDArray[np.uint8]
    found: NDArray[np.uint8]


def agreement(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.uint8]:
    """Return `BOTH`, `ONLY_A` and `ONLY_B` where two label maps of one shape are above 0."""
    first, second = one > 0, other > 0
    labels = np.zeros(first.shape, dtype=np.uint8)
    labels[first & second] = BOTH
    labels[first & ~second] = ONLY_A
    labels[second & ~first] = ONLY_B
    return labels


class Compare(QWidget):
    """Runs a second model on the scan shown, and shows where the two agree.

    Parameters
    ----------
    viewer : Viewer
    results : Results

    Signals
    -------
    shown : Detection
        A comparison with this detection is on screen.
    """

    shown = Signal(object)

    def __init__(self, viewer: Viewer, results: Results) -> None:
        super().__init__()
        self._viewer, self._results = viewer, results
        self._compared: _Compared | None = None
        self._layer: Labels | None = None
        self.job = Job(self)
        self.model_box = combo_box(
            lambda _: self._others(), "The second model. Load or fit it like the first."
        )
        self.run = RunControl(
            self.job,
            "Compare",
            "Run this model on the same scan, and show where both find something and where only "
            "one does, at the same rate of false alarms.",
            "Stop; nothing is shown.",
            remarks=False,
        )
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setToolTip(
            "Show the two maps beside each other, with one threshold, instead of where they agree."
        )
        self._beside = SideBySide(viewer, results)
        self.legend = small_label()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(wide_form([("With", self.model_box.native)]))
        layout.addWidget(self.run)
        layout.addWidget(self.side_by_side)
        layout.addWidget(self.legend)
        self.fold = Fold("Compare with another model", self, "Where two models agree.")
        self.side_by_side.toggled.connect(self._on_side_by_side)
        self.run.start.clicked.connect(self.start)
        self.run.cancel.clicked.connect(lambda _: self.job.cancel())
        self.job.succeeded.connect(self._on_compared)
        self.job.stopped.connect(self.refresh)
        self.refresh()

    @property
    def layer(self) -> Labels | None:
        """The comparison on screen."""
        return self._layer

    def _others(self) -> list[str]:
        shown = self._results.shown
        models = session().models
        return [name for name in models if shown is None or models[name] is not shown.model]

    def refresh(self, *_: Any) -> None:
        """Offer the models that are loaded now, and follow the detection on screen."""
        self.model_box.reset_choices()
        compared, shown = self._compared, self._results.shown
        gone = self._layer is not None and self._layer not in self._viewer.layers
        gone = gone or self._beside.broken
        if compared is not None and (gone or shown is not compared.detection):
            self.clear()
        self.run.allow(self._why_not(shown))

    def _why_not(self, shown: Detection | None) -> str:
        if shown is None or shown.anomaly is None:
            return "Detect first."
        if shown.held:
            return "This scan is not of the kind the model knows; press Show anyway first."
        if not self._others():
            return "Load or fit a second model first."
        return ""

    def start(self, *_: Any) -> None:
        """Run the chosen model on the scan of the detection on screen."""
        shown, name = self._results.shown, self.model_box.value
        if shown is None or not name or self._why_not(shown):
            self.refresh()
            return
        read = volume_reader(shown.scan)
        self.job.start(_comparer(shown, read, name, session().models[name]))
        self.refresh()

    def follow(self, detection: Detection) -> None:
        """Compare again after the settings of a detection have changed."""
        compared = self._compared
        if compared is not None and detection is compared.detection:
            self._beside.cut(detection.settings.rate)
        if compared is None or not detection.current:
            return
        if detection is not compared.detection:
            self.refresh()
            return
        if not detection.settings.same(compared.settings) and not self.job.running:
            self.job.start(_again(compared))

    def clear(self) -> None:
        """Remove the comparison from the screen."""
        layer, compared = self._layer, self._compared
        self._layer = self._compared = None
        self._beside.hide()
        self.legend.setText("")
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        if compared is not None and not compared.detection.held:
            for one in compared.detection.layers.pair:
                one.visible = True

    def _on_compared(self, compared: _Compared) -> None:
        if compared.detection is not self._results.shown:
            return
        first = self._compared is None
        self._compared = compared
        self._show(compared, hide=first)
        self.shown.emit(compared.detection)
        self.follow(compared.detection)

    def _on_side_by_side(self, *_: Any) -> None:
        if self._compared is not None:
            self._show(self._compared, hide=True)

    def _show(self, compared: _Compared, *, hide: bool) -> None:
        """Show where the two agree, or both maps."""
        why_not = self._beside.why_not(compared.detection)
        if self.side_by_side.isChecked() and not why_not:
            layer, self._layer = self._layer, None
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
            self._beside.show(
                compared.detection,
                compared.name,
                compared.second,
                compared.found,
                compared.settings,
            )
        else:
            self._beside.hide()
            self._show_agreement(compared, hide=hide)
        self.run.say(why_not if self.side_by_side.isChecked() else "")
        self.legend.setText(_legend(compared, self._beside.shown))

    def _show_agreement(self, compared: _Compared, *, hide: bool) -> None:
        scan = compared.detection.scan
        data = compared.labels.reshape(scan_shape(scan))
        if self._layer is None or self._layer not in self._viewer.layers:
            self._layer = Labels(
                data,
                name=f"comparison: {scan.name}",
                colormap={None: "transparent", **_COLOURS},
                opacity=_OPACITY,
                metadata={METADATA: {"role": "comparison"}},
                **layer_geometry(scan),
            )
            active = self._viewer.layers.selection.active
            self._viewer.layers.append(self._layer)
            self._viewer.layers.selection.active = active
        else:
            self._layer.data = data
        if hide:
            for one in compared.detection.layers.pair:
                one.visible = False


def _legend(compared: _Compared, beside: bool) -> str:
    unit = layer_size_unit(compared.detection.scan)
    counts = np.bincount(compared.labels.ravel(), minlength=4)
    words = {
        BOTH: "both",
        ONLY_A: f"only {compared.detection.model_name}",
        ONLY_B: f"only {compared.name}",
    }
    sizes = {label: unit.text(int(counts[label])) for label in words}
    if beside:
        names = html.escape(compared.detection.model_name), html.escape(compared.name)
        parts = [f"left {names[0]}, right {names[1]}"]
        parts += [f"{html.escape(words[label])} {size}" for label, size in sizes.items()]
    else:
        parts = [
            f'<span style="color: {_COLOURS[label]}">■</span> {html.escape(words[label])} {size}'
            for label, size in sizes.items()
        ]
    return f"At {format_rate(compared.settings.rate)} false alarms:<br>" + "<br>".join(parts)


def _comparer(
    detection: Detection, read: Callable[[], Volume], name: str, model: FittedModel
) -> Callable[[], Generator[Progress, None, _Compared]]:
    """Return a pipeline that runs a second model and compares it with a detection."""
    settings, first = detection.settings, detection.anomaly
    if first is None:
        raise RuntimeError("only a finished map can be compared")

    def pipeline() -> Generator[Progress, None, _Compared]:
        from napari_dino_uad.core.detect import detect

        volume = read()
        backbone = yield from session().backbone_of(model)
        detecting = Inner(detect(volume, model, backbone=backbone))
        for progress in detecting:
            # Nobody shows the slices of the second map.
            yield replace(progress, result=None)
        yield Progress("Comparing", 0, 1)
        labels = _labels(first, detecting.value, settings)
        return _Compared(detection, name, detecting.value, settings, *labels)

    return pipeline


def _again(compared: _Compared) -> Callable[[], Generator[Progress, None, _Compared]]:
    """Return a pipeline that compares the same maps with the present settings."""
    settings, first = compared.detection.settings, compared.detection.anomaly

    def pipeline() -> Generator[Progress, None, _Compared]:
        yield Progress("Comparing", 0, 1)
        assert first is not None
        labels, found = _labels(first, compared.second, settings)
        return replace(compared, settings=settings, labels=labels, found=found)

    return pipeline


def _labels(
    first: AnomalyMap, second: AnomalyMap, settings: FindingSettings
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Compare two maps at the same false-positive rate, without the user's corrections.

    Returns
    -------
    tuple of ndarray of uint8, (S, P, L)
        Where they agree, and the findings of the second.
    """
    plain = replace(settings, edits=None)
    found = find(second, plain).labels
    return agreement(find(first, plain).labels, found), found
