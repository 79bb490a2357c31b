"""The maps that a benchmark makes of one fitted model, and the baselines without a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.maps.brightness import LESIONS, mirror_difference
from napari_dino_uad.core.maps.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.model import FittedModel, View

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.normative.base import NormativeModel
    from napari_dino_uad.core.slices.preprocessing import Preprocessing
    from napari_dino_uad.core.slices.usual_brightness import UsualBrightness

__all__ = ["DEFAULT_MAPS", "MAPS", "NO_MODEL", "brightness_model", "check_maps", "maps_of"]

#: Settings of the map by name. "raw" shows the scores of patches as they are; the others are the
#: product's, with what the reader looks for.
MAPS: dict[str, MapSettings] = {
    "raw": MapSettings(smoothing_mm=0, detail_mm=0, symmetry=0.0, centring=False, lesions="none"),
    **{lesions: MapSettings(lesions=lesions) for lesions in LESIONS},
}
DEFAULT_MAPS = ("raw", "none", "either", "bright")

#: Baselines that need neither training nor a network.
NO_MODEL = ("brightness", "asymmetry")


def check_maps(names: list[str]) -> None:
    """Refuse a name that is not in `MAPS`, or none at all.

    Raises
    ------
    InputError
        The message lists the choices.
    """
    for name in names or [""]:
        if name not in MAPS:
            raise InputError(f"There is no map {name!r}; choose from {', '.join(MAPS)}.")


def maps_of(method: str, names: list[str]) -> list[str]:
    """Return which maps to make of a method; a baseline without a model uses no brightness term."""
    if method not in NO_MODEL:
        return names
    return [name for name in names if name in ("raw", "none")] or ["none"]


class _NoModel:
    """Stands where a fitted model has its normative model."""

    patchwise = True

    def __init__(self, name: str) -> None:
        self.method = name

    def config(self) -> dict[str, Any]:
        return {}

    def summary(self) -> str:
        return f"No model: {self.method}"


@dataclass(frozen=True)
class _BrightnessModel(FittedModel):
    """A model whose score is the brightness, or its difference from the mirrored place."""

    def score(
        self,
        maps: NDArray[np.float16],
        tissue: NDArray[np.bool_],
        view: View | None = None,
        told: NDArray[np.bool_] | None = None,
        brightness: NDArray[np.float32] | None = None,
        usual: UsualBrightness | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the scores and no distances, as `FittedModel.score`."""
        assert brightness is not None
        if self.normative.method == "asymmetry":
            brightness = mirror_difference(brightness, tissue)
        return brightness, np.zeros_like(brightness)


def brightness_model(
    name: str, maps: MapSettings, backbone: Backbone, preprocessing: Preprocessing
) -> FittedModel:
    """Build a baseline without a model, still to be calibrated.

    Parameters
    ----------
    name : str
        One of `NO_MODEL`.
    maps : MapSettings
        How patches become a map.
    backbone : Backbone
        Its patch grid is used.
    preprocessing : Preprocessing
        How scans are prepared.
    """
    import torch

    # The weight makes `detect` pass the brightness.
    scale = ScoreScale(0.0, 1.0, brightness=1.0)
    none = Calibration(np.array([1.0]), np.array([0.0]), 0, np.array([[1.0]]))
    return _BrightnessModel(
        views=(
            View(preprocessing, cast("NormativeModel", _NoModel(name)), scale, torch.ones(1, 1)),
        ),
        backbone_key=backbone.spec.key,
        backbone_sha256=backbone.sha256,
        context=Context(),
        maps=maps,
        calibration=none,
        levels=none,
    )
