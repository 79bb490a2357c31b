"""Evaluation of a model over a cohort with lesion masks."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.detect import detect
from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError, sentence
from napari_dino_uad.core.evaluation.failures import failure_of_row, rank_failures
from napari_dino_uad.core.evaluation.folder import write_evaluation
from napari_dino_uad.core.evaluation.record import Evaluation
from napari_dino_uad.core.evaluation.scoring import MAPS, CaseStore, ScoredCase, score_case
from napari_dino_uad.core.evaluation.settings import EvaluationSettings
from napari_dino_uad.core.evaluation.summary import summarise
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.model_file import model_checksum
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cases import Case, names_of_cases, read_case

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.model import FittedModel

__all__ = ["Evaluation", "EvaluationSettings", "evaluate", "write_evaluation"]

# Subfolder of finished cases while an evaluation runs.
_UNFINISHED = "unfinished"


def evaluate(
    cases: Sequence[Case],
    model: FittedModel,
    *,
    backbone: Backbone | None = None,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
    settings: EvaluationSettings | None = None,
    out: Path | None = None,
    maps: bool = True,
    command: str = "",
) -> Generator[Progress, None, Evaluation]:
    """Score scans and compare the scores with lesion masks.

    A scan that cannot be used does not stop the others: it is left out of the metrics and named.
    Metrics follow two conventions, see `evaluation.settings.CONVENTIONS`. Lesion pixels outside
    the foreground have the lowest score, so they count as missed at every threshold.

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
    settings : EvaluationSettings, optional
        What to measure.
    out : Path, optional
        Folder for the results, which `read_evaluation` reads. A run that was stopped resumes
        there. Without it nothing is kept.
    maps : bool
        Whether `out` gets the map and the findings of each case.
    command : str
        What was typed on the command line, for the report.

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
        If no case can be used: scans or masks are bad or missing, or no slice holds tissue; or if
        a file cannot be written.
    """
    if not cases:
        raise InputError("Expected at least one scan with a mask, got none; add some.")
    started = time.perf_counter()
    settings = settings or EvaluationSettings()
    if backbone is None:
        size = model.preprocessing.input_size
        backbone = yield from choose_engine(model.load_backbone(), input_size=size)
    names = names_of_cases(cases)
    # Without a folder nothing has to recognise the model again.
    checksum = None if out is None else model_checksum(model)
    places = None if out is None or not maps else out / MAPS
    seconds = {"reading": 0.0, "backbone": 0.0, "model": 0.0}
    scored: list[ScoredCase] = []
    failed: dict[str, str] = {}
    noted: list[str] = []
    with _unfinished(out) as folder:
        store = CaseStore(folder, places, settings, checksum)
        for number, (name, case) in enumerate(zip(names, cases, strict=True)):
            shown = Progress("Evaluating", number, len(cases), name)
            yield shown
            try:
                clock = time.perf_counter()
                read = read_case(case, number, noted)
                if read.mask is None:
                    raise InputError(f"{name} has no mask; evaluation needs one for every scan.")
                request = store.request(read.volume, read.mask)
                seconds["reading"] += time.perf_counter() - clock
                yield dataclasses.replace(shown, note=read.note)
                one = store.find(name, request)
                if one is None:
                    detecting = Inner(
                        detect(read.volume, model, backbone=backbone, batch=batch, cache=cache)
                    )
                    for inner in detecting:
                        yield dataclasses.replace(shown, note=inner.note)
                    done = score_case(name, case, detecting.value, read.mask, settings, places)
                    one = store.keep(done, request)
                scored.append(one)
            except OF_ONE_SCAN as error:
                failed[str(case.scan) if isinstance(case.scan, Path) else name] = sentence(error)
        if not scored:
            raise _nothing_left(failed)
        yield Progress("Computing metrics", 0, 1)
        thresholds = {rate: model.calibration.threshold(rate) for rate in settings.rates}
        metrics, curves, histograms = summarise(scored, settings, thresholds)
        for step in ("backbone", "model"):
            seconds[step] = sum(one.seconds[step] for one in scored)
        total = time.perf_counter() - started
        metrics |= {
            "cases": len(scored),
            "failed": failed,
            "command": command,
            "slices": sum(one.row["slices"] for one in scored),
            "slices_scored": sum(one.slices_scored for one in scored),
            "settings": _plain(settings),
            "levels": {
                f"{rate:g}": model.calibration.threshold(rate)
                for rate in sorted({*settings.rates, *settings.froc_rates, settings.finding_rate})
            },
            "data": {"mask_geometry": cases[0].mask_geometry, "volume": cases[0].volume},
            "model": {
                "method": model.normative.method,
                "summary": model.summary(),
                "checksum": checksum,
                "backbone": model.backbone_key,
                "engine": backbone.engine.spec.description,
                "preprocessing": model.preprocessing.to_dict(),
                "maps": dataclasses.asdict(model.maps),
                "cohort": model.cohort,
                "versions": model.versions,
            },
            "seconds": {
                **seconds,
                "rest": total - sum(seconds.values()),
                "total": total,
            },
        }
        rows = [one.row for one in scored]
        failures = [failure_of_row(row) for one in scored for row in one.failures]
        evaluation = Evaluation(
            metrics,
            rows,
            failed,
            curves,
            [failure.row() for failure in rank_failures(failures)],
            histograms,
        )
        if out is not None:
            write_evaluation(evaluation, out)
    if out is not None:
        shutil.rmtree(out / _UNFINISHED, ignore_errors=True)
    return evaluation


def _plain(settings: EvaluationSettings) -> dict[str, Any]:
    """Return settings as they look after a round trip through a file."""
    values = dataclasses.asdict(settings) | {"groups": list(settings.groups)}
    return {key: list(one) if isinstance(one, tuple) else one for key, one in values.items()}


@contextmanager
def _unfinished(out: Path | None) -> Iterator[Path]:
    """Provide the folder of finished cases: one that a later run finds, or a temporary one."""
    if out is not None:
        yield out / _UNFINISHED
        return
    with tempfile.TemporaryDirectory(prefix="napari-dino-uad-") as folder:
        yield Path(folder)


def _nothing_left(failed: dict[str, str]) -> InputError:
    """Return the error to raise if no case has metrics."""
    path, reason = next(iter(failed.items()))
    if len(failed) == 1:
        return InputError(reason)
    return InputError(
        f"None of the {len(failed)} scans can be evaluated; the first: {path}: {reason}"
    )
