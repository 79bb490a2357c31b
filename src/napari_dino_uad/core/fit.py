"""Fitting: a calibrated model of normal anatomy, learned from healthy scans."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Generator, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.backbone import DEFAULT_BACKBONE, Backbone, load_backbone
from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.detect import detect
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache, content_digest, open_cache
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.extract import PATCH_FOREGROUND, cache_entry
from napari_dino_uad.core.features.feature_set import FeatureSet, collect_features
from napari_dino_uad.core.maps.score_map import SYMMETRY_WEIGHT, MapSettings, ScoreScale
from napari_dino_uad.core.model import FittedModel, View
from napari_dino_uad.core.normative.methods import new_normative
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cohort import Case, check_cases, read_cases
from napari_dino_uad.core.slices.healthy import healthy_slices, tissue_slices
from napari_dino_uad.core.slices.planes import Plane, to_plane
from napari_dino_uad.core.slices.prepared import PreparedScan, prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

if TYPE_CHECKING:
    from napari_dino_uad.core.normative.base import NormativeModel

__all__ = ["fit"]

# Share of the scans held out for calibration if no validation scans are given.
_HELD_OUT = 0.2


def fit(
    cases: Sequence[Case],
    *,
    valid: Sequence[Case] | None = None,
    method: str = "dpmm",
    settings: dict[str, Any] | None = None,
    backbone: Backbone | None = None,
    preprocessing: Preprocessing | None = None,
    planes: Sequence[Plane] | None = None,
    context: Context | None = None,
    maps: MapSettings | None = None,
    seed: int = 0,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, FittedModel]:
    """Fit a model on healthy scans.

    All scans are read and checked before the work begins. If some cannot be used, nothing is
    learned and the error names all of them, because a model of fewer scans than were given would
    look like the one that was asked for.

    Parameters
    ----------
    cases : sequence of Case
        Healthy scans, or scans with lesion masks. Slices with lesions, and those within 2 slices
        of them, are left out.
    valid : sequence of Case, optional
        Other healthy scans, used to choose the epoch and calibrate thresholds. Without them, a
        fifth of `cases` is held out, chosen by `seed`.
    method : str
        A key of `napari_dino_uad.core.normative.methods.METHODS`.
    settings : dict, optional
        Settings of the method, such as ``{"components": 250}``.
    backbone : Backbone, optional
        A loaded backbone; default the embedded one, run by the engine that `choose_engine` finds.
    preprocessing : Preprocessing, optional
        How scans are prepared; default the backbone's input size and the axial plane.
    planes : sequence of str, optional
        Planes to use, each with its own model; their maps are averaged. Useful for scans with
        nearly cubic voxels. Default the plane of `preprocessing`.
    context : Context, optional
        Normalisation and averaging of embeddings.
    maps : MapSettings, optional
        How patch scores are turned into a map.
    seed : int
        The same seed gives the same model on the same machine.
    batch : int, optional
        Slices per batch of the backbone; default its engine's own.
    cache : FeatureCache or bool
        Where to look for embeddings and keep them. True is the user's own cache; False keeps them
        in memory.

    Yields
    ------
    Progress
        After every batch of every step.

    Returns
    -------
    FittedModel

    Raises
    ------
    InputError
        If there are too few scans, no healthy slice, or scans or masks cannot be used.
    """
    from napari_dino_uad.core.maps.prototypes import fit_prototypes

    # Check the settings now, before the scans are read.
    new_normative(method, seed, settings or {})
    maps = maps or MapSettings()
    store = open_cache(cache)
    cases, held_out = _split(list(cases), valid, seed)
    yield from check_cases([*cases, *held_out])
    if backbone is None:
        yield Progress("Loading the backbone", 0, 1, DEFAULT_BACKBONE)
        backbone = load_backbone(DEFAULT_BACKBONE)
        size = None if preprocessing is None else preprocessing.input_size
        backbone = yield from choose_engine(backbone, input_size=size)
    preprocessing = preprocessing or Preprocessing(input_size=backbone.spec.input_size)
    if maps.symmetry and set(planes or (preprocessing.plane,)) == {"sagittal"}:
        raise InputError(
            f"Left and right are in different sagittal slices, but symmetry has a weight of "
            f"{maps.symmetry:g}; leave it out, or add another plane."
        )
    batch = batch or backbone.engine.batch
    context = context or Context()
    views: list[View] = []
    counts: dict[str, int] = {}
    said: list[str] = []
    for plane in planes or (preprocessing.plane,):
        one = dataclasses.replace(preprocessing, plane=plane)
        train_set, valid_set = (FeatureSet(context, backbone.spec.levels) for _ in range(2))
        used: list[int] = []
        kind = "" if len(planes or ()) < 2 else f", {plane}"
        for part, features, step in (
            (cases, train_set, f"Reading healthy scans{kind}"),
            (held_out, valid_set, f"Reading validation scans{kind}"),
        ):
            collected = yield from _collect(part, features, backbone, one, batch, step, store, said)
            used.append(collected)
        normative = new_normative(method, seed, settings or {})
        yield from normative.fit(train_set, valid_set)
        scaling = Inner(_measure_scale(normative, train_set, valid_set, maps, plane))
        yield from scaling
        prototypes = yield from fit_prototypes(train_set, seed)
        views.append(View(one, normative, scaling.value, prototypes))
        counts = counts or {
            "scans": used[0],
            "slices": len(train_set),
            "validation_slices": len(valid_set),
        }
    cohort = {
        "validation_scans": len(held_out),
        **counts,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": seed,
        "engine": backbone.engine.spec.description,
    }
    versions = {
        name: version(name) for name in ("napari-dino-uad", "torch", "timm", "numpy", "SimpleITK")
    }
    # Placeholder until the healthy scores are known, a few lines below.
    none = Calibration(np.array([1.0]), np.array([0.0]), 0, np.array([[1.0]]))
    uncalibrated = FittedModel(
        views=tuple(views),
        backbone_key=backbone.spec.key,
        backbone_sha256=backbone.sha256,
        context=context,
        maps=maps,
        calibration=none,
        levels=none,
        cohort=cohort,
        versions=versions,
    )
    healthy = Inner(_healthy_scores(held_out, uncalibrated, backbone, batch, cache))
    yield from healthy
    scores, distances = healthy.value
    return dataclasses.replace(
        uncalibrated,
        calibration=Calibration.from_scans(scores),
        # A scan has a hundred times fewer patches than pixels.
        levels=Calibration.from_scans(distances, least=1),
    )


def _split(
    cases: list[Case], valid: Sequence[Case] | None, seed: int
) -> tuple[list[Case], list[Case]]:
    if not cases:
        raise InputError("Expected at least one healthy scan to fit on, got none; add some.")
    if valid is not None:
        return cases, list(valid)
    if len(cases) < 2:
        raise InputError(
            "Expected at least two scans, so that one can be held out, got one; add scans, or give "
            "others to validate on."
        )
    order = np.random.default_rng(seed).permutation(len(cases))
    count = max(1, round(_HELD_OUT * len(cases)))
    held = set(order[:count].tolist())
    return (
        [case for index, case in enumerate(cases) if index not in held],
        [case for index, case in enumerate(cases) if index in held],
    )


def _healthy_scans(
    cases: Sequence[Case], preprocessing: Preprocessing, said: list[str]
) -> Iterator[tuple[int, PreparedScan, NDArray[np.int64], str, str]]:
    """Read and prepare scans: number, scan, healthy slices, digest of the content, note."""
    for number, volume, mask, note in read_cases(cases, said):
        scan = prepare(volume, preprocessing)
        indices = healthy_slices(scan, mask, preprocessing.plane)
        yield number, scan, indices, content_digest(volume.array, volume.spacing_mm), note


def _collect(
    cases: Sequence[Case],
    features: FeatureSet,
    backbone: Backbone,
    preprocessing: Preprocessing,
    batch: int,
    step: str,
    cache: FeatureCache | None,
    said: list[str],
) -> Generator[Progress, None, int]:
    """Add the healthy slices of some cases to a feature set; return how many cases have some."""
    used = 0
    waiting = Progress(step, 0, len(cases), cases[0].name if cases else "")
    yield waiting
    for item in prefetch(_healthy_scans(cases, preprocessing, said), patience_s=PATIENCE_S):
        if item is None:
            yield waiting
            continue
        number, scan, indices, digest, note = item
        waiting = Progress(step, number, len(cases), cases[number].name)
        yield dataclasses.replace(waiting, note=note)
        if not len(indices):
            text = (
                f"Note: {cases[number].name} has no healthy slice with enough tissue to learn from."
            )
            yield dataclasses.replace(waiting, note=text)
            continue
        used += 1
        grid = scan.grid(backbone.spec.stride, backbone.spec.multiple)
        entry = cache_entry(cache, digest, scan, grid, backbone)
        collecting = Inner(collect_features(scan, grid, backbone, indices, batch, entry))
        for _ in collecting:
            yield dataclasses.replace(waiting, note=backbone.engine.take_note())
        mask = grid.to_grid(scan.foreground[indices]) > PATCH_FOREGROUND
        features.add(collecting.value, mask)
    yield Progress(step, len(cases), len(cases))
    return used


def _measure_scale(
    normative: NormativeModel,
    train: FeatureSet,
    valid: FeatureSet,
    maps: MapSettings,
    plane: Plane,
) -> Generator[Progress, None, ScoreScale]:
    """Measure the scores of healthy patches, and their asymmetry if the cohort is symmetric."""
    import torch

    from napari_dino_uad.core.maps.symmetry import (
        SYMMETRIC_RATIO,
        measure_symmetry,
        mirror_distance,
    )

    weight = maps.symmetry
    if plane == "sagittal":
        # Left and right are in different slices.
        weight = 0.0
    elif weight is None:
        measuring = Inner(measure_symmetry(train))
        yield from measuring
        weight = SYMMETRY_WEIGHT if measuring.value < SYMMETRIC_RATIO else 0.0
    scores, mirrors = [], []
    done = 0
    for features, mask, _ in valid.transformed():
        with torch.inference_mode():
            tissue = torch.from_numpy(mask)
            scores.append(normative.score_tissue(features, tissue).float().numpy())
            if weight > 0:
                unit = valid.context.to_unit(features)
                mirrors.append(mirror_distance(unit, tissue).numpy()[mask])
        done += len(mask)
        yield Progress("Measuring healthy scores", done, len(valid))
    mean, deviation = _moments(scores)
    if weight == 0:
        return ScoreScale(mean, deviation)
    return ScoreScale(mean, deviation, *_moments(mirrors), weight)


def _moments(parts: list[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the mean and standard deviation of all values."""
    values = np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
    if not values.size:
        raise InputError(
            "Expected validation scans with healthy tissue, got none; give others to validate on."
        )
    return float(values.mean()), max(float(values.std()), 1e-12)


