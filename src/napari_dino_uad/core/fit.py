"""Fitting: healthy scans give a calibrated model of what is normal."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Generator, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones import DEFAULT_BACKBONE, Backbone, load_backbone
from napari_dino_uad.core.cache import FeatureCache, content_digest, open_cache
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.cohort import Case, healthy_slices
from napari_dino_uad.core.detect import score_slices
from napari_dino_uad.core.engine_choice import choose_engine
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features import (
    PATCH_FOREGROUND,
    FeatureSet,
    cache_entry,
    collect_features,
)
from napari_dino_uad.core.model import FittedModel
from napari_dino_uad.core.normative.context import Context
from napari_dino_uad.core.normative.methods import new_normative
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.slices import PreparedScan, Preprocessing, prepare

__all__ = ["SMOOTHING_MM", "fit"]

#: Default width of the Gaussian that smooths score maps.
SMOOTHING_MM = 5.0

# Share of the scans held out for calibration where no validation scans are given.
_HELD_OUT = 0.2


def fit(
    cases: Sequence[Case],
    *,
    valid: Sequence[Case] | None = None,
    method: str = "dpmm",
    settings: dict[str, Any] | None = None,
    backbone: Backbone | None = None,
    preprocessing: Preprocessing | None = None,
    context: Context | None = None,
    smoothing_mm: float = SMOOTHING_MM,
    seed: int = 0,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, FittedModel]:
    """Fit a model on healthy scans.

    Parameters
    ----------
    cases : sequence of Case
        Healthy scans, or scans with lesion masks whose lesion slices are then left out together
        with those within 2 of them.
    valid : sequence of Case, optional
        Other healthy scans, to choose the epoch and calibrate thresholds with. Without them a
        fifth of `cases` is held out, chosen by `seed`.
    method : str
        A key of `napari_dino_uad.core.normative.methods.METHODS`.
    settings : dict, optional
        Settings of the method, such as ``{"components": 250}``.
    backbone : Backbone, optional
        A loaded backbone; the embedded default if not given, run by the engine that
        `choose_engine` finds.
    preprocessing : Preprocessing, optional
        How scans are prepared; the backbone's input size and an axial plane if not given.
    context : Context, optional
        What is done to embeddings.
    smoothing_mm : float
        Standard deviation of the Gaussian that smooths score maps.
    seed : int
        The same seed gives the same model on the same machine.
    batch : int, optional
        Slices the backbone takes at once; as many as suit its engine if not given.
    cache : FeatureCache or bool
        Where embeddings are looked for and kept; True is the user's own cache, False none, and
        then they stay in memory.

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
        If there are too few scans or no healthy slice.
    """
    normative = new_normative(method, seed, settings or {})
    store = open_cache(cache)
    cases, held_out = _split(list(cases), valid, seed)
    if backbone is None:
        yield Progress("Loading the backbone", 0, 1, DEFAULT_BACKBONE)
        backbone = load_backbone(DEFAULT_BACKBONE)
        size = None if preprocessing is None else preprocessing.input_size
        backbone = yield from choose_engine(backbone, input_size=size)
    preprocessing = preprocessing or Preprocessing(input_size=backbone.spec.input_size)
    batch = batch or backbone.engine.batch
    context = context or Context()
    train_set = FeatureSet(context, backbone.spec.levels)
    valid_set = FeatureSet(context, backbone.spec.levels)
    yield from _collect(
        cases, train_set, backbone, preprocessing, batch, "Reading healthy scans", store
    )
    yield from _collect(
        held_out, valid_set, backbone, preprocessing, batch, "Reading validation scans", store
    )
    yield from normative.fit(train_set, valid_set)
    cohort = {
        "scans": len(cases),
        "slices": len(train_set),
        "validation_scans": len(held_out),
        "validation_slices": len(valid_set),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": seed,
        "engine": backbone.engine.spec.description,
    }
    versions = {
        name: version(name) for name in ("napari-dino-uad", "torch", "timm", "numpy", "SimpleITK")
    }
    unscaled = FittedModel(
        normative=normative,
        backbone_key=backbone.spec.key,
        backbone_sha256=backbone.sha256,
        preprocessing=preprocessing,
        context=context,
        smoothing_mm=smoothing_mm,
        # Stands until the healthy scores are known, a few lines below.
        calibration=Calibration(np.array([1.0]), np.array([0.0]), 0),
        cohort=cohort,
        versions=versions,
    )
    healthy = yield from _healthy_scores(held_out, valid_set, unscaled, backbone)
    return dataclasses.replace(unscaled, calibration=Calibration.from_scores(healthy))


def _split(
    cases: list[Case], valid: Sequence[Case] | None, seed: int
) -> tuple[list[Case], list[Case]]:
    if not cases:
        raise InputError("At least one healthy scan is needed to fit, but none came.")
    if valid is not None:
        return cases, list(valid)
    if len(cases) < 2:
        raise InputError(
            "One scan alone cannot be split; give at least two scans, or others to validate on."
        )
    order = np.random.default_rng(seed).permutation(len(cases))
    count = max(1, round(_HELD_OUT * len(cases)))
    held = set(order[:count].tolist())
    return (
        [case for index, case in enumerate(cases) if index not in held],
        [case for index, case in enumerate(cases) if index in held],
    )


def _healthy_scans(
    cases: Sequence[Case], preprocessing: Preprocessing
) -> Iterator[tuple[int, PreparedScan, NDArray[np.int64], str]]:
    """Read and prepare scans: number, scan, healthy slices, name of its content."""
    for number, case in enumerate(cases):
        volume = case.read()
        scan = prepare(volume, preprocessing)
        indices = healthy_slices(scan, case.read_mask(volume), preprocessing.plane)
        yield number, scan, indices, content_digest(volume.array, volume.spacing_mm)


def _collect(
    cases: Sequence[Case],
    features: FeatureSet,
    backbone: Backbone,
    preprocessing: Preprocessing,
    batch: int,
    step: str,
    cache: FeatureCache | None,
) -> Generator[Progress, None, None]:
    """Fill a feature set with the healthy slices of some cases."""
    waiting = Progress(step, 0, len(cases), cases[0].name if cases else "")
    yield waiting
    for item in prefetch(_healthy_scans(cases, preprocessing), patience_s=PATIENCE_S):
        if item is None:
            yield waiting
            continue
        number, scan, indices, digest = item
        waiting = Progress(step, number, len(cases), cases[number].name)
        yield waiting
        if not len(indices):
            continue
        grid = scan.grid(backbone.spec.stride, backbone.spec.multiple)
        entry = cache_entry(cache, digest, scan, grid, backbone)
        collecting = Inner(collect_features(scan, grid, backbone, indices, batch, entry))
        for _ in collecting:
            yield dataclasses.replace(waiting, note=backbone.engine.take_note())
        mask = grid.to_grid(scan.foreground[indices]) > PATCH_FOREGROUND
        features.add(collecting.value, mask)
    yield Progress(step, len(cases), len(cases))


def _healthy_scores(
    cases: Sequence[Case], features: FeatureSet, model: FittedModel, backbone: Backbone
) -> Generator[Progress, None, NDArray[np.float32]]:
    """Score the healthy slices of the validation scans as detection would."""
    scores = []
    chunks = iter(features.chunks)
    waiting = Progress("Calibrating", 0, len(cases))
    for item in prefetch(_healthy_scans(cases, model.preprocessing), patience_s=PATIENCE_S):
        if item is None:
            yield waiting
            continue
        number, scan, indices, _ = item
        waiting = Progress("Calibrating", number, len(cases), cases[number].name)
        yield waiting
        if not len(indices):
            continue
        grid = scan.grid(backbone.spec.stride, backbone.spec.multiple)
        embeddings, _ = next(chunks)
        batches = (
            (indices[start : start + 16].tolist(), embeddings[start : start + 16])
            for start in range(0, len(indices), 16)
        )
        scoring = Inner(score_slices(scan, model, grid, batches))
        for _ in scoring:
            yield waiting
        scores.append(grid.to_slices(scoring.value[indices])[scan.foreground[indices]])
    yield Progress("Calibrating", len(cases), len(cases))
    if not scores:
        raise InputError(
            "No validation scan has a healthy slice with enough tissue; give others to validate on."
        )
    return np.concatenate(scores)
