"""Explanations of single slices: embeddings, healthy expectation, asymmetry, components."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.backbone import backbone_spec
from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.features.cache import FeatureCache, content_digest, open_cache
from napari_dino_uad.core.features.extract import (
    PATCH_FOREGROUND,
    cache_entry,
    extract_features,
    scored_slices,
)
from napari_dino_uad.core.maps.colours import ColourAxes
from napari_dino_uad.core.normative.methods import members_of
from napari_dino_uad.core.pipeline import PATIENCE_S

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.features.cache import CacheEntry
    from napari_dino_uad.core.normative.base import NormativeModel

__all__ = ["Explainer", "SliceExplanation"]


@dataclass(frozen=True)
class SliceExplanation:
    """What the score of a slice is made of, on the patch grid (h, w) of the first plane.

    Attributes
    ----------
    index : int
        Number of the slice.
    tissue : ndarray of bool
        The patches that are scored.
    raw : ndarray of float32
        Score in the method's own unit.
    model : ndarray of float32
        The same in healthy standard deviations above the healthy mean.
    symmetry : ndarray of float32
        What the comparison of left and right adds, in the same unit.
    brightness : ndarray of float32
        What being brighter or darker than the other side, and than most of the scan, adds.
    mirror : ndarray of float32 or None
        1 - cosine of a patch and its mirror image; None in sagittal slices.
    colours : ndarray of uint8, (h, w, 3)
        The embeddings as colours.
    embeddings : ndarray of float16, (C, h, w)
        The embeddings, of unit length.
    component : ndarray of int32 or None
        Nearest component of the mixture; None without a mixture.
    observed, expected : ndarray of uint8, (h, w, 3), or None
        The embeddings, and those an autoregressive model expects, in the same colours.
    residual : ndarray of float32 or None
        Error of that expectation.
    p_values : dict of ndarray of float64
        For a fusion, the share of healthy patches with a higher score, by member.
    """

    index: int
    tissue: NDArray[np.bool_]
    raw: NDArray[np.float32]
    model: NDArray[np.float32]
    symmetry: NDArray[np.float32]
    brightness: NDArray[np.float32]
    mirror: NDArray[np.float32] | None
    colours: NDArray[np.uint8]
    embeddings: NDArray[np.float16]
    component: NDArray[np.int32] | None = None
    observed: NDArray[np.uint8] | None = None
    expected: NDArray[np.uint8] | None = None
    residual: NDArray[np.float32] | None = None
    p_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)


class Explainer:
    """Explains slices of a finished map, in its first plane.

    Embeddings are read from the cache, or computed again.

    Parameters
    ----------
    anomaly : AnomalyMap
        The map; its own model and scan are used.
    backbone : Backbone
        The model's backbone.
    cache : FeatureCache or bool
        As in `detect`.
    """

    def __init__(
        self, anomaly: AnomalyMap, backbone: Backbone, cache: FeatureCache | bool = True
    ) -> None:
        anomaly.model.check_backbone(backbone)
        self.anomaly = anomaly
        self.view = anomaly.model.views[0]
        self.grid = anomaly.planes[0].grid
        self._backbone = backbone
        self._entry = self._find_entry(open_cache(cache))
        # A place that is asked for while a whole scan is explained waits for some slices.
        self._busy = threading.Lock()

    def _find_entry(self, store: FeatureCache | None) -> CacheEntry | None:
        if store is None:
            return None
        volume = self.anomaly.volume
        digest = content_digest(volume.content, volume.spacing_mm)
        return cache_entry(store, digest, self.anomaly.scan, self.grid, self._backbone)

    @property
    def scored(self) -> list[int]:
        """Numbers of the slices that have a score."""
        return [int(index) for index in scored_slices(self.anomaly.scan, self.grid)]

    def slices(self, indices: Sequence[int]) -> Generator[SliceExplanation | None, None, None]:
        """Explain slices, in the order given.

        Parameters
        ----------
        indices : sequence of int
            Out of `scored`.

        Yields
        ------
        SliceExplanation or None
            None while waiting for embeddings.
        """
        import torch

        for item in self.embedded(indices):
            explanation = None
            if item is not None:
                with torch.inference_mode():
                    explanation = self._explain(*item)
            yield explanation

    def embedded(
        self, indices: Sequence[int]
    ) -> Generator[tuple[int, torch.Tensor] | None, None, None]:
        """Embed slices, in the order given, as the model sees them.

        Parameters
        ----------
        indices : sequence of int
            Out of `scored`.

        Yields
        ------
        tuple of (int, torch.Tensor (1, C, h, w)), or None
            None while waiting for embeddings.
        """
        while not self._busy.acquire(timeout=PATIENCE_S):
            yield None
        try:
            yield from self._embedded(list(indices))
        finally:
            self._busy.release()

    def tissue(self, index: int) -> NDArray[np.bool_]:
        """Return which patches of a slice are tissue, (h, w)."""
        foreground = self.anomaly.scan.foreground[[index]]
        return np.asarray(self.grid.to_grid(foreground)[0] > PATCH_FOREGROUND)

    def _embedded(
        self, indices: list[int]
    ) -> Generator[tuple[int, torch.Tensor] | None, None, None]:
        import torch

        scan, model = self.anomaly.scan, self.anomaly.model
        spec = backbone_spec(model.backbone_key)
        layout = LayerLayout.of(spec, self.grid.shape)
        batches = extract_features(scan, self.grid, self._backbone, indices, 1, entry=self._entry)
        for item in batches:
            if item is None:
                yield None
                continue
            numbers, packed = item
            for number, one in zip(numbers, packed, strict=True):
                with torch.inference_mode():
                    joined = layout.join(torch.from_numpy(one[None]))
                    seen = model.context.apply(joined, spec.levels)
                yield number, seen

    def _explain(self, index: int, seen: torch.Tensor) -> SliceExplanation:
        """Explain a slice by its embeddings, (1, C, h, w)."""
        import torch

        model, view = self.anomaly.model, self.view
        scale = view.scale
        tissue = self.tissue(index)[None]
        mask = torch.from_numpy(tissue)
        unit = model.context.to_unit(seen)
        raw = np.zeros(tissue.shape, dtype=np.float32)
        raw[tissue] = view.normative.score_tissue(seen, mask).float().numpy()
        mirror = self._mirror(unit, mask)
        compared = None if mirror is None or scale.symmetry == 0 else mirror[None]
        bright = self.anomaly.scan.brightness([index], self.grid)
        usual = self.anomaly.scan.usual_brightness
        parts = scale.parts(raw, compared, bright, tissue, model.maps.lesions, usual)
        own, symmetry, brightness = (
            np.zeros(tissue.shape[1:], np.float32)
            if part is None
            else np.where(tissue, part, 0)[0].astype(np.float32)
            for part in parts
        )
        return SliceExplanation(
            index=index,
            tissue=tissue[0],
            raw=raw[0],
            model=own,
            symmetry=symmetry,
            brightness=brightness,
            mirror=mirror,
            colours=self._colours.apply(unit)[0],
            embeddings=unit[0].half().numpy(),
            **self._by_method(seen),
        )

    def _mirror(self, unit: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32] | None:
        from napari_dino_uad.core.maps.symmetry import mirror_distance

        if self.view.preprocessing.plane == "sagittal":
            return None
        return np.asarray(mirror_distance(unit, mask)[0].numpy())

    def _by_method(self, seen: torch.Tensor) -> dict[str, Any]:
        """Explain what only some methods can."""
        normative = self.view.normative
        found: dict[str, Any] = {}
        for method, member in members_of(normative).items():
            if method == "dpmm":
                component = member.explain(seen)["component"][0]
                found["component"] = component.numpy().astype(np.int32)
            elif method == "ar":
                found |= self._expectation(member, seen)
        if normative.method == "fusion":
            found["p_values"] = {
                name.removeprefix("p_"): one[0].numpy()
                for name, one in normative.explain(seen).items()
                if name.startswith("p_")
            }
        return found

    def _expectation(self, member: Any, seen: torch.Tensor) -> dict[str, Any]:
        """Colour observed and expected embeddings alike."""
        axes = self._expected_axes
        return {
            "observed": axes.apply(member.embed(seen))[0],
            "expected": axes.apply(member.expect(seen))[0],
            "residual": member.explain(seen)["error"][0].numpy(),
        }

    @cached_property
    def _colours(self) -> ColourAxes:
        return ColourAxes.fit(self.view.prototypes)

    @cached_property
    def _expected_axes(self) -> ColourAxes:
        """Axes in the space of the autoregressive model, fitted on the same typical patches."""
        member: Any = members_of(self.view.normative)["ar"]
        row = self.view.prototypes.T[None, :, None]
        return ColourAxes.fit(member.embed(row)[0, :, 0].T)

    @property
    def mixture(self) -> NormativeModel | None:
        """The mixture among the models of the score."""
        return members_of(self.view.normative).get("dpmm")