def _healthy_scores(
    cases: Sequence[Case],
    model: FittedModel,
    backbone: Backbone,
    batch: int,
    cache: FeatureCache | bool,
) -> Generator[Progress, None, tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]]:
    """Detect on the validation scans; return scores and distances of healthy tissue by scan.

    With masks, all tissue outside the mask counts as healthy, not only tissue in healthy slices:
    those are at the ends of an organ and do not represent its middle, and high scores around a
    lesion are false positives too.

    The distances are those of patches to their nearest prototype.
    """
    scores: list[NDArray[np.float32]] = []
    distances: list[NDArray[np.float32]] = []
    waiting = Progress("Calibrating", 0, len(cases))
    for item in prefetch(read_cases(cases), patience_s=PATIENCE_S):
        if item is None:
            yield waiting
            continue
        number, volume, mask, _ = item
        waiting = Progress("Calibrating", number, len(cases), cases[number].name)
        detecting = Inner(detect(volume, model, backbone=backbone, batch=batch, cache=cache))
        for _ in detecting:
            yield waiting
        anomaly = detecting.value
        healthy = to_plane(anomaly.foreground, model.planes[0]).copy()
        healthy[~tissue_slices(anomaly.scan)] = False
        if mask is not None:
            healthy &= ~to_plane(mask, model.planes[0])
        if not healthy.any():
            continue
        scores.append(to_plane(anomaly.scores, model.planes[0])[healthy])
        first = anomaly.planes[0]
        counted = np.isfinite(first.distances)
        if mask is not None:
            counted &= first.grid.to_grid(to_plane(mask, first.plane)) == 0
        distances.append(first.distances[counted])
    yield Progress("Calibrating", len(cases), len(cases))
    return scores, distances
