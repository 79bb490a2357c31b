"""A fitted model: everything that turns a scan into calibrated anomaly scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.backbone import Backbone, backbone_spec, load_backbone
from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.maps.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.slices.crop import tight_box
from napari_dino_uad.core.slices.planes import Plane
from napari_dino_uad.core.slices.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.normative.base import NormativeModel
    from napari_dino_uad.core.slices.usual_brightness import UsualBrightness

__all__ = ["FittedModel", "View"]


@dataclass(frozen=True)
class View:
    """The result of fitting the slices of one plane.

    Attributes
    ----------
    preprocessing : Preprocessing
        How scans are prepared, with the plane.
    normative : NormativeModel
        The model of healthy embeddings.
    scale : ScoreScale
        Scores of healthy patches.
    prototypes : torch.Tensor of float32, (K, C)
        Typical healthy patches, of unit length.
    """

    preprocessing: Preprocessing
    normative: NormativeModel
    scale: ScoreScale
    prototypes: torch.Tensor


@dataclass(frozen=True)
class FittedModel:
    """Normative models of one or more planes, with everything that scores depend on.

    Attributes
    ----------
    views : tuple of View
        One for each plane; slices of the first are shown first.
    backbone_key, backbone_sha256 : str
        Backbone of the fit, and the checksum of its weights.
    context : Context
        Normalisation and averaging of embeddings.
    maps : MapSettings
        How patch scores become a map.
    calibration : Calibration
        Scores of healthy tissue.
    levels : Calibration
        Distances of healthy patches of the first view to their nearest prototype. The distances
        of a scan are compared with them, to detect a scan unlike the cohort.
    cohort : dict
        Scans, slices and date of the fit.
    versions : dict
        Versions of the libraries used in the fit.
    path : Path or None
        File it was loaded from.
    """

    views: tuple[View, ...]
    backbone_key: str
    backbone_sha256: str
    context: Context
    maps: MapSettings
    calibration: Calibration
    levels: Calibration
    cohort: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    @property
    def normative(self) -> NormativeModel:
        """The model of healthy embeddings of the first view."""
        return self.views[0].normative

    @property
    def preprocessing(self) -> Preprocessing:
        """How scans are prepared for the first view."""
        return self.views[0].preprocessing

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Planes of the views."""
        return tuple(view.preprocessing.plane for view in self.views)

    @property
    def images_text(self) -> str:
        """What it was fitted on, for users: "axial slices" or "pictures in colour"."""
        colour = self.preprocessing.colour
        images = "pictures in colour" if colour else f"{', '.join(self.planes)} slices"
        return f"{images} (the object alone)" if self.preprocessing.object_mask else images

    def score(
        self,
        maps: NDArray[np.float16],
        tissue: NDArray[np.bool_],
        view: View | None = None,
        told: NDArray[np.bool_] | None = None,
        brightness: NDArray[np.float32] | None = None,
        usual: UsualBrightness | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score slices.

        Parameters
        ----------
        maps : ndarray of float16, (B, V)
            Maps of the backbone's layers, from `extract_features`.
        tissue : ndarray of bool, (B, h, w)
            Which patches are tissue.
        view : View, optional
            View of the slices; default the first.
        told : ndarray of bool, (B,), optional
            Slices to compute distances for; default all.
        brightness : ndarray of float32, (B, h, w), optional
            From `PreparedScan.brightness`; needed if the view's scale has a weight for it.
        usual : UsualBrightness, optional
            From `PreparedScan.usual_brightness`; needed for bright or dark lesions.

        Returns
        -------
        scores : ndarray of float32, (B, h, w)
            Healthy standard deviations above the healthy mean; not smoothed. Undefined outside
            the tissue.
        distances : ndarray of float32, (B, h, w)
            To the nearest prototype; 0 outside the tissue and in other slices.
        """
        import torch

        from napari_dino_uad.core.maps.prototypes import prototype_distance
        from napari_dino_uad.core.maps.symmetry import REACH, mirror_distance

        view = view or self.views[0]
        out = np.zeros(tissue.shape, dtype=np.float32)
        distances = np.zeros(tissue.shape, dtype=np.float32)
        # At least half of most scans is air, which matters only to models that read neighbours.
        margin = max(self.context.neighbourhood // 2, REACH)
        box = (slice(None), *tight_box(np.asarray(tissue.any(axis=0)), margin))
        inside = tissue[box]
        if not inside.size:
            return out, distances
        spec = backbone_spec(self.backbone_key)
        layout = LayerLayout.of(spec, (tissue.shape[1], tissue.shape[2]))
        with torch.inference_mode():
            packed = torch.from_numpy(maps)
            mask = torch.from_numpy(inside)
            if view.normative.patchwise:
                seen = self.context.apply(layout.join(packed, box[1], box[2]), spec.levels)
                values = view.normative.score_tissue(seen, mask)
            else:
                whole = self.context.apply(layout.join(packed), spec.levels)
                values = view.normative.score_tissue(whole, torch.from_numpy(tissue))
                seen = whole.permute(0, 2, 3, 1)[box].permute(0, 3, 1, 2)
            scores = np.zeros(inside.shape, dtype=np.float32)
            scores[inside] = values.float().numpy()
            wanted = inside if told is None else inside & told[:, None, None]
            asked = seen.permute(0, 2, 3, 1)[torch.from_numpy(wanted)]
            distances[box][wanted] = prototype_distance(asked, view.prototypes).numpy()
            mirror = None
            if view.scale.symmetry > 0:
                unit = self.context.to_unit(seen)
                mirror = mirror_distance(unit, mask).numpy()
            bright = brightness[box] if brightness is not None and view.scale.brightness else None
            out[box] = view.scale.combine(scores, mirror, bright, inside, self.maps.lesions, usual)
        if not (np.isfinite(out).all() and np.isfinite(distances).all()):
            raise InputError(
                "The model gives scores that are not finite numbers for this scan, expected finite "
                "ones; fit the model again, or use another backbone."
            )
        return out, distances

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
                "loaded; give the file of weights of the fit."
            )

    @property
    def lesions_text(self) -> str:
        """Say what lesions the model looks for."""
        if not any(view.scale.brightness for view in self.views):
            return "brightness not compared"
        wanted = {"either": "bright or dark"}.get(self.maps.lesions, self.maps.lesions)
        return f"{wanted} lesions"

    def summary(self) -> str:
        """Describe the model in one line."""
        planes = self.planes[0] if len(self.planes) == 1 else f"{len(self.planes)} planes"
        if self.preprocessing.colour:
            planes = self.images_text
        return (
            f"{self.normative.summary()}; {self.backbone_key}, {planes}; {self.lesions_text}; "
            f"smoothing {self.maps.smoothing_mm:g} mm; "
            f"{self.cohort.get('scans', 0)} scans, {self.cohort.get('slices', 0)} slices"
        )
