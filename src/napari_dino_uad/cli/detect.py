"""`detect`: scans and a model give maps, findings and a report for each case."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dino_uad.cli.detect_case import (
    DetectJob,
    DoneCase,
    detect_case,
    detect_case_there,
)
from napari_dino_uad.cli.extras import Extras
from napari_dino_uad.cli.fit import load_on
from napari_dino_uad.cli.options import (
    Device,
    Engine,
    Jobs,
    Model,
    NoCache,
    Pattern,
    Scans,
    Scheduler,
    VolumeNumber,
    Weights,
    crew_of,
    path_of,
)
from napari_dino_uad.cli.resume import (
    Request,
    check_places,
    is_finished,
)
from napari_dino_uad.cli.terminal import (
    BAD_INPUT,
    ProgressBars,
    new_table,
    note,
    output,
    progress_bars,
    sentence,
    writable_folder,
)
from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError
from napari_dino_uad.core.maps.finding_settings import DEFAULT_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.crew import Crew
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.core.scans.sorting import SortedFiles

__all__ = ["register"]


Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for results.")]
Rate = Annotated[float, typer.Option(help="Share of healthy pixels above the threshold.")]
MinimumSize = Annotated[
    float | None,
    typer.Option(
        help="Findings smaller than this are dropped: in ml; of a single slice in mm²; in pixels "
        "if the file has no spacing. Without it 1 ml, 10 mm² or 100 pixels.",
    ),
]
SeriesUid = Annotated[
    str | None,
    typer.Option(
        metavar="UID",
        help="The DICOM series or volume to read, if a file or folder holds several; without it "
        "they are listed.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Repeat the cases that have results already.")
]
Report = Annotated[
    bool,
    typer.Option(
        "--report", help="Also write CASE_report.html, one page with the highest findings pictured."
    ),
]
Named = Annotated[
    bool,
    typer.Option(
        "--named",
        help="Write the name of the scan's file into its report; names of files often hold names "
        "of patients.",
    ),
]
Components = Annotated[
    bool,
    typer.Option(
        "--components",
        help="Also write CASE_components.nii.gz, the nearest component of the mixture by voxel.",
    ),
]
Likelihoods = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Also write CASE_likelihood_K.nii.gz, the log-likelihood under component K, for the N "
        "components that most of the scan is nearest to.",
    ),
]
Dicom = Annotated[
    bool,
    typer.Option(
        "--dicom",
        help="Also write CASE_findings.dcm and CASE_anomaly.dcm on the slices of a DICOM series.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("detect")(_detect)


def _detect(
    scans: Scans,
    model: Model,
    out: Out,
    fpr: Rate = DEFAULT_RATE,
    min_size: MinimumSize = None,
    pattern: Pattern = None,
    volume: VolumeNumber = None,
    series: SeriesUid = None,
    weights: Weights = None,
    device: Device = "auto",
    engine: Engine = "auto",
    no_cache: NoCache = False,
    overwrite: Overwrite = False,
    report: Report = False,
    named: Named = False,
    dicom: Dicom = False,
    components: Components = False,
    likelihoods: Likelihoods = 0,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Find what is abnormal in scans.

    Writes CASE_anomaly.nii.gz, CASE_findings.nii.gz (both on the scan's own grid),
    CASE_findings.csv and CASE.json. A case that has results already, of the same model and
    options, is skipped, so a stopped run resumes. Research use only.
    """
    if min_size is not None and not (math.isfinite(min_size) and min_size >= 0):
        raise InputError(f"Expected a minimum size of 0 or more, got {min_size}; change it.")
    if named and not report:
        raise InputError("--named is about the report; give --report too.")
    cases = _find_named(scans, pattern)
    _refuse_own_results(cases, out)
    if not model.is_file():
        raise InputError(f"There is no model file at {model}.")

    from napari_dino_uad.core.features.cache import open_cache
    from napari_dino_uad.core.model_file import load_model

    fitted = load_model(model)
    _check_rate(fitted, fpr)
    writable_folder(out)
    request = Request.of(model, fpr, min_size, series, volume)
    bad: dict[Path, str] = {}
    extras = Extras(report, dicom, components, likelihoods, named)
    if components or likelihoods:
        _check_components(fitted)
    cache = open_cache(not no_cache) or False
    todo = _unfinished(cases, out, request, bad, overwrite, extras)
    skipped = len(cases) - len(todo) - len(bad)
    if skipped:
        note(f"{skipped} of {len(cases)} cases are done already; --overwrite makes them again.")
    if todo:
        size = fitted.preprocessing.input_size
        backbone = load_on(device, engine, fitted.backbone_key, weights, size)
        fitted.check_backbone(backbone)
        job = DetectJob(fitted, request, out, model, cache, extras)
        with crew_of(jobs, scheduler) as crew:
            _detect_all(todo, job, backbone, crew, bad)
    _report(cases, bad, out)


def _find_named(scans: list[Path], pattern: str | None) -> dict[str, Path]:
    """Find the scans, each once, by case name."""
    from napari_dino_uad.core.scans.cases import unique_case_names
    from napari_dino_uad.core.scans.cohort import find_cases

    chosen = find_cases(scans, pattern, leave_out=_note_left_out)
    found = list(dict.fromkeys(path_of(case).resolve() for case in chosen))
    return dict(zip(unique_case_names(found), found, strict=True))


