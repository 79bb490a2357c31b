"""The scale of scores on healthy tissue, which makes planes and asymmetries comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.brightness import BRIGHTNESS_WEIGHTS, mirror_difference
from napari_dino_uad.core.maps.score_map import (
    SYMMETRY_WEIGHT,
    SYMMETRY_WEIGHT_BESIDE,
    MapSettings,
    ScoreScale,
)
from napari_dino_uad.core.progress import Inner, Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet
    from napari_dino_uad.core.normative.base import NormativeModel
    from napari_dino_uad.core.slices.planes import Plane

__all__ = ["measure_scale", "reweighted"]


def measure_scale(
    normative: NormativeModel,
    train: FeatureSet,
    valid: FeatureSet,
    maps: MapSettings,
    plane: Plane,
) -> Generator[Progress, None, ScoreScale]:
    """Measure the scores of healthy patches, and their asymmetries if the cohort is symmetric.

    Parameters
    ----------
    normative : NormativeModel
        A fitted model.
    train, valid : FeatureSet
        Healthy slices: `train` shows whether the anatomy is symmetric, `valid` is scored. The
        brightness of both is compared.
    maps : MapSettings
        Its `symmetry` is the weight of the comparison of left and right; None chooses it. Its
        `lesions` decides the weight of the brightness.
    plane : {"axial", "coronal", "sagittal"}

    Yields
    ------
    Progress
        After every batch.

    Returns
    -------
    ScoreScale

    Raises
    ------
    InputError
        If no slice of `valid` holds tissue.
    """
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
        weight = _weight_of(maps) if measuring.value < SYMMETRIC_RATIO else 0.0
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
    brightness = BRIGHTNESS_WEIGHTS[maps.lesions]
    spread = _brightness_deviation(train, valid) if brightness > 0 else 1.0
    return ScoreScale(mean, deviation, *_moments(mirrors), weight, spread, brightness)


def _weight_of(maps: MapSettings) -> float:
    """Return the weight of the comparison of embeddings in a symmetric cohort."""
    if maps.symmetry is not None:
        return maps.symmetry
    alone = BRIGHTNESS_WEIGHTS[maps.lesions] == 0
    return SYMMETRY_WEIGHT if alone else SYMMETRY_WEIGHT_BESIDE


def reweighted(
    scale: ScoreScale, measured: MapSettings, maps: MapSettings, plane: Plane
) -> ScoreScale:
    """Return the same healthy statistics with the weights of other settings.

    Parameters
    ----------
    scale : ScoreScale
        From `measure_scale`.
    measured, maps : MapSettings
        The settings of `scale`, and those wanted.
    plane : {"axial", "coronal", "sagittal"}

    Raises
    ------
    InputError
        If they need what was not measured.
    """
    symmetric = scale.symmetry > 0
    weight = 0.0
    if plane != "sagittal" and (symmetric or maps.symmetry is not None):
        weight = _weight_of(maps)
    brightness = BRIGHTNESS_WEIGHTS[maps.lesions] if weight > 0 else 0.0
    unknown = measured.symmetry == 0 and maps.symmetry is None and plane != "sagittal"
    if unknown or (weight > 0 and not symmetric) or (brightness > 0 and scale.brightness == 0):
        raise InputError(
            "The fit did not compare left and right as these settings do; fit the model again."
        )
    return dataclasses.replace(scale, symmetry=weight, brightness=brightness)


def _brightness_deviation(*sets: FeatureSet) -> float:
    """Return the standard deviation of healthy differences from the mirrored place."""
    differences = [
        mirror_difference(brightness, mask)[mask]
        for healthy in sets
        for brightness, (_, mask) in zip(healthy.brightness, healthy.chunks, strict=True)
        if brightness is not None
    ]
    return _moments(differences)[1]


def _moments(parts: list[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the mean and standard deviation of all values."""
    values = np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
    if not values.size:
        raise InputError(
            "Expected validation scans with healthy tissue, got none; give others to validate on."
        )
    return float(values.mean()), max(float(values.std()), 1e-12)
