"""A fitted model: everything that turns a scan into calibrated anomaly scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones import Backbone, backbone_spec, load_backbone
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.context import Context
from napari_dino_uad.core.slices import Preprocessing

if TYPE_CHECKING:
    from napari_dino_uad.core.normative.base import NormativeModel

__all__ = ["FittedModel"]


@dataclass(frozen=True)
class FittedModel:
    """A normative model with all that belongs to it.

    Attributes
    ----------
    normative : NormativeModel
        The model of healthy embeddings.
    backbone_key, backbone_sha256 : str
        The backbone it was fitted on, and the checksum of its weights.
    preprocessing : Preprocessing
        How scans are prepared.
    context : Context
        What is done to embeddings.
    smoothing_mm : float
        Standard deviation of the Gaussian that smooths the score map along all three axes.
    calibration : Calibration
        Healthy scores.
    cohort : dict
        Scans, slices and date of the fit.
    versions : dict
        Versions of the libraries that made it.
    """

    normative: NormativeModel
    backbone_key: str
    backbone_sha256: str
    preprocessing: Preprocessing
    context: Context
    smoothing_mm: float
    calibration: Calibration
    cohort: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def score(self, features: NDArray[np.float16]) -> NDArray[np.float32]:
        """Score backbone embeddings of slices.

        Parameters
        ----------
        features : ndarray of float16, (B, C, h, w)
            As the backbone gave them.

        Returns
        -------
        ndarray of float32, (B, h, w)
            Higher is more abnormal; not yet smoothed.
        """
        import torch

        with torch.inference_mode():
            levels = backbone_spec(self.backbone_key).levels
            transformed = self.context.apply(torch.from_numpy(features).float(), levels)
            return np.asarray(self.normative.score(transformed).float().numpy())

    def load_backbone(self, weights: Path | str | None = None) -> Backbone:
        """Load the backbone the model was fitted on.

        Raises
        ------
        InputError
            If the weights are not those it was fitted on.
        """
        backbone = load_backbone(self.backbone_key, weights)
        self.check_backbone(backbone)
        return backbone

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a backbone that the model was not fitted on.

        Raises
        ------
        InputError
            If the architecture or the weights differ.
        """
        if backbone.spec.key != self.backbone_key:
            raise InputError(
                f"This model was fitted on {self.backbone_key}, but the backbone loaded is "
                f"{backbone.spec.key}; load {self.backbone_key}."
            )
        if backbone.sha256 != self.backbone_sha256:
            raise InputError(
                f"This model was fitted on other weights of {self.backbone_key} than those "
                "loaded; give the file of weights that it was fitted with."
            )

    def summary(self) -> str:
        """Say in one line what the model is."""
        return (
            f"{self.normative.summary()}; {self.backbone_key}, {self.preprocessing.plane}; "
            f"{self.cohort.get('scans', 0)} scans, {self.cohort.get('slices', 0)} slices"
        )