def _report(cases: dict[str, Path], bad: dict[Path, str], out: Path) -> None:
    """Print where the results are, and why scans have none; exit with an error for those.

    Raises
    ------
    InputError
        If the only scan has no result.
    typer.Exit
        If one of several scans has no result.
    """
    if len(bad) < len(cases):
        from napari_dino_uad.core.results import RESEARCH_USE

        output().print(f"Results in {out}. {RESEARCH_USE}", soft_wrap=True)
    if not bad:
        return
    if len(cases) == 1:
        raise InputError(next(iter(bad.values())))
    for path, reason in bad.items():
        note(f"Error: {path}: {reason}")
    note(f"{len(bad)} of {len(cases)} scans have no result.")
    raise typer.Exit(BAD_INPUT)


def _note_left_out(files: SortedFiles) -> None:
    """Name the masks and results among the scans, which are skipped."""
    note(f"Note: {files.found}; nothing is sought there.")


def _unfinished(
    cases: dict[str, Path],
    out: Path,
    request: Request,
    bad: dict[Path, str],
    overwrite: bool,
    extras: Extras,
) -> dict[str, Path]:
    """Return the cases without results; those that cannot be done go into `bad`."""
    todo = {}
    for name, scan in cases.items():
        try:
            check_places(out, name)
            finished = is_finished(out, name, scan, request) and extras.there(out, name)
            if overwrite or not finished:
                todo[name] = scan
        except OF_ONE_SCAN as error:
            bad[scan] = sentence(error)
    return todo


def _detect_all(
    todo: dict[str, Path],
    job: DetectJob,
    backbone: Backbone,
    crew: Crew | None,
    bad: dict[Path, str],
) -> None:
    """Detect in every scan and print a table; scans that cannot be used go into `bad`."""
    columns = ("findings", "size", "largest", "peak score", "p", "seconds")
    table = new_table("case ", *columns)
    rows: dict[int, tuple[str, ...]] = {}
    items = list(todo.items())
    with progress_bars() as bars:
        for number, done in _done_cases(items, job, backbone, crew, bars):
            for text in done.notes:
                note(text)
            if done.failure:
                bad[items[number][1]] = done.failure
            else:
                rows[number] = (items[number][0], *done.cells)
    for _, row in sorted(rows.items()):
        table.add_row(*row)
    if table.row_count:
        output().print(table)
        output().print(
            "p: share of healthy tissue that scores as high as the peak, down to what the "
            "calibration resolves.",
            soft_wrap=True,
        )


def _done_cases(
    items: list[tuple[str, Path]],
    job: DetectJob,
    backbone: Backbone,
    crew: Crew | None,
    bars: ProgressBars,
) -> Iterator[tuple[int, DoneCase]]:
    """Detect in the scans, one after the other or by several processes."""
    from napari_dino_uad.core.progress import Progress

    if crew is None:
        for number, item in enumerate(items):
            shown = _Overall(bars, number, len(items), item[0])
            yield number, detect_case(job, item, backbone, shown)
        return
    from napari_dino_uad.core.backbones.recipe import BackboneRecipe

    done = 0
    for result in crew.run(detect_case_there, (job, BackboneRecipe.of(backbone)), items):
        if result is not None:
            done += 1
            yield result
        bars(Progress("Detecting", done, len(items)))


class _Overall:
    """Turns the progress of one case into that of the whole run, so that one bar shows both."""

    def __init__(self, bars: ProgressBars, number: int, count: int, name: str) -> None:
        self._bars, self._number, self._count, self._name = bars, number, count, name

    def __call__(self, progress: Progress) -> None:
        """Show a progress of this case."""
        from napari_dino_uad.core.progress import Progress

        # In thousandths of a case; reading and preparing a scan count as none.
        part = 1000 * progress.done // max(1, progress.total)
        done = 1000 * self._number + part
        self._bars(Progress("Detecting", done, 1000 * self._count, self._name, note=progress.note))


def _refuse_own_results(cases: dict[str, Path], out: Path) -> None:
    """Refuse scans that are maps of an earlier run, written to the folder of the scans."""
    from napari_dino_uad.core.results import ResultPaths

    results = [ResultPaths.of(out, name) for name in cases]
    images = {image.resolve() for one in results for image in (one.anomaly, one.findings)}
    own = [path for path in cases.values() if path in images]
    if own:
        raise InputError(
            f"{own[0]} is a result of an earlier run, not a scan; give --pattern for the names "
            "of the scans, or another folder for the results."
        )


def _check_components(model: FittedModel) -> None:
    """Refuse to write components of a model that has none."""
    from napari_dino_uad.core.normative.methods import members_of

    if "dpmm" not in members_of(model.views[0].normative):
        raise InputError(
            f"The method {model.normative.method} has no components; leave out --components "
            "and --likelihoods, or use a model of the method dpmm."
        )


def _check_rate(model: FittedModel, fpr: float) -> None:
    """Refuse an impossible rate; give a note if it is finer than the calibration."""
    model.calibration.threshold(fpr)
    finest = float(model.calibration.rates.min())
    if fpr < finest:
        note(
            f"Note: this model has {model.calibration.pixels} healthy pixels, enough for rates "
            f"down to {finest:.1g}; the threshold of that rate is used for {fpr:g}."
        )
