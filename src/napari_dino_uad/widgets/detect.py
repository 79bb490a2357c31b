"""The Detect widget: a scan and a model give a heatmap and findings."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
)

from napari_dino_uad.core.maps.findings import SizeUnit, size_unit
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.widgets.controls import (
    DockWidget,
    RunControl,
    rule,
    small_label,
    warning_label,
)
from napari_dino_uad.widgets.heat import HeatView
from napari_dino_uad.widgets.layers import (
    is_scan_layer,
    layer_size_unit,
    slice_index,
    volume_reader,
)
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.threshold import (
    HIGHEST_RATE,
    LOWEST_RATE,
    ThresholdControl,
    format_rate,
    score_histogram,
)
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.findings import Finding
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["DetectWidget"]

_SAVE_TOOLTIP = (
    "Write the anomaly map and the findings on the grid of the scan's own file, with a CSV table."
)

# What napari imports when the first labels layer is made, for half a second in which the window
# would not answer.
_LABELS_NEED = ("pandas", "scipy.linalg", "skimage.color.colorconv")


@dataclass(frozen=True)
class _Canvas:
    """The heatmap's array, filled by the worker and shown by the window."""

    array: NDArray[np.float32]
    indices: list[int]
    axis: int


@dataclass(frozen=True)
class _Detection:
    """A finished detection with what its display needs."""

    anomaly: AnomalyMap
    histogram: NDArray[np.float64]
    warning: str
    seconds: float


