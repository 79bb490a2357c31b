"""Fitting: a calibrated model of normal anatomy, learned from healthy scans."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.backbone import DEFAULT_BACKBONE, Backbone, load_backbone
from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.detect import detect
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.ahead import embed_ahead
from napari_dino_uad.core.features.cache import FeatureCache, open_cache
from napari_dino_uad.core.features.cohort_features import UsedSlices, collect_cohort
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.extract import features_key
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.maps.healthy_scale import measure_scale, reweighted
from napari_dino_uad.core.maps.score_map import MapSettings
from napari_dino_uad.core.model import FittedModel, View
from napari_dino_uad.core.normative.methods import new_config, new_normative
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cases import Case, check_cases, read_cases
from napari_dino_uad.core.slices.healthy import tissue_slices
from napari_dino_uad.core.slices.planes import Plane, to_plane
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.storage.folders import cache_home
from napari_dino_uad.core.storage.training_states import TrainingFile, TrainingStates

if TYPE_CHECKING:
    from napari_dino_uad.core.crew import Crew

__all__ = ["calibrate", "fit", "remap"]

# Share of the scans held out for calibration if no validation scans are given.
_HELD_OUT = 0.2

# Counts up when the same settings would train otherwise, or a training state changes.
_TRAINING_VERSION = 1


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
    resume: bool = True,
    crew: Crew | None = None,
) -> Generator[Progress, None, FittedModel]:
    """Fit a model on healthy scans.

    All scans are read and checked before the work begins. If some cannot be used, nothing is
    learned and the error names all of them, because a model of fewer scans than were given would
    look like the one that was asked for.

    A fit that was stopped during training resumes after its last finished epoch when it is called
    again with the same scans and settings. The model is the same as without the stop.

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
        Where to look for embeddings and keep them. True is the user's own cache; False keeps
        nothing on disk, neither embeddings nor the training of a stopped fit.
    resume : bool
        Whether to resume a stopped fit, and to keep this one on disk while it is trained.
    crew : Crew, optional
        Processes that embed scans side by side, into the cache. Training follows in this one: it
        sees a sample of the patches, which does not grow with the cohort.

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

    Examples
    --------
    >>> from napari_dino_uad import drain, find_cases, save_model
    >>> healthy = find_cases(["healthy"], pattern="*_flair.nii.gz")
    >>> model = drain(fit(healthy, settings={"components": 60}))
    >>> save_model(model, "model.safetensors")
    >>> model.normative.method, model.backbone_key
    ('dpmm', 'efficientnet-lite0')
    """
    # Check the settings now, before the scans are read.
    new_config(method, seed, settings or {})
    maps = maps or MapSettings()
    store = open_cache(cache)
    home = cache_home() if resume and store is not None else None
    train, held_out = _split(list(cases), valid, seed)
    colour = yield from check_cases([*train, *held_out])
    if backbone is None:
        size = None if preprocessing is None else preprocessing.input_size
        backbone = yield from _default_backbone(size)
    preprocessing = preprocessing or Preprocessing(input_size=backbone.spec.input_size)
    preprocessing = dataclasses.replace(preprocessing, colour=colour)
    planes = tuple(planes or (preprocessing.plane,))
    _refuse_sagittal_symmetry(maps, planes)
    job = _Job(
        train=train,
        held_out=held_out,
        method=method,
        settings=settings or {},
        seed=seed,
        backbone=backbone,
        context=context or Context(),
        maps=maps,
        batch=batch or backbone.engine.batch,
        store=store,
        states=None if home is None else TrainingStates(home),
    )
    if job.states is not None:
        job.states.sweep()
    if crew is not None:
        several = [dataclasses.replace(preprocessing, plane=plane) for plane in planes]
        yield from embed_ahead(crew, train, held_out, backbone, several, store, job.batch)
    views: list[View] = []
    files: list[TrainingFile] = []
    counts: dict[str, int] = {}
    for plane in planes:
        kind = f", {plane}" if len(planes) > 1 else ""
        one = dataclasses.replace(preprocessing, plane=plane)
        view, slices = yield from _fit_view(job, one, kind, files)
        views.append(view)
        counts = counts or slices
    uncalibrated = _uncalibrated(job, views, counts)
    model = yield from calibrate(
        uncalibrated, job.held_out, backbone=backbone, batch=job.batch, cache=cache
    )
    for file in files:
        file.remove()
    return model


def remap(
    model: FittedModel,
    cases: Sequence[Case],
    maps: MapSettings,
    *,
    backbone: Backbone,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, FittedModel]:
    """Give a fitted model other settings of the map, without training it again.

    Parameters
    ----------
    model : FittedModel
        The model.
    cases : sequence of Case
        The scans that it was calibrated with.
    maps : MapSettings
        How patch scores are turned into a map from now on.
    backbone : Backbone
        The model's backbone.
    batch, cache
        As in `fit`.

    Yields
    ------
    Progress

    Returns
    -------
    FittedModel
        The same normative models and healthy scores with other weights, calibrated anew.

    Raises
    ------
    InputError
        If the settings compare left and right in a way that was not measured in the fit.
    """
    views = tuple(
        dataclasses.replace(
            view, scale=reweighted(view.scale, model.maps, maps, view.preprocessing.plane)
        )
        for view in model.views
    )
    changed = dataclasses.replace(model, views=views, maps=maps)
    size = batch or backbone.engine.batch
    return (yield from calibrate(changed, cases, backbone=backbone, batch=size, cache=cache))


@dataclass(frozen=True)
class _Job:
    """What all planes of a fit have in common; see `fit`."""

    train: list[Case]
    held_out: list[Case]
    method: str
    settings: dict[str, Any]
    seed: int
    backbone: Backbone
    context: Context
    maps: MapSettings
    batch: int
    store: FeatureCache | None
    states: TrainingStates | None


def _default_backbone(input_size: int | None) -> Generator[Progress, None, Backbone]:
    """Load the embedded backbone and choose its engine."""
    yield Progress("Loading the backbone", 0, 1, DEFAULT_BACKBONE)
    return (yield from choose_engine(load_backbone(DEFAULT_BACKBONE), input_size=input_size))


def _refuse_sagittal_symmetry(maps: MapSettings, planes: Sequence[Plane]) -> None:
    if maps.symmetry and set(planes) == {"sagittal"}:
        raise InputError(
            f"Left and right are in different sagittal slices, but symmetry has a weight of "
            f"{maps.symmetry:g}; leave it out, or add another plane."
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


def _collect(
    job: _Job, preprocessing: Preprocessing, kind: str
) -> Generator[Progress, None, tuple[FeatureSet, FeatureSet, list[UsedSlices]]]:
    """Collect the healthy slices to fit on and to validate on, and which those are."""
    sets: list[FeatureSet] = []
    used: list[UsedSlices] = []
    noted: list[str] = []
    for cases, part in ((job.train, "healthy"), (job.held_out, "validation")):
        step = f"Reading {part} scans{kind}"
        features = FeatureSet(job.context, job.backbone.spec.levels)
        collecting = collect_cohort(
            cases, features, job.backbone, preprocessing, job.batch, step, job.store, noted
        )
        used.append((yield from collecting))
        sets.append(features)
    train, valid = sets
    return train, valid, used


def _fit_view(
    job: _Job, preprocessing: Preprocessing, kind: str, files: list[TrainingFile]
) -> Generator[Progress, None, tuple[View, dict[str, int]]]:
    """Fit the model of one plane; return it with the numbers of slices.

    The training is kept in a file, which is added to `files`, so that a stopped fit resumes.
    """
    from napari_dino_uad.core.maps.prototypes import fit_prototypes
    from napari_dino_uad.core.normative.resumable import fit_resumably

    train, valid, used = yield from _collect(job, preprocessing, kind)
    file = None
    if job.states is not None:
        file = job.states.file(_training_digest(job, preprocessing, used))
        files.append(file)
    build = partial(new_normative, job.method, job.seed, job.settings)
    normative = yield from fit_resumably(build, train, valid, file)
    scale = yield from measure_scale(normative, train, valid, job.maps, preprocessing.plane)
    prototypes = yield from fit_prototypes(train, job.seed)
    counts = {
        # A scan without a healthy slice teaches nothing.
        "scans": len(used[0]),
        "slices": len(train),
        "validation_slices": len(valid),
    }
    return View(preprocessing, normative, scale, prototypes), counts


def _training_digest(job: _Job, preprocessing: Preprocessing, used: list[UsedSlices]) -> str:
    """Return a digest of everything that the training of one plane depends on."""
    config = new_config(job.method, job.seed, job.settings)
    parts = {
        "version": _TRAINING_VERSION,
        "versions": {name: version(name) for name in ("napari-dino-uad", "torch", "numpy")},
        "method": job.method,
        "settings": dataclasses.asdict(config),
        "backbone": features_key(job.backbone),
        "context": dataclasses.asdict(job.context),
        "preprocessing": preprocessing.to_dict(),
        "slices": used,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _uncalibrated(job: _Job, views: list[View], counts: dict[str, int]) -> FittedModel:
    """Build the model; its calibrations are placeholders until the healthy scores are known."""
    none = Calibration(np.array([1.0]), np.array([0.0]), 0, np.array([[1.0]]))
    return FittedModel(
        views=tuple(views),
        backbone_key=job.backbone.spec.key,
        backbone_sha256=job.backbone.sha256,
        context=job.context,
        maps=job.maps,
        calibration=none,
        levels=none,
        cohort={
            "validation_scans": len(job.held_out),
            **counts,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "seed": job.seed,
            "engine": job.backbone.engine.spec.description,
        },
        versions={
            name: version(name)
            for name in ("napari-dino-uad", "torch", "timm", "numpy", "SimpleITK")
        },
    )


def calibrate(
    model: FittedModel,
    cases: Sequence[Case],
    *,
    backbone: Backbone,
    batch: int,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, FittedModel]:
    """Measure the calibrations of a model on healthy scans, or scans with lesion masks.

    Parameters
    ----------
    model : FittedModel
        A model; its own calibrations are not used.
    cases : sequence of Case
        The scans.
    backbone, batch, cache
        As in `detect`.

    Yields
    ------
    Progress

    Returns
    -------
    FittedModel
    """
    scores, distances = yield from _healthy_scores(model, cases, backbone, batch, cache)
    return dataclasses.replace(
        model,
        calibration=Calibration.from_scans(scores),
        # A scan has a hundred times fewer patches than pixels.
        levels=Calibration.from_scans(distances, least=1),
    )


def _healthy_scores(
    model: FittedModel,
    cases: Sequence[Case],
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
