"""Settings that seldom need a change, folded away."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QVBoxLayout, QWidget

from napari_dino_uad.core.maps.score_map import MapSettings
from napari_dino_uad.core.scans.hounsfield import CT_WINDOWS
from napari_dino_uad.widgets.controls import Fold
from napari_dino_uad.widgets.forms import combo_box, line_edit, number_box, wide_form
from napari_dino_uad.widgets.settings_form import SettingsForm

__all__ = ["Advanced"]

_WINDOW_AUTO = "auto (MR)"


class Advanced(QWidget):
    """Settings of the slices, the map and the method.

    Attributes
    ----------
    form : SettingsForm or None
        The method's own settings; None until they are loaded.
    fold : Fold
        Shows and hides them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.form: SettingsForm | None = None
        self._build_slices()
        self._build_map()
        self.pictures = QCheckBox("Store pictures of healthy patches")
        self.pictures.setToolTip(
            "Inspect then shows the healthy patches most like a place. They are in a second file "
            "beside the model and show parts of the scans: only with their owner's consent."
        )
        self.seed = number_box(0, 2**31 - 1, "The same seed gives the same model.")
        self._inner = QVBoxLayout(self)
        self._inner.setContentsMargins(0, 0, 0, 0)
        self._inner.addLayout(
            wide_form(
                [
                    ("Input size", self.input_size),
                    ("Layers", self.layers),
                    ("Window", self.window_level.native),
                    ("Smoothing", self.smoothing),
                    ("Detail", self.detail),
                    ("Left and right", self.symmetry.native),
                    ("Lesions", self.lesions.native),
                    ("", self.neighbours),
                    ("", self.centring),
                    ("Seed", self.seed),
                    ("", self.pictures),
                ]
            )
        )
        self.fold = Fold("Advanced", self, "Settings of the slices, the map and the method.")

    def _build_slices(self) -> None:
        self.input_size = number_box(
            64,
            1024,
            "Shorter edge of a slice as the backbone sees it, in pixels. A larger one shows "
            "smaller lesions and takes longer.",
        )
        self.input_size.setSingleStep(32)
        self.layers = line_edit(
            "", "Layers of the backbone to read and join, such as 6,9,12; empty for the usual ones."
        )
        self.window_level = combo_box(
            [_WINDOW_AUTO, *CT_WINDOWS],
            "Which intensities to show: automatic for MR, a fixed window for CT.",
        )
        self.neighbours = QCheckBox("Neighbouring slices as colours")
        self.neighbours.setChecked(True)
        self.neighbours.setToolTip("Show the backbone each slice with the slices on both sides.")

    def _build_map(self) -> None:
        self.smoothing = _millimetres(
            50,
            MapSettings.smoothing_mm,
            "Width of the Gaussian that smooths the map in all directions; in pixels of the "
            "backbone's input where an image has no spacing. It belongs to the model, because the "
            "thresholds are calibrated with it.",
        )
        self.detail = _millimetres(
            100,
            MapSettings.detail_mm,
            "Radius of the windows in which the edges of the map follow those of the anatomy; 0 "
            "leaves the map smooth.",
        )
        self.symmetry = combo_box(
            [("automatic", None), ("never", 0.0)],
            "Compare each place with its mirror image on the other side. Automatic does so where "
            "healthy scans are symmetric.",
        )
        self.lesions = combo_box(
            [
                ("bright or dark", "either"),
                ("bright", "bright"),
                ("dark", "dark"),
                ("ignore brightness", "none"),
            ],
            "What you look for: tissue that is brighter or darker than the mirrored place gets a "
            "higher score; bright and dark also prefer tissue that is so within the scan. Used "
            "where left and right are compared.",
        )
        self.centring = QCheckBox("Centre each scan")
        self.centring.setChecked(True)
        self.centring.setToolTip(
            "Subtract the scan's own level from its scores, so that a scan from another scanner "
            "does not light up as a whole."
        )

    @property
    def maps(self) -> MapSettings:
        """Settings of the map."""
        return MapSettings(
            self.smoothing.value(),
            self.detail.value(),
            self.symmetry.value,
            self.centring.isChecked(),
            self.lesions.value,
        )

    def show_backbone(self, input_size: int, layers: str) -> None:
        """Show the input size and the layers that a backbone usually takes."""
        self.input_size.setValue(input_size)
        self.layers.clear()
        self.layers.setPlaceholderText(layers)

    def show_method(self, settings: Any) -> None:
        """Show the settings of a method.

        Parameters
        ----------
        settings : dataclass
            Their defaults.
        """
        if self.form is not None:
            self._inner.removeWidget(self.form)
            self.form.deleteLater()
        self.form = SettingsForm(settings, hidden=("seed",))
        self._inner.addWidget(self.form)


def _millimetres(highest: float, value: float, tooltip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0, highest)
    box.setSuffix(" mm")
    box.setValue(value)
    box.setToolTip(tooltip)
    return box
