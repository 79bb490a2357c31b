"""Detection: the calibrated anomaly map of a scan by a fitted model, slice by slice."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.features.cache import FeatureCache, content_digest, open_cache
from napari_dino_uad.core.features.extract import (
    PATCH_FOREGROUND,
    cache_entry,
    extract_features,
    outwards,
    scored_slices,
)
from napari_dino_uad.core.features.object_mask import within_objects
from napari_dino_uad.core.maps.heads import scalp
from napari_dino_uad.core.maps.places import TissueFrame
from napari_dino_uad.core.maps.score_map import ScanLevel, refine_maps, scan_level
from napari_dino_uad.core.maps.smoothing import GrowingMaps
from napari_dino_uad.core.memory import give_back
from napari_dino_uad.core.model import FittedModel, View
from napari_dino_uad.core.pipeline import in_background, sharing_cores, side_by_side
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.slices.patch_grid import PatchGrid
from napari_dino_uad.core.slices.planes import Plane, from_plane, to_plane
from napari_dino_uad.core.slices.prepared import PreparedScan, prepare

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.scans.volume import Volume
    from napari_dino_uad.core.slices.usual_brightness import UsualBrightness

__all__ = ["AnomalyMap", "PlaneMap", "SliceMaps", "detect", "score_slices"]

# Slices resampled from the patch grid to voxels in one go.
_AT_ONCE = 16

# Number of slices that suffice to measure the level of a scan.
_TELLING_SLICES = 16

# Scans above this size need all the memory there is for their maps.
_LARGE_BYTES = 100_000_000

# Number of patches for the provisional level, which is measured after every batch.
_LEVEL_SO_FAR = 10_000


def _refined(
    maps: NDArray[np.float32], scan: PreparedScan, part: list[int] | slice, detail_mm: float
) -> NDArray[np.float32]:
    """Refine the maps of some slices, (B, rows, cols), to follow the edges of the anatomy.

    Outside the bounding box of the scan's tissue they become 0.
    """
    out = np.zeros(maps.shape, dtype=np.float32)
    box = (slice(None), *scan.box)
    values = scan.scale.apply(scan.slices, (part, *scan.box))
    foreground = scan.foreground[(part, *scan.box)]
    out[box] = refine_maps(maps[box], values, foreground, scan.spacing_mm[1:], detail_mm)
    return out


def _parts(count: int) -> list[slice]:
    """Split a number of slices into parts of `_AT_ONCE`."""
    return [slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE)]


@dataclass(frozen=True)
class SliceMaps:
    """Score maps of some slices, available as soon as they are scored.

    Attributes
    ----------
    indices : list of int
        Slice numbers in the model's first plane.
    maps : ndarray of float32, (B, h, w)
        Scores on the patch grid, smoothed and centred over the slices scored so far.
    grid : PatchGrid
        Position of the patch grid over the slices.
    scan : PreparedScan
        The whole prepared scan.
    detail_mm : float
        See `MapSettings`.
    level : float
        `PlaneMap.level` of the slices scored so far; infinity before the first telling one.
    """

    indices: list[int]
    maps: NDArray[np.float32]
    grid: PatchGrid
    scan: PreparedScan
    detail_mm: float
    level: float = np.inf

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """Tissue in the slices, (B, rows, cols)."""
        return self.scan.foreground[self.indices]

    def scores(self) -> NDArray[np.float32]:
        """Return the maps resampled to the slices' pixels, (B, rows, cols)."""
        maps = self.grid.to_slices(self.maps)
        return _refined(maps, self.scan, self.indices, self.detail_mm)


