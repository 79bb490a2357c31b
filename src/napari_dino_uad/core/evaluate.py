"""Evaluation of a model over a cohort with lesion masks."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.detect import detect
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.metrics import pixel_metrics
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cohort import Case, read_cases
from napari_dino_uad.core.slices.healthy import tissue_slices
from napari_dino_uad.core.slices.planes import to_plane
from napari_dino_uad.core.storage.atomic import csv_text, json_text, write_texts

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.model import FittedModel

__all__ = ["FALSE_POSITIVE_RATES", "Evaluation", "evaluate", "write_evaluation"]

#: Nominal false-positive rates at which Dice is reported, as in the DPMM paper.
FALSE_POSITIVE_RATES = (0.1, 0.05, 0.01)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model over a cohort.

    Attributes
    ----------
    metrics : dict
        Pooled metrics, counts and seconds; what `metrics.json` holds.
    cases : list of dict
        One row for each case; what `cases.csv` holds.
    """

    metrics: dict[str, Any]
    cases: list[dict[str, Any]]


def evaluate(
    cases: Sequence[Case],
    model: FittedModel,
    *,
    backbone: Backbone | None = None,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, Evaluation]:
    """Score scans with lesion masks and compare, over foreground pixels.

    Slices with hardly any tissue are left out. Lesion pixels outside the foreground get the
    lowest score, and so count as missed at every threshold.

    Parameters
    ----------
    cases : sequence of Case
        Scans with masks.
    model : FittedModel
        A fitted model.
    backbone : Backbone, optional
        As in `detect`.
    batch : int, optional
        As in `detect`.
    cache : FeatureCache or bool
        As in `detect`.

    Yields
    ------
    Progress
        After every batch.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If a case has no mask, a mask lies elsewhere, or no slice holds tissue.
    """
    if not cases:
        raise InputError("At least one scan with a mask is needed to evaluate, but none came.")
    started = time.perf_counter()
    if backbone is None:
        size = model.preprocessing.input_size
        backbone = yield from choose_engine(model.load_backbone(), input_size=size)
    thresholds = {rate: model.calibration.threshold(rate) for rate in FALSE_POSITIVE_RATES}
    rows: list[dict[str, Any]] = []
    truths, scores = [], []
    seconds = {"reading": 0.0, "backbone": 0.0, "model": 0.0}
    slices = scored = 0
    reading = read_cases(cases)
    for case in cases:
        clock = time.perf_counter()
        number, volume, mask, note = next(reading)
        if mask is None:
            raise InputError(f"{case.name} has no mask; evaluation needs one for every scan.")
        seconds["reading"] += time.perf_counter() - clock
        yield Progress("Evaluating", number, len(cases), case.name, note=note)
        detecting = Inner(detect(volume, model, backbone=backbone, batch=batch, cache=cache))
        for inner in detecting:
            yield Progress("Evaluating", number, len(cases), case.name, note=inner.note)
        anomaly = detecting.value
        seconds["backbone"] += anomaly.seconds["backbone"]
        seconds["model"] += anomaly.seconds["model"]
        scored += len(anomaly.scan)
        kept = tissue_slices(anomaly.scan)
        if not kept.any():
            continue
        plane = model.preprocessing.plane
        lesion = to_plane(mask, plane)[kept]
        inside = anomaly.scan.foreground[kept]
        score = np.where(inside, to_plane(anomaly.scores, plane)[kept], np.float32(-np.inf))
        counted = inside | lesion
        # Metrics do not take minus infinity; below every score does the same.
        score[~inside] = anomaly.scores.min() - 1
        truth, value = lesion[counted], score[counted]
        rows.append(
            {
                "case": case.name,
                "slices": int(kept.sum()),
                "pixels": int(counted.sum()),
                "lesion_pixels": int(truth.sum()),
                **_flat(pixel_metrics(truth, value, thresholds)),
            }
        )
        slices += int(kept.sum())
        truths.append(truth)
        scores.append(value)
    if not truths:
        raise InputError("No scan has a slice with enough tissue; check the window and plane.")
    truth, value = np.concatenate(truths), np.concatenate(scores)
    yield Progress("Computing metrics", 0, 1)
    pooled = pixel_metrics(truth, value, thresholds)
    total = time.perf_counter() - started
    metrics = {
        "pixel": pooled,
        "cases": len(rows),
        "slices": slices,
        "slices_scored": scored,
        "pixels": int(truth.size),
        "lesion_pixels": int(truth.sum()),
        "median_realised_fpr": {
            f"{rate:g}": _median([row[f"realised_fpr_{rate:g}"] for row in rows])
            for rate in FALSE_POSITIVE_RATES
        },
        "seconds": {**seconds, "rest": total - sum(seconds.values()), "total": total},
        "model": {
            "method": model.normative.method,
            "backbone": model.backbone_key,
            "engine": backbone.engine.spec.description,
            "cohort": model.cohort,
        },
    }
    return Evaluation(metrics, rows)


def _median(values: list[float | None]) -> float | None:
    """Return the median of those that are known: a case of lesion alone has no false positives."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """Put nested values beside the others, as columns of a table."""
    out: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            out |= {f"{name}_{rate}": number for rate, number in value.items()}
        else:
            out[name] = value
    return out


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `metrics.json` and `cases.csv` into a folder, both or neither.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    write_texts(
        folder,
        {
            "metrics.json": json_text(evaluation.metrics),
            "cases.csv": csv_text(list(evaluation.cases[0]), evaluation.cases),
        },
        last="metrics.json",
    )