class DetectWidget(DockWidget):
    """Find where a scan departs from healthy.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.

    Attributes
    ----------
    detection : AnomalyMap or None
        The finished map on screen.
    findings : list of Finding
        What lies above the threshold.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.job = Job(self)
        self.findings_job = Job(self)
        self.loading = Job(self)
        self.saving = Job(self)
        self._scan_layer: Image | None = None
        self._heat: HeatView | None = None
        self._limits = (0.0, 1.0)
        self._edges: NDArray[np.float64] | None = None
        self.detection: AnomalyMap | None = None
        self.findings: list[Finding] = []
        self._build()
        self._connect()
        self._refresh_models()
        # torch, timm and the backbone take seconds to load: do it while the user looks around.
        self.loading.start(_loader(None))
        self._on_scan()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.scan = ComboBox(
            choices=lambda _: [layer for layer in self._viewer.layers if is_scan_layer(layer)],
        )
        self.scan.native.setToolTip("The image to look at: any open 2D or 3D grey image.")
        self.model = ComboBox(choices=lambda _: list(session().models))
        self.model.native.setToolTip("A model of healthy scans, fitted here or loaded from a file.")
        for combo in (self.scan, self.model):
            combo.native.setMinimumWidth(60)
        self._load = QPushButton("Load…")
        self._load.setToolTip("Load a model file (.safetensors).")
        model_row = QHBoxLayout()
        model_row.addWidget(self.model.native, 1)
        model_row.addWidget(self._load)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Scan", self.scan.native)
        form.addRow("Model", model_row)
        self._model_text = small_label()
        self.run = RunControl(
            self.job,
            "Detect",
            "Compute the heatmap, the slice on screen first (Ctrl+Shift+D).",
            "Stop; the slices that are done stay on screen.",
        )
        self.warning = warning_label()
        self.threshold = ThresholdControl()
        self.minimum_size = QDoubleSpinBox()
        self.minimum_size.setMinimumWidth(96)
        self.minimum_size.setToolTip(
            "Smaller findings are not shown: in ml, of a single slice in mm², and in pixels where "
            "the file tells no spacing."
        )
        self._set_unit(SizeUnit.of((1.0, 1.0, 1.0), False, True))
        self.tissue_only = QCheckBox("Tissue only")
        self.tissue_only.setChecked(True)
        self.tissue_only.setToolTip(
            "Show and find nothing in the dark background, where the model knows nothing."
        )
        size_row = QHBoxLayout()
        size_row.addWidget(QLabel("Smallest finding"))
        size_row.addWidget(self.minimum_size)
        size_row.addStretch()
        size_row.addWidget(self.tissue_only)
        self._summary = QLabel()
        self._summary.setWordWrap(True)
        self._cursor = small_label()
        self._save = QPushButton("Save map and findings…")
        notice = small_label(RESEARCH_USE)
        notice.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.content.addLayout(form)
        for widget in (self._model_text, self.run, self.warning, rule(), self.threshold):
            self.content.addWidget(widget)
        self.content.addLayout(size_row)
        for widget in (self._summary, self._cursor, self._save):
            self.content.addWidget(widget)
        self.content.addStretch()
        self.content.addWidget(notice)

    def _connect(self) -> None:
        self.run.start.clicked.connect(self.detect)
        self.run.cancel.clicked.connect(self.cancel)
        self._load.clicked.connect(self._choose_model_file)
        self._save.clicked.connect(self._choose_folder)
        self.model.changed.connect(self._on_model)
        self.scan.changed.connect(self._on_scan)
        session().model_added.connect(self._on_model_added)
        self.threshold.dragged.connect(self._on_drag)
        self.threshold.rested.connect(self._find)
        self.minimum_size.valueChanged.connect(self._find)
        self.tissue_only.toggled.connect(self._on_tissue)
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(self._on_detected)
        self.findings_job.succeeded.connect(self._on_findings)
        self.loading.succeeded.connect(self._on_loaded)
        self.loading.progressed.connect(lambda progress: self.run.remark(progress.note))
        self.saving.succeeded.connect(self.run.say)
        for job in (self.findings_job, self.loading, self.saving):
            job.failed.connect(self.run.complain)
        for job in (self.job, self.loading):
            job.stopped.connect(self._update_state)
        for event in ("inserted", "removed", "reordered"):
            getattr(self._viewer.layers.events, event).connect(self._on_layers)
        self._viewer.mouse_move_callbacks.append(self._on_mouse)
        self._viewer.bind_key("Control-Shift-D", lambda _: self.detect(), overwrite=True)

    # Models -------------------------------------------------------------------------------

    def load_model(self, path: Path | str) -> None:
        """Load a model file, in the background."""
        self.run.say(f"Loading {Path(path).name}…")
        self.loading.start(_loader(Path(path)))

    def _choose_model_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Load a model", recall("model folder"), "Models (*.safetensors)"
        )
        if path:
            remember("model folder", str(Path(path).parent))
            self.load_model(path)

    def _on_loaded(self, result: tuple[str, FittedModel, str] | None) -> None:
        if result is None:
            return
        name, model, problem = result
        self.run.say("")
        session().add_model(name, model)
        if problem:
            self.run.complain(problem)

    def _on_model_added(self, name: str) -> None:
        self._refresh_models()
        self.model.value = name

    def _refresh_models(self) -> None:
        self.model.reset_choices()
        self._on_model()

    def _on_model(self, *_: Any) -> None:
        model = self._chosen_model()
        if model is not None:
            self._edges = self.threshold.set_calibration(model.calibration)
            # One colour scale for all scans of a model: the slider's range.
            self._limits = (
                model.calibration.threshold(HIGHEST_RATE),
                model.calibration.threshold(LOWEST_RATE),
            )
        self._model_text.setText(model.summary() if model else "")
        self._update_state()

    def _chosen_model(self) -> FittedModel | None:
        return session().models.get(self.model.value) if self.model.value else None

    def _on_scan(self, *_: Any) -> None:
        layer = self.scan.value
        if layer is not None and layer.ndim in (2, 3):
            unit = layer_size_unit(layer)
            if unit.name != self._unit.name:
                self._set_unit(unit)
        self._update_state()

    def _set_unit(self, unit: SizeUnit) -> None:
        """Tell sizes in another unit, from its own smallest one on."""
        self._unit = unit
        with QSignalBlocker(self.minimum_size):
            self.minimum_size.setRange(0, 1000 * unit.smallest)
            self.minimum_size.setDecimals(unit.decimals)
            self.minimum_size.setSingleStep(unit.smallest / 2)
            self.minimum_size.setSuffix(f" {unit.name}")
            self.minimum_size.setValue(unit.smallest)

    # Detecting ----------------------------------------------------------------------------

    def detect(self, *_: Any) -> None:
        """Detect on the chosen scan, from the slice on screen outwards."""
        layer, model = self.scan.value, self._chosen_model()
        if layer is None or model is None:
            self._update_state()
            return
        from napari_dino_uad.core.slices.planes import plane_axis

        try:
            read = volume_reader(layer)
        except ValueError as error:
            self.run.complain(str(error))
            return
        axis = plane_axis(model.preprocessing.plane)
        first = slice_index(self._viewer, layer, axis) if layer.ndim == 3 else 0
        self._forget()
        self._scan_layer = layer
        low, tissue_only, edges = self._limits[0], self.tissue_only.isChecked(), self._edges

        def pipeline() -> Generator[Progress, None, _Detection]:
            return (yield from _detect_for_display(read, model, first, low, tissue_only, edges))

        self.job.start(pipeline)
        self._update_state()

    def cancel(self, *_: Any) -> None:
        """Stop detecting; what is on screen stays."""
        if self.job.cancel():
            self.run.say("Cancelled. The slices that were done stay on screen.")

    def _forget(self) -> None:
        """Let go of the last detection."""
        self.job.cancel()
        self.findings_job.cancel()
        self._scan_layer = self._heat = self.detection = None
        self.findings = []
        self._summary.setText("")
        self._warn("")

    def _on_progress(self, progress: Progress) -> None:
        canvas = progress.result
        if not isinstance(canvas, _Canvas) or self._scan_layer is None:
            return
        if self._heat is None:
            self._heat = HeatView(self._viewer, self._scan_layer, canvas.array, self._limits)
            self._heat.show(self.threshold.threshold)
        else:
            self._heat.refresh(canvas.indices, canvas.axis)

    def _on_detected(self, detection: _Detection) -> None:
        self.detection = detection.anomaly
        self._warn(detection.warning)
        if self._heat is not None:
            self._heat.refresh()
        if self._edges is not None:
            self.threshold.show_scan(self._edges, detection.histogram)
        self.run.say(f"{len(detection.anomaly.scan)} slices in {detection.seconds:.1f} s")
        self._find()

    def _warn(self, text: str) -> None:
        self.warning.setText(text)
        self.warning.setVisible(bool(text))

    # Threshold and findings ---------------------------------------------------------------

    def _on_drag(self, _: float) -> None:
        if self._heat is not None:
            self._heat.cut(self.threshold.threshold)

    def _on_tissue(self, *_: Any) -> None:
        if self.detection is None or self._heat is None:
            return
        _fill(self._heat.array, self.detection, self._limits[0], self.tissue_only.isChecked())
        self._heat.refresh()
        self._find()

    def _find(self, *_: Any) -> None:
        """Find connected regions above the threshold, in the background."""
        anomaly = self.detection
        if anomaly is None:
            return
        threshold = self.threshold.threshold
        minimum = self.minimum_size.value()
        tissue_only = self.tissue_only.isChecked()

        def pipeline() -> Generator[Progress, None, Any]:
            from napari_dino_uad.core.maps.findings import find_findings

            yield Progress("Finding", 0, 1)
            return find_findings(
                anomaly.scores,
                anomaly.volume,
                threshold,
                anomaly.model.calibration,
                foreground=anomaly.foreground if tissue_only else None,
                minimum_size=minimum,
            )

        self.findings_job.start(pipeline)

    def _on_findings(self, result: tuple[NDArray[np.uint8], list[Finding]]) -> None:
        labels, self.findings = result
        if self._heat is not None:
            self._heat.show_findings(labels)
        self._summary.setText(self._describe_findings())
        self._update_state()

    def _describe_findings(self) -> str:
        rate = format_rate(self.threshold.rate)
        if not self.findings or self.detection is None:
            return f"No finding above {rate} healthy false positives."
        volume, first = self.detection.volume, self.findings[0]
        unit = size_unit(volume)
        total = unit.text(sum(finding.voxels for finding in self.findings))
        many = len(self.findings) > 1
        head = f"<b>{len(self.findings)} finding{'s' if many else ''}, {total}</b>"
        parts = [f"largest {unit.text(first.voxels)}"] if many else []
        if not volume.is_2d:
            parts.append(f"slices {first.first_slice} to {first.last_slice}")
        parts.append(f"centre {_place(volume, first.centroid_voxel)}".replace(" ", "&nbsp;"))
        text = ", ".join(parts)
        return f"{head}. {text[0].upper()}{text[1:]}."

    # Cursor, saving, state ----------------------------------------------------------------

    def _on_mouse(self, viewer: Viewer, event: Any) -> None:
        """Say what lies under the cursor."""
        self._cursor.setText(self._describe(viewer.cursor.position))

    def _describe(self, world: tuple[float, ...]) -> str:
        anomaly, layer = self.detection, self._scan_layer
        if anomaly is None or layer is None:
            return ""
        position = layer.world_to_data(world[-layer.ndim :])
        index = tuple(round(float(value)) for value in position)
        if any(not 0 <= i < n for i, n in zip(index, layer.data.shape, strict=True)):
            return ""
        voxel = (0,) * (3 - len(index)) + index
        text = _place(anomaly.volume, voxel)
        if not anomaly.foreground[voxel]:
            return f"{text}   background"
        score = float(anomaly.scores[voxel])
        rate = float(anomaly.model.calibration.false_positive_rate(score))
        return f"{text}   score {score:.3f}: {format_rate(rate)} of healthy tissue is above"

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Save map and findings in", recall("results folder")
        )
        if folder:
            remember("results folder", folder)
            self.save(Path(folder))

    def save(self, folder: Path) -> None:
        """Write the map, the findings and their table into a folder, in the background."""
        anomaly, findings, rate = self.detection, self.findings, self.threshold.rate
        labels = self._heat.findings() if self._heat is not None else None
        if anomaly is None or labels is None:
            return
        self.run.say("Saving…")

        def pipeline() -> Generator[Progress, None, str]:
            from napari_dino_uad.core.results import write_results

            yield Progress("Saving", 0, 1)
            shaped = labels.reshape(anomaly.volume.shape)
            written = write_results(folder, anomaly, shaped, findings, rate)
            return f"Saved {', '.join(path.name for path in written)}."

        self.saving.start(pipeline)

    def _on_layers(self, *_: Any) -> None:
        self.scan.reset_choices()
        if self._scan_layer is not None and self._scan_layer not in self._viewer.layers:
            # The scan is gone, and with it what its map lies on.
            self._forget()
        self._on_scan()

    def _update_state(self, *_: Any) -> None:
        """Enable what can be used now, and say why the rest cannot."""
        reason = ""
        if self.scan.value is None:
            reason = "Open a scan first: drag a file or folder into the window."
        elif self._chosen_model() is None:
            reason = "No model yet: fit one in the Fit widget, or load a model file."
        self.run.allow(reason)
        self._save.setEnabled(self.detection is not None and not self.job.running)
        self._save.setToolTip(_SAVE_TOOLTIP if self.detection else "Detect first: no map yet.")

    def closeEvent(self, event: Any) -> None:
        """Stop what runs, and let go of the viewer."""
        if self._on_mouse in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._on_mouse)
        super().closeEvent(event)


def _place(volume: Volume, voxel: Sequence[float]) -> str:
    """Say where a voxel (S, P, L) is, in mm where the file tells them."""
    if volume.spacing_known:
        right, anterior, superior = volume.to_ras_mm(voxel)
        return f"R {right:.0f} A {anterior:.0f} S {superior:.0f} mm"
    number, row, column = voxel
    place = f"row {row:.0f} column {column:.0f}"
    return place if volume.is_2d else f"slice {number:.0f} {place}"


def _loader(path: Path | None) -> Callable[[], Generator[Progress, None, Any]]:
    """Make a pipeline that loads a model file, if any, and its backbone."""

    def pipeline() -> Generator[Progress, None, tuple[str, FittedModel, str] | None]:
        from napari_dino_uad.core import detect as _detect  # noqa: F401 - imports torch
        from napari_dino_uad.core.backbones.backbone import DEFAULT_BACKBONE
        from napari_dino_uad.core.errors import InputError
        from napari_dino_uad.core.model_file import load_model

        yield Progress("Loading", 0, 1)
        for module in _LABELS_NEED:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
            yield Progress("Loading", 0, 1)
        if path is None:
            yield from session().place(session().backbone(DEFAULT_BACKBONE))
            return None
        model = load_model(path)
        try:
            yield from session().backbone_of(model)
        except InputError as error:
            return path.stem, model, str(error)
        return path.stem, model, ""

    return pipeline


def _detect_for_display(
    read: Callable[[], Volume],
    model: FittedModel,
    first: int,
    low: float,
    tissue_only: bool,
    edges: NDArray[np.float64] | None,
) -> Generator[Progress, None, _Detection]:
    """Detect, and bring each batch to the voxels of the scan before it leaves the thread."""
    from napari_dino_uad.core.detect import SliceMaps, detect
    from napari_dino_uad.core.maps.domain_shift import measure_shift
    from napari_dino_uad.core.slices.planes import plane_axis, to_plane

    started = time.perf_counter()
    volume = read()
    backbone = yield from session().backbone_of(model)
    plane = model.preprocessing.plane
    array = np.full(volume.shape, low, dtype=np.float32)
    view = to_plane(array, plane)
    detecting = Inner(detect(volume, model, backbone=backbone, first_slice=first))
    for progress in detecting:
        part = progress.result
        if isinstance(part, SliceMaps):
            heat = part.scores()
            view[part.indices] = np.where(part.foreground, heat, low) if tissue_only else heat
            canvas = _Canvas(array, part.indices, plane_axis(plane))
            yield replace(progress, result=canvas)
        else:
            yield progress
    anomaly = detecting.value
    yield Progress("Finishing", 1, 1, volume.name)
    _fill(array, anomaly, low, tissue_only)
    tissue = anomaly.scores[anomaly.foreground]
    histogram = score_histogram(tissue, edges) if edges is not None else np.zeros(1)
    warning = measure_shift(anomaly.level, model.levels).warning
    return _Detection(anomaly, histogram, warning, time.perf_counter() - started)


def _fill(array: NDArray[np.float32], anomaly: AnomalyMap, low: float, tissue_only: bool) -> None:
    """Write the whole map into the array on screen."""
    scores = anomaly.scores
    masked = np.where(anomaly.foreground, scores, low) if tissue_only else scores
    array[...] = masked.reshape(array.shape)