@dataclass(frozen=True)
class PlaneMap:
    """Scores of a scan in one plane.

    Attributes
    ----------
    plane : {"axial", "coronal", "sagittal"}
    scores : ndarray of float32, (slices, h, w)
        Smoothed and centred scores on the patch grid.
    grid : PatchGrid
        Position of the patch grid over the slices.
    distances : ndarray of float32, (slices, h, w)
        Smoothed distance of each patch to the nearest typical healthy one. NaN outside the tissue
        and in slices skipped as redundant with a neighbour within the smoothing width.
    own_level : ScanLevel
        The scan's own level and spread, which centring has taken out of the scores.
    """

    plane: Plane
    scores: NDArray[np.float32]
    grid: PatchGrid
    distances: NDArray[np.float32]
    own_level: ScanLevel = field(default_factory=ScanLevel)

    @property
    def level(self) -> float:
        """Median distance of the tissue; infinity if there is none."""
        return _median(self.distances)


def _median(distances: NDArray[np.float32]) -> float:
    """Return the median of what is finite; infinity if nothing is."""
    known = distances[np.isfinite(distances)]
    return float(np.median(known)) if known.size else np.inf


@dataclass(frozen=True)
class AnomalyMap:
    """Anomaly scores of a scan.

    Attributes
    ----------
    volume : Volume
        The scan.
    model : FittedModel
        The model that scored it, with its calibration.
    planes : tuple of PlaneMap
        The map of each view of the model.
    scan : PreparedScan
        The scan prepared for the model's first view, with the foreground.
    seconds : dict
        Seconds spent in "prepare", "backbone" and "model".
    """

    volume: Volume
    model: FittedModel
    planes: tuple[PlaneMap, ...]
    scan: PreparedScan
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """Median distance of the scan's tissue to typical healthy tissue, in the first plane."""
        return self.planes[0].level

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Scores on the volume's canonical grid, (S, P, L): the mean of the planes, refined."""
        full = np.zeros(self.volume.shape, dtype=np.float32)
        share = np.float32(1 / len(self.planes))

        def add(one: PlaneMap, slices: NDArray[np.float32], part: slice) -> None:
            slices[part] += share * one.grid.to_slices(one.scores[part])

        for one in self.planes:
            slices = to_plane(full, one.plane)
            side_by_side(partial(add, one, slices), _parts(len(slices)))
        slices, detail_mm = to_plane(full, self.planes[0].plane), self.model.maps.detail_mm

        def refine(part: slice) -> None:
            slices[part] = _refined(slices[part], self.scan, part, detail_mm)

        side_by_side(refine, _parts(len(slices)))
        give_back()
        return full

    @cached_property
    def foreground(self) -> NDArray[np.bool_]:
        """Tissue on the volume's canonical grid, (S, P, L)."""
        return np.ascontiguousarray(from_plane(self.scan.foreground, self.planes[0].plane))

    @cached_property
    def scalp(self) -> NDArray[np.bool_] | None:
        """Scalp on the volume's canonical grid, (S, P, L); None if no skull was found.

        It is measured at the first use, which takes a second or more.
        """
        if self.scan.preprocessing.plane != "axial" or self.volume.is_2d:
            return None
        if not self.tissue_frame.head:
            return None
        return scalp(self.scan)

    def tissue(self, *, without_scalp: bool = False) -> NDArray[np.bool_]:
        """Return the tissue to look at, (S, P, L).

        Parameters
        ----------
        without_scalp : bool
            Leave out the scalp, where it was found.
        """
        if not without_scalp or self.scalp is None:
            return self.foreground
        return self.foreground & ~self.scalp

    @cached_property
    def tissue_frame(self) -> TissueFrame:
        """The extent of the tissue, for places in words."""
        return TissueFrame.of(self.volume, self.foreground)


