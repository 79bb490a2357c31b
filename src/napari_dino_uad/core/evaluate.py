"""Evaluation of a model over a cohort with lesion masks."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.backbones.recipe import BackboneRecipe
from napari_dino_uad.core.detect import detect
from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError, sentence
from napari_dino_uad.core.evaluation.failures import failure_of_row, rank_failures
from napari_dino_uad.core.evaluation.folder import write_evaluation
from napari_dino_uad.core.evaluation.record import Evaluation
from napari_dino_uad.core.evaluation.scoring import MAPS, CaseStore, ScoredCase, score_case
from napari_dino_uad.core.evaluation.settings import EvaluationSettings
from napari_dino_uad.core.evaluation.summary import summarise
from napari_dino_uad.core.features.cache import FeatureCache, open_cache
from napari_dino_uad.core.maps.domain_shift import measure_shift
from napari_dino_uad.core.model_file import model_checksum
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cases import Case, names_of_cases, read_case, unsaid

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.crew import Crew
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
    crew: Crew | None = None,
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
    crew : Crew, optional
        Processes that score scans side by side; needs `out`.

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

    Examples
    --------
    >>> from napari_dino_uad import drain, find_cases, load_model
    >>> cases = find_cases(["ill"], "*_flair.nii.gz", "*_lesion.nii.gz")
    >>> found = drain(evaluate(cases, load_model("model.safetensors"), out=Path("results")))
    >>> 0.5 < found.metrics["conventions"]["tissue"]["auroc"] <= 1
    True
    """
    if not cases:
        raise InputError("Expected at least one scan with a mask, got none; add some.")
    if crew is not None and out is None:
        raise InputError("Several processes share results through a folder; give one as out.")
    started = time.perf_counter()
    settings = settings or EvaluationSettings()
    if backbone is None:
        size = model.preprocessing.input_size
        backbone = yield from choose_engine(model.load_backbone(), input_size=size)
    names = names_of_cases(cases)
    if remark := _check_groups(settings.groups, names):
        yield Progress("Evaluating", 0, len(cases), note=remark)
    places = None if out is None or not maps else out / MAPS
    with _unfinished(out) as folder:
        shared = _Shared(
            model,
            folder,
            places,
            settings,
            # Without a folder nothing has to recognise the model again.
            checksum=None if out is None else model_checksum(model),
            cache=open_cache(cache) or False,
            batch=batch,
        )
        items = list(zip(names, cases, strict=True))
        outcomes = yield from _score_all(items, shared, backbone, crew)
        scored = [one.scored for one in outcomes if one.scored is not None]
        failed = {
            str(case.scan) if isinstance(case.scan, Path) else name: one.failure
            for (name, case), one in zip(items, outcomes, strict=True)
            if one.failure
        }
        if not scored:
            raise _nothing_left(failed)
        yield Progress("Computing metrics", 0, 1)
        calibration = model.calibration
        thresholds = {rate: calibration.threshold(rate) for rate in settings.rates}
        offered = sorted({*settings.rates, *settings.froc_rates, settings.finding_rate})
        metrics, curves, histograms = summarise(scored, settings, thresholds)
        seconds = {
            "reading": sum(one.reading_s for one in outcomes),
            **{step: sum(one.seconds[step] for one in scored) for step in ("backbone", "model")},
        }
        total = time.perf_counter() - started
        metrics |= {
            "cases": len(scored),
            "failed": failed,
            "command": command,
            "slices": sum(one.row["slices"] for one in scored),
            "slices_scored": sum(one.slices_scored for one in scored),
            "settings": _plain(settings),
            "levels": {f"{rate:g}": calibration.threshold(rate) for rate in offered},
            "cores": {f"{rate:g}": calibration.core_threshold(rate) for rate in offered},
            "data": {"mask_geometry": cases[0].mask_geometry, "volume": cases[0].volume},
            "model": {
                "method": model.normative.method,
                "summary": model.summary(),
                "checksum": shared.checksum,
                "backbone": model.backbone_key,
                "engine": backbone.engine.spec.description,
                "preprocessing": model.preprocessing.to_dict(),
                "maps": dataclasses.asdict(model.maps),
                "cohort": model.cohort,
                "versions": model.versions,
            },
            "seconds": {
                **seconds,
                # Several processes spend more seconds than pass.
                "rest": max(0.0, total - sum(seconds.values())),
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


def _check_groups(groups: Mapping[str, Mapping[str, str]], names: Sequence[str]) -> str:
    """Return a note where some cases have no group.

    Raises
    ------
    InputError
        If no case has one: its names are others then.
    """
    listed = {name for column in groups.values() for name in column}
    without = [name for name in names if name not in listed]
    if not groups or not without:
        return ""
    if len(without) == len(names):
        raise InputError(
            f"None of the {len(listed)} names in the table of groups is a case, such as "
            f"{names[0]}; name the cases there as cases.csv does."
        )
    return f"Note: {len(without)} of {len(names)} cases, such as {without[0]}, have no group."


def _plain(settings: EvaluationSettings) -> dict[str, Any]:
    """Return settings as they look after a round trip through a file."""
    values = dataclasses.asdict(settings) | {"groups": list(settings.groups)}
    return {key: list(one) if isinstance(one, tuple) else one for key, one in values.items()}


@dataclass(frozen=True)
class _Shared:
    """What the scoring of all cases has in common."""

    model: FittedModel
    folder: Path
    places: Path | None
    settings: EvaluationSettings
    checksum: str | None
    cache: FeatureCache | bool
    batch: int | None


@dataclass(frozen=True)
class _Outcome:
    """A case that was scored, or why it was not."""

    scored: ScoredCase | None = None
    failure: str = ""
    reading_s: float = 0.0


_Item = tuple[str, Case]


def _score_all(
    items: Sequence[_Item], shared: _Shared, backbone: Backbone, crew: Crew | None
) -> Generator[Progress, None, list[_Outcome]]:
    """Score all cases, one after the other or by several processes; return them in order."""
    said: list[str] = []
    outcomes: dict[int, _Outcome] = {}
    if crew is None:
        for number, item in enumerate(items):
            shown = Progress("Evaluating", number, len(items), item[0])
            scoring = Inner(_score(shared, item, backbone))
            for note in scoring:
                yield dataclasses.replace(shown, note=unsaid(note, said))
            outcomes[number] = scoring.value
        return list(outcomes.values())
    yield Progress("Evaluating", 0, len(items))
    work = crew.run(_score_there, (shared, BackboneRecipe.of(backbone)), items)
    for result in work:
        notes = ""
        if result is not None:
            number, (outcomes[number], notes) = result
        yield Progress("Evaluating", len(outcomes), len(items), note=unsaid(notes, said))
    return [outcomes[number] for number in range(len(items))]


def _score_there(shared: tuple[_Shared, BackboneRecipe], item: _Item) -> tuple[_Outcome, str]:
    """Score a case in a process of a crew; return it with the notes about it."""
    what, recipe = shared
    scoring = Inner(_score(what, item, recipe.load()))
    notes = [note for note in scoring if note]
    return scoring.value, "\n".join(notes)


def _score(shared: _Shared, item: _Item, backbone: Backbone) -> Generator[str, None, _Outcome]:
    """Score a case, unless a stopped run has; yield notes for the user, most of them empty."""
    name, case = item
    settings, places = shared.settings, shared.places
    store = CaseStore(shared.folder, places, settings, shared.checksum)
    clock = time.perf_counter()
    yield ""
    try:
        read = read_case(case, 0, [])
        if read.mask is None:
            raise InputError(f"{name} has no mask; evaluation needs one for every scan.")
        request = store.request(read.volume, read.mask)
        reading = time.perf_counter() - clock
        yield read.note
        one = store.find(name, request)
        if one is None:
            detecting = Inner(
                detect(
                    read.volume,
                    shared.model,
                    backbone=backbone,
                    batch=shared.batch,
                    cache=shared.cache,
                )
            )
            for inner in detecting:
                yield inner.note
            shift = measure_shift(detecting.value.level, shared.model.levels)
            if shift.warning:
                yield f"Note: {name}: {shift.warning}"
            done = score_case(name, case, detecting.value, read.mask, settings, places)
            one = store.keep(done, request)
        return _Outcome(one, reading_s=reading)
    except OF_ONE_SCAN as error:
        return _Outcome(failure=sentence(error), reading_s=time.perf_counter() - clock)


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
