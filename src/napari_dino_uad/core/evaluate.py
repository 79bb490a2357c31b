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
from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError, sentence
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.metrics import pixel_metrics
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cases import Case, read_case
from napari_dino_uad.core.slices.healthy import tissue_slices
from napari_dino_uad.core.slices.planes import to_plane
from napari_dino_uad.core.storage.atomic import csv_text, json_text, write_texts

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.slices.planes import Plane

__all__ = ["FALSE_POSITIVE_RATES", "FINDING_RATE", "Evaluation", "evaluate", "write_evaluation"]

#: Nominal false-positive rates at which Dice is reported, as in the DPMM paper.
FALSE_POSITIVE_RATES = (0.1, 0.05, 0.01)

#: False-positive rate at which findings are compared with lesions.
FINDING_RATE = 0.01

# Nominal rate, and the range of realised rates in which it counts as held by a scan.
_HELD_RATE, _HELD = 0.05, (0.02, 0.08)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model over a cohort.

    Attributes
    ----------
    metrics : dict
        Pooled metrics, counts and seconds; the content of `metrics.json`.
    cases : list of dict
        One row for each case; the content of `cases.csv`.
    failed : dict of str to str
        Scans without metrics and the reason, one sentence each. They are rows of `cases.csv` too.
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
    """Score scans and compare the scores with lesion masks, over foreground pixels.

    A scan that cannot be used does not stop the others: it is left out of the metrics and named.

    Slices with hardly any tissue are left out. Lesion pixels outside the foreground get the
    lowest score, so they count as missed at every threshold.

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
        raise InputError("Expected at least one scan with a mask, got none; add some.")
    started = time.perf_counter()
    if backbone is None:
        size = model.preprocessing.input_size
        backbone = yield from choose_engine(model.load_backbone(), input_size=size)
    pool = _Pool({rate: model.calibration.threshold(rate) for rate in FALSE_POSITIVE_RATES})
    noted: list[str] = []
    for number, case in enumerate(cases):
        shown = Progress("Evaluating", number, len(cases), case.name)
        yield shown
        try:
            clock = time.perf_counter()
            read = read_case(case, number, noted)
            if read.mask is None:
                raise InputError(f"{case.name} has no mask; evaluation needs one for every scan.")
            pool.seconds["reading"] += time.perf_counter() - clock
            yield dataclasses.replace(shown, note=read.note)
            detecting = Inner(
                detect(read.volume, model, backbone=backbone, batch=batch, cache=cache)
            )
            for inner in detecting:
                yield dataclasses.replace(shown, note=inner.note)
            pool.add(case.name, detecting.value, read.mask, model.preprocessing.plane)
        except OF_ONE_SCAN as error:
            where = str(case.scan) if isinstance(case.scan, Path) else case.name
            pool.failed[where] = sentence(error)
    yield Progress("Computing metrics", 0, 1)
    metrics = pool.metrics(started)
    metrics["model"] = {
        "method": model.normative.method,
        "backbone": model.backbone_key,
        "engine": backbone.engine.spec.description,
        "cohort": model.cohort,
    }
    return Evaluation(metrics, pool.rows, pool.failed)


class _Pool:
    """Scored pixels of all cases.

    Attributes
    ----------
    rows : list of dict
        As in `Evaluation.cases`.
    failed : dict of str
        As in `Evaluation.failed`.
    seconds : dict of float
        Time spent in each step.
    """

    def __init__(self, thresholds: dict[float, float]) -> None:
        self._thresholds = thresholds
        self._truths: list[NDArray[np.bool_]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._slices_scored = 0
        self.rows: list[dict[str, Any]] = []
        self.failed: dict[str, str] = {}
        self.seconds = {"reading": 0.0, "backbone": 0.0, "model": 0.0}

    def add(self, name: str, anomaly: AnomalyMap, mask: NDArray[np.bool_], plane: Plane) -> None:
        """Add the pixels of a case, in the slices that have enough tissue.

        Raises
        ------
        InputError
            If no slice has enough tissue.
        """
        for step in ("backbone", "model"):
            self.seconds[step] += anomaly.seconds[step]
        self._slices_scored += len(anomaly.scan)
        kept = tissue_slices(anomaly.scan)
        if not kept.any():
            raise InputError(
                f"{name} has no slice with enough tissue; check the window and plane of the model."
            )
        lesion = to_plane(mask, plane)[kept]
        inside = anomaly.scan.foreground[kept]
        # The metrics refuse minus infinity; a value below every score has the same effect.
        score = np.where(inside, to_plane(anomaly.scores, plane)[kept], anomaly.scores.min() - 1)
        counted = inside | lesion
        truth, value = lesion[counted], score[counted].astype(np.float32, copy=False)
        threshold = anomaly.model.calibration.threshold(FINDING_RATE)
        self.rows.append(
            {
                "case": name,
                "slices": int(kept.sum()),
                "pixels": int(counted.sum()),
                "lesion_pixels": int(truth.sum()),
                **_flat(pixel_metrics(truth, value, self._thresholds)),
                **compare_findings(anomaly, mask, threshold),
            }
        )
        self._truths.append(truth)
        self._scores.append(value)

    def metrics(self, started: float) -> dict[str, Any]:
        """Compute the metrics over all pixels.

        Parameters
        ----------
        started : float
            `time.perf_counter` at the start of the evaluation.

        Raises
        ------
        InputError
            If no case has pixels.
        """
        if not self._truths:
            raise self._nothing_left()
        truth, value = np.concatenate(self._truths), np.concatenate(self._scores)
        pooled = pixel_metrics(truth, value, self._thresholds)
        total = time.perf_counter() - started
        return {
            "pixel": pooled,
            "cases": len(self.rows),
            "failed": self.failed,
            "slices": sum(row["slices"] for row in self.rows),
            "slices_scored": self._slices_scored,
            "pixels": int(truth.size),
            "lesion_pixels": int(truth.sum()),
            "median_realised_fpr": {
                f"{rate:g}": _median([row[f"realised_fpr_{rate:g}"] for row in self.rows])
                for rate in self._thresholds
            },
            "scans_held": self._held(),
            "lesions": self._lesions(),
            "seconds": {
                **self.seconds,
                "rest": total - sum(self.seconds.values()),
                "total": total,
            },
        }

    def _held(self) -> float | None:
        """Return the share of scans whose realised rate is near the nominal 5 %."""
        found = [row[f"realised_fpr_{_HELD_RATE:g}"] for row in self.rows]
        known = [rate for rate in found if rate is not None]
        low, high = _HELD
        return sum(low <= rate <= high for rate in known) / len(known) if known else None

    def _lesions(self) -> dict[str, Any]:
        """Summarise how findings meet lesions."""
        met = [row["largest_lesion_met"] for row in self.rows]
        with_lesion = [one for one in met if one is not None]
        return {
            "rate": FINDING_RATE,
            "scans_with_lesion": len(with_lesion),
            "largest_met": sum(with_lesion),
            "false_findings_a_scan": float(np.mean([row["false_findings"] for row in self.rows])),
        }

    def _nothing_left(self) -> InputError:
        """Return the error to raise if no case has metrics."""
        path, reason = next(iter(self.failed.items()))
        if len(self.failed) == 1:
            return InputError(reason)
        return InputError(
            f"None of the {len(self.failed)} scans can be evaluated; the first: {path}: {reason}"
        )


def compare_findings(
    anomaly: AnomalyMap, mask: NDArray[np.bool_], threshold: float
) -> dict[str, Any]:
    """Compare the findings of a scan with its lesions.

    A finding is a connected region of tissue above the threshold, of at least the smallest size
    that `find_findings` keeps. It meets a lesion if they share a voxel.

    Parameters
    ----------
    anomaly : AnomalyMap
        The map of the scan.
    mask : ndarray of bool, (S, P, L)
        Lesions.
    threshold : float
        Score above which a voxel is abnormal.

    Returns
    -------
    dict
        "largest_lesion_met", whether a finding meets the largest connected region of the mask
        (None without a lesion), and "false_findings", the number of findings that meet no lesion.
    """
    from scipy.ndimage import label

    findings, _ = find_findings(
        anomaly.scores,
        anomaly.volume,
        threshold,
        anomaly.model.calibration,
        foreground=anomaly.foreground,
    )
    found = np.unique(findings[findings > 0])
    false = np.setdiff1d(found, findings[mask])
    met = None
    if mask.any():
        lesions, _ = label(mask, np.ones((3, 3, 3)))
        largest = int(np.argmax(np.bincount(lesions.ravel())[1:])) + 1
        met = bool(findings[lesions == largest].any())
    return {"largest_lesion_met": met, "false_findings": len(false)}


def _median(values: list[float | None]) -> float | None:
    """Return the median without None: a case that is all lesion has no false-positive rate."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics without nesting, one for each column of a table."""
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