def score_slices(
    scan: PreparedScan,
    model: FittedModel,
    view: View,
    grid: PatchGrid,
    batches: Iterable[tuple[list[int], NDArray[np.float16]] | None],
    seconds: dict[str, float],
) -> Generator[tuple[SliceMaps | None, int], None, PlaneMap]:
    """Score the slices of a prepared scan as the backbone delivers them.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    model : FittedModel
        A fitted model.
    view : View
        The view of the model that the slices belong to.
    grid : PatchGrid
        Position of the patch grid over the slices.
    batches : iterable of (list of int, ndarray of float16 (B, V)) or None
        Slice numbers and the maps of the backbone's layers; None while waiting for them.
    seconds : dict
        The time spent waiting for embeddings ("backbone") and scoring ("model") is added here.

    Yields
    ------
    tuple of (SliceMaps or None, int)
        The slices of a batch, smoothed and centred over the slices scored so far, and how many are
        done; None for every None in `batches`.

    Returns
    -------
    PlaneMap
        Slices that are not in `batches` are 0.
    """
    tissue = np.zeros((len(scan), *grid.shape), dtype=bool)
    spacing = (
        scan.spacing_mm[0],
        scan.spacing_mm[1] * grid.patch_pixels[0],
        scan.spacing_mm[2] * grid.patch_pixels[1],
    )
    width, compared = model.maps.smoothing_mm, view.scale.brightness > 0
    grown, typical = (GrowingMaps(tissue.shape, spacing, width) for _ in range(2))
    told = _telling(scored_slices(scan, grid), len(scan), width / spacing[0])
    smoothed = np.zeros(tissue.shape, dtype=np.float32)
    distances = np.full(tissue.shape, np.nan, dtype=np.float32)
    clock = time.perf_counter()
    for item in batches:
        if item is None:
            yield None, int(grown.known.sum())
            continue
        indices, features = item
        waited = time.perf_counter() - clock
        seconds["backbone"] = seconds.get("backbone", 0.0) + waited
        clock = time.perf_counter()
        with sharing_cores(waited):
            inside = grid.to_grid(scan.foreground[indices]) > PATCH_FOREGROUND
            bright = scan.brightness(indices, grid) if view.scale.brightness else None
            usual = scan.usual_brightness if view.scale.brightness else None
        scores, far = _score_each(
            model, features, inside, view, told[indices], bright, usual, waited
        )
        tissue[indices] = inside
        weights = inside.astype(np.float32)
        grown.add(indices, weights, scores)
        telling = told[indices]
        typical.add(np.asarray(indices)[telling].tolist(), weights[telling], far[telling])
        known = np.flatnonzero(told & grown.known)
        distances[known] = np.where(tissue[known], typical.smoothed(known.tolist()), np.nan)
        smoothed[indices] = grown.smoothed(indices)
        own = scan_level(smoothed, tissue, model.maps, compared, _LEVEL_SO_FAR)
        maps = own.apply(smoothed[indices])
        seconds["model"] = seconds.get("model", 0.0) + time.perf_counter() - clock
        level = _median(distances)
        part = SliceMaps(indices, maps, grid, scan, model.maps.detail_mm, level)
        yield part, int(grown.known.sum())
        clock = time.perf_counter()
    final = grown.smoothed(range(len(scan)))
    own = scan_level(final, tissue, model.maps, compared)
    final = own.apply(final)
    final[~grown.known] = 0
    distances[told] = typical.smoothed(np.flatnonzero(told).tolist())
    distances[~tissue] = np.nan
    return PlaneMap(view.preprocessing.plane, final, grid, distances, own)


