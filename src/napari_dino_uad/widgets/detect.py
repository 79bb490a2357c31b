"""The Detect widget: a scan and a model give a heatmap and findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.widgets.layers import (
    METADATA,
    cut_colormap,
    is_ours,
    layer_geometry,
    replace_layer,
    slice_index,
    volume_reader,
)
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.threshold import (
    HIGHEST_RATE,
    ThresholdControl,
    format_rate,
    score_histogram,
)
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.findings import Finding
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.volume import Volume

__all__ = ["ANOMALY", "FINDINGS", "DetectWidget"]

ANOMALY, FINDINGS = "anomaly", "findings"
_COLOURS = "inferno"


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
    array: NDArray[np.float32]
    histogram: NDArray[np.float64]
    seconds: float


class DetectWidget(QWidget):
    """Find where a scan departs from healthy.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._job = Job(self)
        self._findings_job = Job(self)
        self._loading = Job(self)
        self._saving = Job(self)
        self._scan_layer: Image | None = None
        self._canvas: NDArray[np.float32] | None = None
        self._limits = (0.0, 1.0)
        self._edges: NDArray[np.float64] | None = None
        self.detection: AnomalyMap | None = None
        self.findings: list[Finding] = []
        self._build()
        self._connect()
        self._refresh_models()
        self._update_state()
        # torch, timm and the backbone take seconds to load: do it while the user looks around.
        self._loading.start(self._warm_up())

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.scan = ComboBox(
            choices=lambda _: [
                layer
                for layer in self._viewer.layers
                if isinstance(layer, Image) and not is_ours(layer)
            ],
            nullable=False,
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
        self._model_text = _small_label()
        self._run = QPushButton("Detect")
        self._run.setToolTip("Compute the heatmap, the slice on screen first (Ctrl+Shift+D).")
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("Stop; the slices that are done stay on screen.")
        run_row = QHBoxLayout()
        run_row.addWidget(self._run, 2)
        run_row.addWidget(self._cancel, 1)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(8)
        self._status = _small_label()
        self._banner = QLabel()
        self._banner.setWordWrap(True)
        self._banner.setStyleSheet(
            "background: #7a4b00; color: white; padding: 6px; border-radius: 4px;"
        )
        self._banner.hide()
        self.threshold = ThresholdControl()
        self.minimum_volume = QDoubleSpinBox()
        self.minimum_volume.setRange(0, 100)
        self.minimum_volume.setDecimals(2)
        self.minimum_volume.setSingleStep(0.05)
        self.minimum_volume.setValue(0.1)
        self.minimum_volume.setSuffix(" ml")
        self.minimum_volume.setToolTip("Smaller findings are not shown.")
        self.tissue_only = QCheckBox("Tissue only")
        self.tissue_only.setChecked(True)
        self.tissue_only.setToolTip(
            "Show and find nothing in the dark background, where the model knows nothing."
        )
        size_row = QHBoxLayout()
        size_row.addWidget(QLabel("Smallest finding"))
        size_row.addWidget(self.minimum_volume)
        size_row.addStretch()
        size_row.addWidget(self.tissue_only)
        self._summary = QLabel()
        self._summary.setWordWrap(True)
        self._cursor = _small_label()
        self._save = QPushButton("Save map and findings…")
        self._save.setToolTip(
            "Write the anomaly map and the findings on the grid of the scan's own file, with a "
            "CSV table."
        )
        notice = _small_label()
        notice.setText(RESEARCH_USE)
        notice.setAlignment(Qt.AlignmentFlag.AlignCenter)

        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.addLayout(form)
        layout.addWidget(self._model_text)
        layout.addLayout(run_row)
        layout.addWidget(self._bar)
        layout.addWidget(self._status)
        layout.addWidget(self._banner)
        layout.addWidget(_rule())
        layout.addWidget(self.threshold)
        layout.addLayout(size_row)
        layout.addWidget(self._summary)
        layout.addWidget(self._cursor)
        layout.addWidget(self._save)
        layout.addStretch()
        layout.addWidget(notice)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.setMinimumWidth(300)

    def _connect(self) -> None:
        self._run.clicked.connect(self.detect)
        self._cancel.clicked.connect(self.cancel)
        self._load.clicked.connect(self._choose_model_file)
        self._save.clicked.connect(self._choose_folder)
        self.model.changed.connect(self._on_model)
        self.scan.changed.connect(self._update_state)
        session().model_added.connect(self._on_model_added)
        self.threshold.dragged.connect(self._on_drag)
        self.threshold.rested.connect(self._find)
        self.minimum_volume.valueChanged.connect(self._find)
        self.tissue_only.toggled.connect(self._on_tissue)
        self._job.progressed.connect(self._on_progress)
        self._job.succeeded.connect(self._on_detected)
        self._job.failed.connect(self._show_error)
        self._job.stopped.connect(self._update_state)
        self._findings_job.succeeded.connect(self._on_findings)
        self._findings_job.failed.connect(self._show_error)
        self._loading.succeeded.connect(self._on_loaded)
        self._loading.failed.connect(self._show_error)
        self._loading.stopped.connect(self._update_state)
        self._saving.succeeded.connect(self._say)
        self._saving.failed.connect(self._show_error)
        for event in ("inserted", "removed", "reordered"):
            getattr(self._viewer.layers.events, event).connect(self._on_layers)
        self._viewer.mouse_move_callbacks.append(self._on_mouse)
        self._viewer.bind_key("Control-Shift-D", lambda _: self.detect(), overwrite=True)

    # Models -------------------------------------------------------------------------------

    def _warm_up(self, path: Path | None = None) -> Callable[[], Generator[Progress, None, Any]]:
        """Make a pipeline that loads a model file, if any, and its backbone."""

        def pipeline() -> Generator[Progress, None, Any]:
            from napari_dino_uad.core import detect as _detect  # noqa: F401 - imports torch
            from napari_dino_uad.core.backbones import DEFAULT_BACKBONE
            from napari_dino_uad.core.model_file import load_model

            yield Progress("Loading", 0, 1)
            model = load_model(path) if path else None
            if model is None:
                session().backbone(DEFAULT_BACKBONE)
                return None
            try:
                model.check_backbone(session().backbone(model.backbone_key))
                missing = ""
            except ValueError as error:
                missing = str(error)
            return path, model, missing

        return pipeline

    def load_model(self, path: Path | str) -> None:
        """Load a model file, in the background."""
        self._say(f"Loading {Path(path).name}…")
        self._loading.start(self._warm_up(Path(path)))

    def _choose_model_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Load a model", recall("model folder"), "Models (*.safetensors)"
        )
        if path:
            remember("model folder", str(Path(path).parent))
            self.load_model(path)

    def _on_loaded(self, result: Any) -> None:
        if result is None:
            self._say("")
            return
        path, model, missing = result
        self._say(missing)
        self.model.value = session().add_model(path.stem, model)

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
            self._limits = (
                model.calibration.threshold(HIGHEST_RATE),
                float(self._edges[-1]),
            )
        self._model_text.setText(model.summary() if model else "")
        self._update_state()

    def _chosen_model(self) -> FittedModel | None:
        return session().models.get(self.model.value) if self.model.value else None

    # Detecting ----------------------------------------------------------------------------

    def detect(self, *_: Any) -> None:
        """Detect on the chosen scan, from the slice on screen outwards."""
        layer, model = self.scan.value, self._chosen_model()
        if layer is None or model is None:
            self._update_state()
            return
        from napari_dino_uad.core.slices import plane_axis

        try:
            read = volume_reader(layer)
        except ValueError as error:
            self._show_error(str(error))
            return
        axis = plane_axis(model.preprocessing.plane)
        first = slice_index(self._viewer, layer, axis + layer.ndim - 3) if layer.ndim == 3 else 0
        self._findings_job.cancel()
        self._scan_layer, self.detection, self._canvas = layer, None, None
        self.findings = []
        self._banner.hide()
        self._summary.setText("")
        low, edges = self._limits[0], self._edges
        tissue_only = self.tissue_only.isChecked()

        def pipeline() -> Generator[Progress, None, _Detection]:
            return (yield from _detect_for_display(read, model, first, low, tissue_only, edges))

        self._job.start(pipeline)
        self._update_state()

    def cancel(self, *_: Any) -> None:
        """Stop detecting; what is on screen stays."""
        if self._job.cancel():
            self._say("Cancelled. The slices that were done stay on screen.")

    def _on_progress(self, progress: Progress) -> None:
        self._bar.setRange(0, max(progress.total, 0))
        self._bar.setValue(progress.done)
        left = self._job.seconds_left(progress)
        text = f"{progress.step} {progress.detail}: {progress.done} of {progress.total}"
        self._say(text + (f", {left:.0f} s left" if left and left > 2 else ""))
        canvas = progress.result
        if not isinstance(canvas, _Canvas) or self._scan_layer is None:
            return
        if self._canvas is None:
            self._canvas = canvas.array
            self._show_heat()
        elif ANOMALY in self._viewer.layers and self._on_screen(canvas):
            self._viewer.layers[ANOMALY].refresh(thumbnail=False, extent=False)

    def _on_screen(self, canvas: _Canvas) -> bool:
        """Say whether any of the new slices can be seen now."""
        layer = self._viewer.layers[ANOMALY]
        displayed = self._viewer.dims.displayed
        axis = canvas.axis + layer.ndim - 3
        if axis < 0 or axis + self._viewer.dims.ndim - layer.ndim in displayed:
            return True
        return slice_index(self._viewer, layer, axis) in canvas.indices

    def _show_heat(self) -> None:
        """Lay the heatmap over the scan."""
        layer, array = self._scan_layer, self._canvas
        if layer is None or array is None:
            return
        replace_layer(
            self._viewer,
            ANOMALY,
            "add_image",
            array.reshape(layer.data.shape),
            contrast_limits=self._limits,
            colormap=cut_colormap(self._limits, self.threshold.threshold, _COLOURS),
            interpolation2d="linear",
            blending="translucent",
            metadata={METADATA: {"role": "anomaly", **_volume_entry(layer)}},
            **layer_geometry(layer),
        )

    def _on_detected(self, detection: _Detection) -> None:
        self.detection = detection.anomaly
        self._canvas = detection.array
        if ANOMALY in self._viewer.layers:
            self._viewer.layers[ANOMALY].refresh()
        else:
            self._show_heat()
        if self._edges is not None:
            self.threshold.show_scan(self._edges, detection.histogram)
        seconds = detection.seconds
        self._bar.setRange(0, 1)
        self._bar.setValue(1)
        self._say(f"{len(detection.anomaly.scan)} slices in {seconds:.1f} s")
        self._find()

    # Threshold and findings ---------------------------------------------------------------

    def _on_drag(self, rate: float) -> None:
        threshold = self.threshold.threshold
        if ANOMALY in self._viewer.layers:
            self._viewer.layers[ANOMALY].colormap = cut_colormap(self._limits, threshold, _COLOURS)
        if self._canvas is None or FINDINGS not in self._viewer.layers:
            return
        # Only what is on screen now; the whole follows when the drag rests.
        layer = self._viewer.layers[FINDINGS]
        hidden = [
            axis
            for axis in range(layer.ndim)
            if axis + self._viewer.dims.ndim - layer.ndim not in self._viewer.dims.displayed
        ]
        where: list[Any] = [slice(None)] * layer.ndim
        for axis in hidden:
            where[axis] = slice_index(self._viewer, layer, axis)
        if len(hidden) == layer.ndim - 2:
            labels = layer.data[tuple(where)]
            heat = self._canvas.reshape(layer.data.shape)[tuple(where)]
            layer.data[tuple(where)] = np.where(heat > threshold, np.maximum(labels, 1), 0)
            layer.refresh(thumbnail=False, extent=False)

    def _on_tissue(self, *_: Any) -> None:
        if self.detection is None or self._canvas is None:
            return
        _fill(self._canvas, self.detection, self._limits[0], self.tissue_only.isChecked())
        if ANOMALY in self._viewer.layers:
            self._viewer.layers[ANOMALY].refresh()
        self._find()

    def _find(self, *_: Any) -> None:
        """Find connected regions above the threshold, in the background."""
        anomaly = self.detection
        if anomaly is None:
            return
        threshold = self.threshold.threshold
        minimum = self.minimum_volume.value()
        tissue_only = self.tissue_only.isChecked()

        def pipeline() -> Generator[Progress, None, Any]:
            from napari_dino_uad.core.findings import find_findings

            yield Progress("Finding", 0, 1)
            return find_findings(
                anomaly.scores,
                anomaly.volume,
                threshold,
                anomaly.model.calibration,
                foreground=anomaly.foreground if tissue_only else None,
                minimum_volume_ml=minimum,
            )

        self._findings_job.start(pipeline)

    def _on_findings(self, result: tuple[NDArray[np.uint8], list[Finding]]) -> None:
        labels, self.findings = result
        layer = self._scan_layer
        if layer is None:
            return
        shaped = labels.reshape(layer.data.shape)
        existing = self._viewer.layers[FINDINGS] if FINDINGS in self._viewer.layers else None
        if isinstance(existing, Labels) and existing.data.shape == shaped.shape:
            existing.data = shaped
        else:
            made = replace_layer(
                self._viewer,
                FINDINGS,
                "add_labels",
                shaped,
                opacity=0.9,
                metadata={METADATA: {"role": "findings", **_volume_entry(layer)}},
                **layer_geometry(layer),
            )
            made.contour = 1
        self._summary.setText(self._describe_findings())
        self._update_state()

    def _describe_findings(self) -> str:
        rate = format_rate(self.threshold.rate)
        if not self.findings:
            return f"No finding above {rate} healthy false positives."
        total = sum(finding.volume_ml for finding in self.findings)
        first = self.findings[0]
        right, anterior, superior = first.centroid_ras_mm
        count = f"{len(self.findings)} finding{'s' if len(self.findings) > 1 else ''}"
        return (
            f"<b>{count}, {total:.1f} ml</b> in all. The largest: {first.volume_ml:.1f} ml, "
            f"slices {first.first_slice} to {first.last_slice}, centre R {right:.0f} "
            f"A {anterior:.0f} S {superior:.0f} mm."
        )

    # Cursor, saving, state ----------------------------------------------------------------

    def _on_mouse(self, viewer: Viewer, event: Any) -> None:
        anomaly, layer = self.detection, self._scan_layer
        if anomaly is None or layer is None or layer not in viewer.layers:
            self._cursor.setText("")
            return
        position = layer.world_to_data(viewer.cursor.position[-layer.ndim :])
        index = tuple(round(float(value)) for value in position)
        if any(not 0 <= i < n for i, n in zip(index, layer.data.shape, strict=True)):
            self._cursor.setText("")
            return
        voxel = (0,) * (3 - len(index)) + index
        right, anterior, superior = anomaly.volume.to_ras_mm(voxel)
        text = f"R {right:.0f}  A {anterior:.0f}  S {superior:.0f} mm"
        if anomaly.foreground[voxel]:
            score = float(anomaly.scores[voxel])
            rate = float(anomaly.model.calibration.false_positive_rate(score))
            text += f"   score {score:.3f}, healthy {format_rate(rate)}"
        self._cursor.setText(text)

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Save map and findings in", recall("results folder")
        )
        if folder:
            remember("results folder", folder)
            self.save(Path(folder))

    def save(self, folder: Path) -> None:
        """Write the map, the findings and their table into a folder, in the background."""
        anomaly, findings = self.detection, self.findings
        if anomaly is None or FINDINGS not in self._viewer.layers:
            return
        labels = np.asarray(self._viewer.layers[FINDINGS].data).reshape(anomaly.volume.shape)
        rate = self.threshold.rate
        self._say("Saving…")

        def pipeline() -> Generator[Progress, None, str]:
            from napari_dino_uad.core.results import write_results

            yield Progress("Saving", 0, 1)
            written = write_results(folder, anomaly, labels, findings, rate)
            return f"Saved {', '.join(path.name for path in written)}."

        self._saving.start(pipeline)

    def _on_layers(self, *_: Any) -> None:
        self.scan.reset_choices()
        if self._scan_layer is not None and self._scan_layer not in self._viewer.layers:
            # The scan is gone, and with it what its map lies on.
            self._job.cancel()
            self._findings_job.cancel()
            self._scan_layer = self.detection = self._canvas = None
            self._summary.setText("")
        self._update_state()

    def _update_state(self, *_: Any) -> None:
        """Enable what can be used now, and say why the rest cannot."""
        running = self._job.running
        reason = ""
        if self.scan.value is None:
            reason = "Open a scan first: drag a file or folder into the window."
        elif self._chosen_model() is None:
            reason = "No model yet: fit one in the Fit widget, or load a model file."
        self._run.setEnabled(not reason and not running)
        self._cancel.setEnabled(running)
        self._bar.setVisible(running)
        self._save.setEnabled(self.detection is not None and not running)
        self._save.setToolTip(
            self._save.toolTip() if self.detection else "Detect first: there is no map to save yet."
        )
        if reason and not self._loading.running:
            self._say(reason)
        elif self._status.text().startswith(("Open a scan", "No model yet")):
            self._say("")

    def _say(self, text: str) -> None:
        self._status.setStyleSheet("")
        self._status.setText(text)
        self._status.setVisible(bool(text))

    def _show_error(self, text: str) -> None:
        self._say(text)
        self._status.setStyleSheet("color: #ff7b6b;")

    def closeEvent(self, event: Any) -> None:
        """Stop what runs when the dock is closed."""
        for job in (self._job, self._findings_job, self._loading, self._saving):
            job.cancel()
        if self._on_mouse in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._on_mouse)
        super().closeEvent(event)


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
    from napari_dino_uad.core.slices import plane_axis, to_plane

    started = time.perf_counter()
    volume = read()
    backbone = session().backbone(model.backbone_key)
    plane = model.preprocessing.plane
    array = np.full(volume.shape, low, dtype=np.float32)
    view = to_plane(array, plane)
    detecting = Inner(detect(volume, model, backbone=backbone, first_slice=first))
    for progress in detecting:
        part = progress.result
        if isinstance(part, SliceMaps):
            heat = part.grid.to_slices(part.maps)
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
    return _Detection(anomaly, array, histogram, time.perf_counter() - started)


def _fill(array: NDArray[np.float32], anomaly: AnomalyMap, low: float, tissue_only: bool) -> None:
    """Write the whole map into the array on screen."""
    array[...] = (
        np.where(anomaly.foreground, anomaly.scores, low) if tissue_only else anomaly.scores
    )


def _volume_entry(layer: Image) -> dict[str, Any]:
    volume = layer.metadata.get(METADATA, {}).get("volume")
    return {} if volume is None else {"volume": volume}


def _small_label() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    font = label.font()
    font.setPointSizeF(max(7.0, font.pointSizeF() * 0.9))
    label.setFont(font)
    return label


def _rule() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFrameShadow(QFrame.Shadow.Sunken)
    return line
