"""Evaluation of a model over a cohort with lesion masks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.detect import detect
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.metrics import pixel_metrics
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cohort import Case
from napari_dino_uad.core.slices.healthy import tissue_slices
from napari_dino_uad.core.slices.planes import to_plane
from napari_dino_uad.core.storage.atomic import csv_text, json_text, write_texts

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
from napari_dino_uad.core.errors import OF_ONE_SCAN, sentence
from napari_dino_uad.core.scans.cohort import read_case
from napari_dino_uad.core.slices.planes import Plane

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.detect import AnomalyMap
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
    failed : dict of str to str
        Scans without metrics, and why: each a sentence. They are rows of `cases.csv` too.
    """

    metrics: dict[str, Any]
    cases: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)


def evaluate(
    cases: Sequence[Case],
    model: FittedModel,
    *,
    backbone: Backbone | None = None,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, Evaluation]:
    """Score scans with lesion masks and compare, over foreground pixels.

    A scan that cannot be used does not stop the others: it is left out of the metrics and named.

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
        If no case can be used: scans or masks are bad or missing, or no slice holds tissue.
    """
    if not cases:
        raise InputError("At least one scan with a mask is needed to evaluate, but none came.")
    started = time.perf_counter()
    if backbone is None:
        size = model.preprocessing.input_size
        backbone = yield from choose_engine(model.load_backbone(), input_size=size)
    thresholds = {rate: model.calibration.threshold(rate) for rate in FALSE_POSITIVE_RATES}
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    truths, scores = [], []
    seconds = {"reading": 0.0, "backbone": 0.0, "model": 0.0}
    scored = 0
    said: list[str] = []
    for number, case in enumerate(cases):
        shown = Progress("Evaluating", number, len(cases), case.name)
        yield shown
        try:
            clock = time.perf_counter()
            read = read_case(case, number, said)
            if read.mask is None:
                raise InputError(f"{case.name} has no mask; evaluation needs one for every scan.")
            seconds["reading"] += time.perf_counter() - clock
            yield dataclasses.replace(shown, note=read.note)
            detecting = Inner(
                detect(read.volume, model, backbone=backbone, batch=batch, cache=cache)
            )
            for inner in detecting:
                yield dataclasses.replace(shown, note=inner.note)
            anomaly = detecting.value
            slices, truth, value = _compared(case, anomaly, read.mask, model.preprocessing.plane)
            row = {
                "case": case.name,
                "slices": slices,
                "pixels": int(truth.size),
                "lesion_pixels": int(truth.sum()),
                **_flat(pixel_metrics(truth, value, thresholds)),
            }
        except OF_ONE_SCAN as error:
            where = str(case.scan) if isinstance(case.scan, Path) else case.name
            failed[where] = sentence(error)
            continue
        seconds["backbone"] += anomaly.seconds["backbone"]
        seconds["model"] += anomaly.seconds["model"]
        scored += len(anomaly.scan)
        rows.append(row)
        truths.append(truth)
        scores.append(value)
    if not rows:
        raise _nothing_left(failed)
    truth, value = np.concatenate(truths), np.concatenate(scores)
    yield Progress("Computing metrics", 0, 1)
    pooled = pixel_metrics(truth, value, thresholds)
    total = time.perf_counter() - started
    metrics = {
        "pixel": pooled,
        "cases": len(rows),
        "failed": failed,
        "slices": sum(row["slices"] for row in rows),
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
    return Evaluation(metrics, rows, failed)


def _nothing_left(failed: dict[str, str]) -> InputError:
    """Return the error to raise where no case has metrics."""
    path, reason = next(iter(failed.items()))
    if len(failed) == 1:
        return InputError(reason)
    return InputError(
        f"None of the {len(failed)} scans can be evaluated; the first: {path}: {reason}"
    )


def _compared(
    case: Case, anomaly: AnomalyMap, mask: NDArray[np.bool_], plane: Plane
) -> tuple[int, NDArray[np.bool_], NDArray[np.float32]]:
    """Return how many slices have tissue, and truth and score of each of their pixels."""
    kept = tissue_slices(anomaly.scan)
    if not kept.any():
        raise InputError(
            f"{case.name} has no slice with enough tissue; check the window and plane of the model."
        )
    lesion = to_plane(mask, plane)[kept]
    inside = anomaly.scan.foreground[kept]
    # Metrics do not take minus infinity; below every score does the same.
    score = np.where(inside, to_plane(anomaly.scores, plane)[kept], anomaly.scores.min() - 1)
    counted = inside | lesion
    return int(kept.sum()), lesion[counted], score[counted].astype(np.float32, copy=False)


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

    A scan without metrics has a row in `cases.csv` with its path and the reason.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    failed = [{"case": path, "error": reason} for path, reason in evaluation.failed.items()]
    write_texts(
        folder,
        {
            "metrics.json": json_text(evaluation.metrics),
            "cases.csv": csv_text([*evaluation.cases[0], "error"], [*evaluation.cases, *failed]),
        },
        last="metrics.json",
    )