def _score_each(
    model: FittedModel,
    features: NDArray[np.float16],
    tissue: NDArray[np.bool_],
    view: View,
    told: NDArray[np.bool_],
    brightness: NDArray[np.float32] | None,
    usual: UsualBrightness | None,
    waited_s: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score slices one by one, each in a single thread; see `FittedModel.score`.

    The rounding of a matrix product depends on its number of rows and threads. This way a slice
    has the same scores in any batch, cached or not, and however busy the machine is.
    """
    scores = np.zeros(tissue.shape, dtype=np.float32)
    far = np.zeros(tissue.shape, dtype=np.float32)

    def score(number: int) -> None:
        part = slice(number, number + 1)
        bright = None if brightness is None else brightness[part]
        scores[part], far[part] = model.score(
            features[part], tissue[part], view, told[part], bright, usual
        )

    side_by_side(score, range(len(tissue)), waited_s=waited_s)
    return scores, far


def _telling(scored: NDArray[np.int64], count: int, apart: float) -> NDArray[np.bool_]:
    """Choose the slices used to measure the level of a scan.

    Parameters
    ----------
    scored : ndarray of int64
        Slices that may contain tissue.
    count : int
        Number of slices in the scan.
    apart : float
        Distance in slices below which neighbours are redundant. Short scans use all slices.

    Returns
    -------
    ndarray of bool, (count,)
    """
    told = np.zeros(count, dtype=bool)
    told[scored[:: max(1, min(int(apart), len(scored) // _TELLING_SLICES))]] = True
    return told


def detect(
    volume: Volume,
    model: FittedModel,
    *,
    backbone: Backbone | None = None,
    first_slice: int | None = None,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, AnomalyMap]:
    """Score a scan, starting with the slice on screen.

    Parameters
    ----------
    volume : Volume
        The scan.
    model : FittedModel
        A fitted model.
    backbone : Backbone, optional
        The model's backbone, if already loaded. Otherwise it is loaded, and run by the engine that
        `choose_engine` finds.
    first_slice : int, optional
        Slice on screen, in the model's first plane, default the middle one; the others follow from
        there outwards.
    batch : int, optional
        Slices per batch; default that of the backbone's engine.
    cache : FeatureCache or bool
        Where to look for embeddings and keep them. True is the user's own cache, False is none.

    Yields
    ------
    Progress
        Its result is a `SliceMaps` after every batch of the first plane, and None while waiting
        and in the other planes.

    Returns
    -------
    AnomalyMap

    Examples
    --------
    >>> from napari_dino_uad import drain, load_model, read_volume
    >>> model = load_model("model.safetensors")
    >>> anomaly = drain(detect(read_volume("scan.nii.gz"), model))
    >>> anomaly.scores.shape == anomaly.volume.shape
    True
    >>> marked = anomaly.foreground & (anomaly.scores > model.calibration.threshold(0.01))
    >>> bool(0 < marked.sum() < 0.2 * anomaly.foreground.sum())
    True
    """
    clock = time.perf_counter()
    preparing = Progress("Preparing the scan", 0, 1, volume.name)
    yield preparing
    store = open_cache(cache)

    def load() -> Backbone:
        if backbone is None:
            return model.load_backbone()
        model.check_backbone(backbone)
        return backbone

    def digest() -> str:
        return "" if store is None else content_digest(volume.content, volume.spacing_mm)

    ready = Inner(in_background(load, lambda: prepare(volume, model.preprocessing), digest))
    for _ in ready:
        yield preparing
    network, scan, name = ready.value
    if backbone is None:
        network = yield from choose_engine(network, input_size=model.preprocessing.input_size)
    seconds = {"prepare": time.perf_counter() - clock}
    size = batch or network.engine.batch
    planes = []
    for number, view in enumerate(model.views):
        seen = scan if number == 0 else prepare(volume, view.preprocessing)
        middle = len(seen) // 2
        wanted = middle if number or first_slice is None else first_slice
        grid = seen.grid(network.spec.stride, network.spec.multiple)
        entry = cache_entry(store, name, seen, grid, network)
        narrowing = Inner(
            within_objects(seen, grid, network, scored_slices(seen, grid), size, entry)
        )
        for _ in narrowing:
            yield Progress("Finding the object", 0, 1, volume.name)
        seen = narrowing.value
        scan = scan if number else seen
        order = outwards(scored_slices(seen, grid), wanted)
        batches = extract_features(seen, grid, network, order, size, first_batch=1, entry=entry)
        scoring = Inner(score_slices(seen, model, view, grid, batches, seconds))
        step = "Detecting" if number == 0 else f"Detecting, {view.preprocessing.plane}"
        for maps, done in scoring:
            shown, note = None if number else maps, network.engine.take_note()
            yield Progress(step, done, len(order), volume.name, shown, note)
        planes.append(scoring.value)
    if volume.array.nbytes > _LARGE_BYTES:
        give_back()
    return AnomalyMap(volume, model, tuple(planes), scan, seconds)
