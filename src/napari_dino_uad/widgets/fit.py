"""The Fit widget: healthy scans give a model of what is normal."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyqtgraph as pg
from magicgui.widgets import ComboBox
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_dino_uad.core.maps.score_map import MapSettings
from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.widgets.controls import DockWidget, RunControl, rule, small_label
from napari_dino_uad.widgets.layer_masks import LayerScan, find_mask, layer_cases, mask_reader
from napari_dino_uad.widgets.layers import is_scan_layer, volume_reader
from napari_dino_uad.widgets.session import session, weights_setting
from napari_dino_uad.widgets.settings import recall, remember
from napari_dino_uad.widgets.settings_form import SettingsForm
from napari_dino_uad.widgets.workers import Job, writing

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.cohort import Case

__all__ = ["FitWidget"]

_BLUE = (110, 160, 220)
_ALL_PLANES = "all three"
_WINDOW_AUTO = "auto (MR)"
_FILES = "Scans (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm *.png *.tif *.tiff)"


class _Found(NamedTuple):
    """The cases that the list stands for, a note, and patterns that would pair what is there."""

    cases: list[Case]
    note: str
    patterns: tuple[str, str] | None


class FitWidget(DockWidget):
    """Fit a model on healthy scans.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.

    Attributes
    ----------
    fitted : FittedModel or None
        The last model.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.job = Job(self)
        self.looking = Job(self)
        self.loading = Job(self)
        self.saving = Job(self)
        self.cases: list[Case] = []
        self.fitted: FittedModel | None = None
        self._form: SettingsForm | None = None
        self._configs: dict[str, Any] = {}
        self._build()
        self._connect()
        # The methods' settings live beside torch, which takes seconds to import.
        self.loading.start(_load_settings)
        self._update_state()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.paths = QListWidget()
        self.paths.setFixedHeight(74)
        self.paths.setToolTip("Healthy scans, or scans whose lesions have masks.")
        files, folder = QPushButton("Files…"), QPushButton("Folder…")
        layers, remove = QPushButton("Open layers"), QPushButton("Remove")
        for button, text in (
            (files, "Add scan files."),
            (folder, "Add a folder: its scans, or one scan if it holds DICOM or PNG slices."),
            (layers, "Add the image layers that are open here; a labels layer named like a scan "
                     "with ' mask' after it is its lesion mask."),
            (remove, "Take the selected line off the list."),
        ):  # fmt: skip
            button.setToolTip(text)
        self._buttons = {"files": files, "folder": folder, "layers": layers, "remove": remove}
        row = QHBoxLayout()
        for button in self._buttons.values():
            row.addWidget(button)
        self.pattern = QLineEdit()
        self.pattern.setPlaceholderText("all scans; or *_flair.nii.gz")
        self.pattern.setToolTip("Which files of a folder are scans; * is the name of the case.")
        self.mask_pattern = QLineEdit()
        self.mask_pattern.setPlaceholderText("none; or *_lesion.nii.gz")
        self.mask_pattern.setToolTip(
            "Lesion masks beside the scans, or ../masks/*.png in another folder; * is the name of "
            "the case. Slices with lesions, and those within 2 of them, are left out."
        )
        self.mask_geometry = ComboBox(
            choices=[("must be the scan's", "check"), ("ignored, file order", "ignore")]
        )
        self.mask_geometry.native.setMinimumWidth(60)
        self.mask_geometry.native.setToolTip(
            "Whether a mask must lie where its scan lies. Ignored, its voxels are taken in the "
            "order of its file as those of the scan's own file: for masks saved without geometry."
        )
        self.held_out = QLineEdit()
        self.held_out.setPlaceholderText("a fifth of the scans")
        self.held_out.setToolTip(
            "A folder of other healthy scans, on which thresholds are calibrated."
        )
        choose = QPushButton("…")
        choose.setFixedWidth(32)
        choose.setToolTip("Choose the folder.")
        choose.clicked.connect(self._choose_held_out)
        held = QHBoxLayout()
        held.addWidget(self.held_out)
        held.addWidget(choose)
        self._found = small_label("No scans yet.")
        self._pair = QPushButton("Pair scans with masks")
        self._pair.hide()
        self._patterns: tuple[str, str] | None = None

        self.backbone = ComboBox(choices=_backbone_choices())
        self.backbone.native.setToolTip("The network that describes each patch of a slice.")
        self.backbone.native.setMinimumWidth(60)
        self.weights = QLineEdit()
        self.weights.setPlaceholderText("from the installation or its hub")
        self.weights.setToolTip(
            "A file of weights (Meta's .pth, or timm's .pth or .safetensors), for machines without "
            "a network."
        )
        self._choose = QPushButton("…")
        self._choose.setFixedWidth(32)
        self._choose.setToolTip("Choose the file.")
        self._choose.clicked.connect(self._choose_weights)
        weights = QHBoxLayout()
        weights.addWidget(self.weights)
        weights.addWidget(self._choose)
        self._backbone_text = small_label()
        self.method = ComboBox(choices=[(one.title, key) for key, one in METHODS.items()])
        self.method.native.setMinimumWidth(60)
        self.method.native.setToolTip("What learns the healthy patches.")
        self.plane = ComboBox(choices=["axial", "coronal", "sagittal", _ALL_PLANES])
        self.plane.native.setToolTip(
            "The plane in which slices are cut. All three give a model each, whose maps are "
            "averaged: for scans whose voxels are nearly cubes; it takes three times as long."
        )

        self._fold = QCollapsible("Advanced")
        self._advanced = QWidget()
        self.input_size = QSpinBox()
        self.input_size.setRange(64, 1024)
        self.input_size.setSingleStep(32)
        self.input_size.setToolTip(
            "Shorter edge of a slice as the backbone sees it, in pixels: larger shows smaller "
            "things and takes longer."
        )
        self.layers = QLineEdit()
        self.layers.setToolTip(
            "Layers of the backbone that are read and joined, as 6,9,12; empty for the usual ones."
        )
        self.window_level = ComboBox(choices=_window_choices())
        self.window_level.native.setToolTip("Intensities: automatic for MR, a fixed window for CT.")
        self.smoothing = QDoubleSpinBox()
        self.smoothing.setRange(0, 50)
        self.smoothing.setSuffix(" mm")
        self.smoothing.setValue(MapSettings.smoothing_mm)
        self.smoothing.setToolTip(
            "Width of the Gaussian that smooths the map in all directions; of images that tell no "
            "spacing in pixels of the backbone's input. It is part of the "
            "model, because the thresholds are calibrated with it."
        )
        self.detail = QDoubleSpinBox()
        self.detail.setRange(0, 100)
        self.detail.setSuffix(" mm")
        self.detail.setValue(MapSettings.detail_mm)
        self.detail.setToolTip(
            "Radius of the windows in which the map's edges follow those of the anatomy; 0 leaves "
            "the map smooth."
        )
        self.symmetry = ComboBox(
            choices=[("where healthy scans are symmetric", None), ("never", 0.0)]
        )
        self.symmetry.native.setMinimumWidth(60)
        self.symmetry.native.setToolTip(
            "Compare each place with its mirror image: a healthy head is nearly symmetric."
        )
        self.neighbours = QCheckBox("Neighbouring slices as colours")
        self.neighbours.setChecked(True)
        self.neighbours.setToolTip(
            "Show the backbone each slice with the one before and the one after it."
        )
        self.centring = QCheckBox("Centre each scan")
        self.centring.setChecked(True)
        self.centring.setToolTip(
            "Take a scan's own median score from its scores, so that another scanner does not "
            "make all of it hot."
        )
        self.seed = QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip("The same seed gives the same model.")
        advanced = QFormLayout()
        advanced.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        advanced.addRow("Input size", self.input_size)
        advanced.addRow("Layers", self.layers)
        advanced.addRow("Window", self.window_level.native)
        advanced.addRow("Smoothing", self.smoothing)
        advanced.addRow("Detail", self.detail)
        advanced.addRow("Left and right", self.symmetry.native)
        advanced.addRow(self.neighbours)
        advanced.addRow(self.centring)
        advanced.addRow("Seed", self.seed)
        self._advanced_layout = QVBoxLayout(self._advanced)
        self._advanced_layout.setContentsMargins(0, 0, 0, 0)
        self._advanced_layout.addLayout(advanced)
        self._fold.addWidget(self._advanced)

        self.run = RunControl(
            self.job,
            "Fit",
            "Learn what is normal from these scans.",
            "Stop; features computed so far are kept where the cache is on.",
        )
        self._result = QLabel()
        self._result.setWordWrap(True)
        self._plot = pg.PlotWidget(background=None)
        self._plot.setFixedHeight(120)
        self._plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._plot.setMenuEnabled(False)
        self._plot.setMouseEnabled(x=False, y=False)
        self._plot.hideButtons()
        self._plot.hide()
        self._save = QPushButton("Save model…")
        self._load = QPushButton("Load model…")
        self._load.setToolTip("Read a model file and say what it is.")
        files_row = QHBoxLayout()
        files_row.addWidget(self._save)
        files_row.addWidget(self._load)

        scans = QFormLayout()
        scans.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        scans.addRow("Pattern", self.pattern)
        scans.addRow("Mask pattern", self.mask_pattern)
        scans.addRow("Mask geometry", self.mask_geometry.native)
        scans.addRow("Held out", held)
        model = QFormLayout()
        model.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        model.addRow("Model", self.method.native)
        model.addRow("Plane", self.plane.native)
        model.addRow("Backbone", self.backbone.native)
        model.addRow("Weights", weights)
        self.content.addWidget(QLabel("<b>Healthy scans</b>"))
        self.content.addWidget(self.paths)
        self.content.addLayout(row)
        self.content.addLayout(scans)
        self.content.addWidget(self._found)
        self.content.addWidget(self._pair)
        self.content.addWidget(rule())
        self.content.addLayout(model)
        for widget in (self._backbone_text, self._fold, self.run, self._result, self._plot):
            self.content.addWidget(widget)
        self.content.addLayout(files_row)
        self.content.addStretch()
        self.content.addWidget(small_label(RESEARCH_USE))
        self._on_backbone()

    def _connect(self) -> None:
        self._buttons["files"].clicked.connect(self._add_files)
        self._buttons["folder"].clicked.connect(self._add_folder)
        self._buttons["layers"].clicked.connect(self._add_layers)
        self._buttons["remove"].clicked.connect(self._remove)
        self._typing = QTimer(self)
        self._typing.setSingleShot(True)
        self._typing.setInterval(300)
        self._typing.timeout.connect(self._look)
        for edit in (self.pattern, self.mask_pattern):
            edit.textChanged.connect(self._typing.start)
        self.mask_geometry.changed.connect(self._look)
        self._pair.clicked.connect(self._fill_in_patterns)
        self.backbone.changed.connect(self._on_backbone)
        self.weights.textChanged.connect(self._on_weights)
        self.weights.editingFinished.connect(self._keep_weights)
        self.method.changed.connect(self._on_method)
        self.run.start.clicked.connect(self.fit)
        self.run.cancel.clicked.connect(self.cancel)
        self._save.clicked.connect(self._choose_save)
        self._load.clicked.connect(self._choose_load)
        self.looking.succeeded.connect(self._on_found)
        self.looking.failed.connect(self._on_not_found)
        self.loading.succeeded.connect(self._on_loaded)
        self.saving.succeeded.connect(self.run.say)
        for job in (self.loading, self.saving):
            job.failed.connect(self.run.complain)
        self.job.succeeded.connect(self._on_fitted)
        for job in (self.job, self.looking):
            job.stopped.connect(self._update_state)

    # Scans --------------------------------------------------------------------------------

    def add(self, entries: Sequence[Path | Image]) -> None:
        """Add files, folders or image layers to the list of healthy scans."""
        for entry in entries:
            text = f"layer: {entry.name}" if isinstance(entry, Image) else str(entry)
            if not self.paths.findItems(text, _exactly()):
                self.paths.addItem(text)
        self._look()

    def _add_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Healthy scans", recall("scans"), _FILES)
        if names:
            remember("scans", str(Path(names[0]).parent))
            self.add([Path(name) for name in names])

    def _add_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A folder of healthy scans", recall("scans"))
        if name:
            remember("scans", name)
            self.add([Path(name)])

    def _add_layers(self) -> None:
        self.add([layer for layer in self._viewer.layers if is_scan_layer(layer)])

    def _remove(self) -> None:
        for item in self.paths.selectedItems():
            self.paths.takeItem(self.paths.row(item))
        self._look()

    def _choose_held_out(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Other healthy scans", recall("scans"))
        if name:
            self.held_out.setText(name)

    def _entries(self) -> tuple[list[Path], list[LayerScan]]:
        """Split the list into paths, and readers of layers with their masks."""
        texts = [self.paths.item(row).text() for row in range(self.paths.count())]
        layers = []
        for text in texts:
            name = text.removeprefix("layer: ")
            if text.startswith("layer: ") and name in self._viewer.layers:
                scan = self._viewer.layers[name]
                mask = find_mask(self._viewer.layers, scan)
                bring = None if mask is None else mask_reader(mask, scan)
                layers.append((volume_reader(scan), bring))
        return [Path(text) for text in texts if not text.startswith("layer: ")], layers

    def _look(self, *_: Any) -> None:
        """Find the cases the list stands for, in the background: folders may be far away."""
        try:
            paths, layers = self._entries()
        except ValueError as error:
            self._on_not_found(str(error))
            return
        pattern, mask_pattern = _text(self.pattern), _text(self.mask_pattern)
        geometry = self.mask_geometry.value

        def pipeline() -> Generator[Progress, None, _Found]:
            from napari_dino_uad.core.scans.cohort import find_cases
            from napari_dino_uad.core.scans.sorting import LabelsAmongScansError

            yield Progress("Looking", 0, 1)
            cases, note = layer_cases(layers, geometry)
            try:
                if paths:
                    cases += find_cases(paths, pattern, mask_pattern, mask_geometry=geometry)
            except LabelsAmongScansError as error:
                # Refused, with a button for what would pair them.
                return _Found([], str(error), error.files.patterns)
            return _Found(cases, note, None)

        self.looking.start(pipeline)
        self._update_state()

    def _on_found(self, found: _Found) -> None:
        self.cases = found.cases
        self._offer(found.patterns)
        if found.cases:
            masked = sum(case.mask is not None for case in found.cases)
            noun = "scan" if len(found.cases) == 1 else "scans"
            text = f"{len(found.cases)} {noun}" + (f", {masked} with a lesion mask" * bool(masked))
            self._found.setText(f"{text}. {found.note}".strip())
        else:
            self._found.setText(found.note or "No scans yet.")
        self._update_state()

    def _on_not_found(self, text: str) -> None:
        self.cases = []
        self._offer(None)
        self._found.setText(text)
        self._update_state()

    def _offer(self, patterns: tuple[str, str] | None) -> None:
        """Offer to fill in patterns that pair scans with masks, or stop offering it."""
        self._patterns = patterns
        if patterns is not None:
            self._pair.setToolTip(f"Fill in {patterns[0]} and {patterns[1]} as the patterns.")
        self._pair.setVisible(patterns is not None)

    def _fill_in_patterns(self) -> None:
        if self._patterns is not None:
            scan, mask = self._patterns
            self.pattern.setText(scan)
            self.mask_pattern.setText(mask)

    # Backbone, method, settings -----------------------------------------------------------

    def _on_backbone(self, *_: Any) -> None:
        from napari_dino_uad.core.backbones.backbone import backbone_spec

        spec = backbone_spec(self.backbone.value)
        self.input_size.setValue(spec.input_size)
        self.layers.clear()
        self.layers.setPlaceholderText(spec.layers_text)
        self.weights.setText(recall(weights_setting(spec.name)))
        self.weights.setEnabled(not spec.embedded)
        self._choose.setEnabled(not spec.embedded)
        self._on_weights()

    def _on_weights(self, *_: Any) -> None:
        """Say what the backbone is, and where its weights come from."""
        from napari_dino_uad.core.backbones.backbone import backbone_spec
        from napari_dino_uad.core.backbones.hub import weights_here

        spec = backbone_spec(self.backbone.value)
        chosen = _text(self.weights)
        if chosen is not None:
            where = "the file chosen" if Path(chosen).is_file() else "a file that is not there"
        elif weights_here(spec):
            where = "here already"
        else:
            where = "a download, or a file you choose"
        size = "" if spec.embedded else f" {spec.download_mb:.0f} MB,"
        self._backbone_text.setText(
            f"{spec.dimension} channels, a patch every {spec.stride} pixels. Licence: "
            f"{spec.licence}. Weights:{size} {where}."
        )

    def _choose_weights(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Weights", recall("weights"), "Weights (*.pth *.pt *.safetensors)"
        )
        if name:
            remember("weights", str(Path(name).parent))
            self.weights.setText(name)
            self._keep_weights()

    def _keep_weights(self) -> None:
        """Remember the file for this backbone, so that Detect finds it too."""
        remember(weights_setting(self.backbone.value), self.weights.text().strip())

    def _on_loaded(self, result: Any) -> None:
        if isinstance(result, tuple):
            name, model = result
            session().add_model(name, model)
            self._show_model(model, f"Loaded {name}.")
            return
        self._configs = result
        self._on_method()
        self._update_state()

    def _on_method(self, *_: Any) -> None:
        if self.method.value not in self._configs:
            return
        if self._form is not None:
            self._advanced_layout.removeWidget(self._form)
            self._form.deleteLater()
        self._form = SettingsForm(self._configs[self.method.value], hidden=("seed",))
        self._advanced_layout.addWidget(self._form)

    # Fitting ------------------------------------------------------------------------------

    def fit(self, *_: Any) -> None:
        """Fit with the present choices."""
        if self._form is None or not self.cases:
            self._update_state()
            return
        from napari_dino_uad.core.backbones.backbone import backbone_spec

        try:
            settings = self._form.changed()
            # Read again, with what was painted on the masks since.
            _, layers = self._entries()
            spec = backbone_spec(self.backbone.value, _text(self.layers))
        except ValueError as error:
            self.run.complain(str(error))
            return
        files = [case for case in self.cases if isinstance(case.scan, Path)]
        method, seed = self.method.value, self.seed.value()
        smoothing, detail = self.smoothing.value(), self.detail.value()
        symmetry = self.symmetry.value
        centring, neighbours = self.centring.isChecked(), self.neighbours.isChecked()
        weights = Path(self.weights.text()) if _text(self.weights) else None
        held_out = _text(self.held_out)
        pattern, mask_pattern = _text(self.pattern), _text(self.mask_pattern)
        geometry = self.mask_geometry.value
        plane, size, window = self.plane.value, self.input_size.value(), self.window_level.value
        self._result.setText("")
        self._plot.hide()

        def pipeline() -> Generator[Progress, None, FittedModel]:
            from napari_dino_uad.core.fit import fit
            from napari_dino_uad.core.maps.score_map import MapSettings
            from napari_dino_uad.core.scans.cohort import find_cases
            from napari_dino_uad.core.slices.planes import PLANES
            from napari_dino_uad.core.slices.preprocessing import CT_WINDOWS, Preprocessing

            cases, note = layer_cases(layers, geometry)
            cases += files
            if note:
                yield Progress("Reading layers", 0, 1, note=note)
            yield from session().fetch(spec.key, weights)
            yield Progress("Loading the backbone", 0, 1, spec.key)
            loaded = session().backbone(spec.key, weights)
            backbone = yield from session().place(loaded, size)
            valid = None
            if held_out:
                valid = find_cases([held_out], pattern, mask_pattern, mask_geometry=geometry)
            return (
                yield from fit(
                    cases,
                    valid=valid,
                    method=method,
                    settings=settings,
                    backbone=backbone,
                    preprocessing=Preprocessing(
                        plane="axial" if plane == _ALL_PLANES else plane,
                        input_size=size,
                        window=CT_WINDOWS.get(window),
                        neighbours=neighbours,
                    ),
                    planes=PLANES if plane == _ALL_PLANES else None,
                    maps=MapSettings(smoothing, detail, symmetry, centring),
                    seed=seed,
                )
            )

        self.job.start(pipeline)
        self._update_state()

    def cancel(self, *_: Any) -> None:
        """Stop fitting."""
        if self.job.cancel():
            self.run.say("Cancelled.")

    def _on_fitted(self, model: FittedModel) -> None:
        self.run.say("Fitted. Detect can use it now; save it to keep it.")
        name = session().add_model(f"{model.normative.method} (unsaved)", model)
        self._show_model(model, f"{name}.")

    def _show_model(self, model: FittedModel, head: str) -> None:
        self.fitted = model
        self._result.setText(f"<b>{head}</b> {model.summary()}")
        history = getattr(model.normative, "history_", [])
        self._plot.clear()
        if len(history) > 1:
            epochs = np.arange(1, len(history) + 1)
            self._plot.plot(epochs, history, pen=_BLUE, symbol="o", symbolSize=4)
            self._plot.setLabel("bottom", "epoch")
            self._plot.setTitle("validation loss", size="8pt")
        else:
            calibration = model.calibration
            edges = np.linspace(calibration.threshold(0.99), calibration.threshold(1e-4), 97)
            rates = np.exp(np.interp(edges, calibration.scores, np.log(calibration.rates)))
            shares = -np.diff(rates)
            self._plot.plot(edges, shares, stepMode="center", fillLevel=0, brush=(*_BLUE, 90))
            self._plot.setLabel("bottom", "healthy scores")
        self._plot.show()
        self._update_state()

    # Files --------------------------------------------------------------------------------

    def _choose_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, "Save the model", recall("model folder"), "Models (*.safetensors)"
        )
        if name:
            remember("model folder", str(Path(name).parent))
            self.save(Path(name).with_suffix(".safetensors"))

    def save(self, path: Path) -> None:
        """Write the last model to a file, in the background."""
        model = self.fitted
        if model is None:
            return

        def pipeline() -> Generator[Progress, None, str]:
            from napari_dino_uad.core.model_file import save_model

            yield Progress("Saving", 0, 1)
            with writing(path.parent, path):
                save_model(model, path)
            return f"Saved {path.name}, {path.stat().st_size / 1e6:.1f} MB."

        self.saving.start(pipeline)

    def _choose_load(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Load a model", recall("model folder"), "Models (*.safetensors)"
        )
        if name:
            remember("model folder", str(Path(name).parent))
            self.load(Path(name))

    def load(self, path: Path) -> None:
        """Read a model file, in the background."""

        def pipeline() -> Generator[Progress, None, tuple[str, FittedModel]]:
            from napari_dino_uad.core.model_file import load_model

            yield Progress("Loading", 0, 1)
            return path.stem, load_model(path)

        self.loading.start(pipeline)

    def _update_state(self, *_: Any) -> None:
        reason = ""
        if not self.cases:
            reason = "Choose healthy scans first."
        elif self._form is None:
            reason = "Loading…"
        self.run.allow("" if self.looking.running else reason)
        self._save.setEnabled(self.fitted is not None)
        self._save.setToolTip(
            "Write the model to a .safetensors file." if self.fitted else "Fit a model first."
        )


def _load_settings() -> Generator[Progress, None, dict[str, Any]]:
    yield Progress("Loading", 0, 1)
    return {key: method.config_class()() for key, method in METHODS.items()}


def _backbone_choices() -> list[str]:
    from napari_dino_uad.core.backbones.backbone import BACKBONES

    return list(BACKBONES)


def _window_choices() -> list[str]:
    from napari_dino_uad.core.slices.preprocessing import CT_WINDOWS

    return [_WINDOW_AUTO, *CT_WINDOWS]


def _text(edit: QLineEdit) -> str | None:
    return edit.text().strip() or None


def _exactly() -> Any:
    from qtpy.QtCore import Qt

    return Qt.MatchFlag.MatchExactly
