"""The choice of the scan and the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_dino_uad.widgets.controls import Fold, small_label
from napari_dino_uad.widgets.layers import covering_layers, is_scan_layer
from napari_dino_uad.widgets.results.texts import model_details, model_words
from napari_dino_uad.widgets.session import session

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.widgets.results.detection import Detection
    from napari_dino_uad.widgets.results.store import Results

__all__ = ["Choice"]

# Blue that is readable on napari's dark and on its light background.
_NOTE = "#4a90d9"
_SCAN_TOOLTIP = "The scan to examine: any open 2D or 3D grey image."


class Choice(QWidget):
    """The scan and the model for the next detection.

    Signals
    -------
    model_changed
        Another model was chosen.
    load_asked
        The user wants to load a model file.
    """

    model_changed = Signal()
    load_asked = Signal()

    def __init__(self, viewer: Viewer, results: Results) -> None:
        super().__init__()
        self._viewer, self._results = viewer, results
        self.scan_box = ComboBox(
            choices=lambda _: [one for one in viewer.layers if is_scan_layer(one)]
        )
        self.model_box = ComboBox(choices=lambda _: list(session().models))
        self.model_box.native.setToolTip(
            "A model of healthy scans, fitted here or loaded from a file."
        )
        for box in (self.scan_box, self.model_box):
            box.native.setMinimumWidth(60)
        load = QPushButton("Load…")
        load.setToolTip("Load a model file (.safetensors).")
        load.clicked.connect(self.load_asked)
        row = QHBoxLayout()
        row.addWidget(self.model_box.native, 1)
        row.addWidget(load)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Scan", self.scan_box.native)
        form.addRow("Model", row)
        self._engine = ""
        self._model_text = small_label()
        self._details_text = small_label()
        self.details = Fold(
            "Details", self._details_text, "Method, backbone, versions and the engine that runs it."
        )
        self.details.hide()
        self.differs = small_label()
        self.covered = small_label()
        self.covered.linkActivated.connect(self._uncover)
        for label in (self.differs, self.covered):
            label.setStyleSheet(f"color: {_NOTE}; font-weight: bold;")
            label.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        for label in (self._model_text, self.details, self.differs, self.covered):
            layout.addWidget(label)
        self.scan_box.changed.connect(lambda *_: results.go_to(self.scan_box.value))
        self.model_box.changed.connect(self._on_model)
        self.refresh_scans()
        self.refresh_models()

    @property
    def scan(self) -> Image | None:
        """The chosen scan layer."""
        return self._results.scan

    @property
    def model_name(self) -> str:
        """The name of the chosen model; empty if there is none."""
        return self.model_box.value or ""

    @property
    def model(self) -> FittedModel | None:
        """The chosen model."""
        return session().models.get(self.model_name)

    def choose_model(self, name: str) -> None:
        """Choose a model of the session."""
        self.refresh_models()
        self.model_box.value = name

    def refresh_scans(self) -> None:
        """Offer the scans that are open now, under their present names."""
        with self.scan_box.changed.blocked():
            self.scan_box.reset_choices()
            if self.scan is not None:
                self.scan_box.value = self.scan
        # A long name has no room in the box.
        name = "" if self.scan is None else f"\n{self.scan.name}"
        self.scan_box.native.setToolTip(f"{_SCAN_TOOLTIP}{name}")

    def refresh_models(self) -> None:
        """Offer the models that are loaded now."""
        self.model_box.reset_choices()
        self._on_model()

    def compare(self, shown: Detection | None) -> None:
        """Say if the map shown is from another model, or cannot be seen.

        Parameters
        ----------
        shown : Detection or None
            The detection in the panel.
        """
        text = ""
        if shown is not None and self.model is not None and shown.model is not self.model:
            text = f"This map is from {shown.model_name}; press Detect for {self.model_name}."
        self.differs.setText(text)
        self.differs.setVisible(bool(text))
        above = [] if self.scan is None else covering_layers(self._viewer, self.scan)
        hidden = self.scan is not None and not self.scan.visible
        text = ""
        if above or hidden:
            why = "is hidden" if hidden else f"lies below {above[-1].name}"
            text = f'This scan {why}. <a href="show" style="color: {_NOTE}">Show it</a>'
        self.covered.setText(text)
        self.covered.setVisible(bool(text))

    def _uncover(self, *_: Any) -> None:
        scan = self.scan
        if scan is None:
            return
        scan.visible = True
        for layer in covering_layers(self._viewer, scan):
            layer.visible = False

    def _on_model(self, *_: Any) -> None:
        self._show_words()
        self.model_changed.emit()

    def show_engine(self, text: str) -> None:
        """Name the engine in the details; an empty text keeps the one before."""
        self._engine = text or self._engine
        self._show_words()

    def _show_words(self) -> None:
        model = self.model
        self._model_text.setText("" if model is None else model_words(self.model_name, model))
        self._details_text.setText("" if model is None else model_details(model, self._engine))
        self.details.setVisible(model is not None)
