"""The choice of the model, its plane and its backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.slices.planes import PLANES, Plane
from napari_dino_uad.widgets.controls import allow, small_label
from napari_dino_uad.widgets.files import choose_file
from napari_dino_uad.widgets.forms import browse_button, combo_box, line_edit, text_of, wide_form
from napari_dino_uad.widgets.session import weights_setting
from napari_dino_uad.widgets.settings import recall, remember

__all__ = ["ModelChoice"]

_ALL_PLANES = "all three"
_WEIGHTS = "Weights (*.pth *.pt *.safetensors)"


class ModelChoice(QWidget):
    """Method, plane, backbone and the file of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.method = combo_box(
            [(one.title, key) for key, one in METHODS.items()],
            "The kind of model that learns what healthy tissue looks like.",
        )
        self.plane = combo_box(
            [*PLANES, _ALL_PLANES],
            "The plane in which slices are cut. All three fits one model for each plane and "
            "averages their maps: for scans whose voxels are nearly cubes. It takes three times "
            "as long.",
        )
        self.backbone = combo_box(
            _backbone_names(), "The network that describes each small patch of a slice."
        )
        self.weights = line_edit(
            "installed or downloaded",
            "A file with the network's weights (Meta's .pth, or timm's .pth or .safetensors), for "
            "computers without internet.",
        )
        self.browse = browse_button("Choose the file.", self._choose_weights)
        self.backbone_text = small_label()
        weights = QHBoxLayout()
        weights.addWidget(self.weights)
        weights.addWidget(self.browse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(
            wide_form(
                [
                    ("Model", self.method.native),
                    ("Plane", self.plane.native),
                    ("Backbone", self.backbone.native),
                    ("Weights", weights),
                ]
            )
        )
        layout.addWidget(self.backbone_text)
        self.backbone.changed.connect(self._on_backbone)
        self.weights.textChanged.connect(self._on_weights)
        self.weights.editingFinished.connect(self._keep_weights)
        self._on_backbone()

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The planes to cut slices in; a model is fitted for each."""
        return PLANES if self.plane.value == _ALL_PLANES else (self.plane.value,)

    @property
    def weights_file(self) -> Path | None:
        """The file of weights chosen."""
        text = text_of(self.weights)
        return None if text is None else Path(text)

    def _on_backbone(self, *_: Any) -> None:
        from napari_dino_uad.core.backbones.backbone import backbone_spec

        spec = backbone_spec(self.backbone.value)
        self.weights.setText(recall(weights_setting(spec.name)))
        why = "This backbone brings its weights." if spec.embedded else ""
        allow(self.weights, why)
        allow(self.browse, why)
        self._on_weights()

    def _on_weights(self, *_: Any) -> None:
        """Describe the backbone, and where its weights are."""
        from napari_dino_uad.core.backbones.backbone import backbone_spec
        from napari_dino_uad.core.backbones.hub import weights_here

        spec, chosen = backbone_spec(self.backbone.value), self.weights_file
        if chosen is not None:
            where = "the file chosen" if chosen.is_file() else "a file that is not there"
        elif weights_here(spec):
            where = "here already"
        else:
            where = "a download, or a file you choose"
        size = "" if spec.embedded else f" {spec.download_mb:.0f} MB,"
        self.backbone_text.setText(
            f"{spec.dimension} channels, a patch every {spec.stride} pixels. Licence: "
            f"{spec.licence}. Weights:{size} {where}."
        )

    def _choose_weights(self) -> None:
        file = choose_file(self, "Weights", "weights", _WEIGHTS)
        if file is not None:
            self.weights.setText(str(file))
            self._keep_weights()

    def _keep_weights(self) -> None:
        """Remember the file for this backbone, so that Detect finds it too."""
        remember(weights_setting(self.backbone.value), self.weights.text().strip())


def _backbone_names() -> list[str]:
    from napari_dino_uad.core.backbones.backbone import BACKBONES

    return list(BACKBONES)
