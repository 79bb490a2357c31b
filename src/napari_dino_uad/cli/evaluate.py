"""`evaluate`: scans with lesion masks and a model give metrics."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dino_uad.cli.fit import load_on
from napari_dino_uad.cli.options import (
    Device,
    Engine,
    Jobs,
    MaskGeometryOption,
    MaskPattern,
    Model,
    NoCache,
    Pattern,
    Scans,
    Scheduler,
    VolumeNumber,
    Weights,
    crew_of,
)
from napari_dino_uad.cli.terminal import (
    BAD_INPUT,
    new_table,
    note,
    output,
    progress_bars,
    writable_folder,
)
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.settings import CONVENTIONS, EvaluationSettings, read_groups
from napari_dino_uad.core.evaluation.texts import (
    OVERALL,
    group_rows,
    has_intervals,
    number,
    pooled_lines,
    pooled_rows,
)

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.record import Evaluation

__all__ = ["register"]

# Columns of a terminal that has room for all figures of a case.
_WIDE = 150


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(_evaluate)


def _evaluate(
    scans: Scans,
    model: Model,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the results."),
    ],
    mask_pattern: MaskPattern = None,
    pattern: Pattern = None,
    volume: VolumeNumber = None,
    mask_geometry: MaskGeometryOption = "check",
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Table with a column case and further ones, such as site or scanner; each gets "
            "figures of its own for every group.",
        ),
    ] = None,
    bootstrap: Annotated[
        int,
        typer.Option(
            metavar="N", help="Resamples of the cases for the 95 % intervals; 0 for none."
        ),
    ] = 1000,
    lesion_overlap: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of a lesion that findings must cover to meet it, and of a finding that "
            "must be lesion for it not to be false; 0 for a single voxel.",
        ),
    ] = 0.0,
    minimum_size: Annotated[
        float | None,
        typer.Option(
            metavar="SIZE",
            help="Smallest finding, above the threshold of half the rate: ml, mm² for a single "
            "slice, or voxels without a spacing. Default 1 ml, 10 mm² or 100.",
        ),
    ] = None,
    no_maps: Annotated[
        bool,
        typer.Option(
            "--no-maps", help="Write figures only; failures cannot be looked at without maps."
        ),
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Also write evaluation.html, with curves and the worst cases pictured."
        ),
    ] = False,
    weights: Weights = None,
    device: Device = "auto",
    engine: Engine = "auto",
    no_cache: NoCache = False,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Compare a model's scores with lesion masks.

    Figures follow two conventions, over tissue and over all pixels; they cannot be compared with
    each other. A folder in one of the layouts of the BMAD benchmark needs no patterns. A scan that
    cannot be used is named and left out of the metrics; the exit code is 2 then. A run that was
    stopped resumes with the next scan.
    """
    from napari_dino_uad.core.scans.cohort import find_cases
    from napari_dino_uad.core.scans.grids import check_mask_geometry

    settings = EvaluationSettings(
        bootstrap=bootstrap,
        lesion_overlap=lesion_overlap,
        minimum_size=minimum_size,
        groups={} if groups is None else read_groups(groups),
    )
    cases = find_cases(
        scans,
        pattern,
        mask_pattern,
        require_masks=True,
        mask_geometry=check_mask_geometry(mask_geometry),
        volume=volume,
    )
    if not model.is_file():
        raise InputError(f"There is no model file at {model}.")

    from napari_dino_uad.core.model_file import load_model

    fitted = load_model(model)
    writable_folder(out)
    size = fitted.preprocessing.input_size
    backbone = load_on(device, engine, fitted.backbone_key, weights, size)
    fitted.check_backbone(backbone)

    from napari_dino_uad.core.evaluate import evaluate
    from napari_dino_uad.core.progress import drain

    with crew_of(jobs, scheduler) as crew, progress_bars() as bars:
        running = evaluate(
            cases,
            fitted,
            backbone=backbone,
            cache=not no_cache,
            settings=settings,
            out=out,
            maps=not no_maps,
            command=_command(),
            crew=crew,
        )
        evaluation = drain(running, bars)
        if report:
            from napari_dino_uad.core.evaluation.folder import read_evaluation
            from napari_dino_uad.core.evaluation.page import write_evaluation_report

            drain(write_evaluation_report(read_evaluation(out)), bars)
    _print(evaluation)
    output().print(f"Results in {out}", soft_wrap=True)
    if evaluation.failed:
        for path, reason in evaluation.failed.items():
            note(f"Error: {path}: {reason}")
        note(f"{len(evaluation.failed)} of {len(cases)} scans have no metrics.")
        raise typer.Exit(BAD_INPUT)


def _command() -> str:
    """Return the command as it was typed, with the names of files alone: reports are shared."""
    parts = [Path(part).name if "/" in part or "\\" in part else part for part in sys.argv]
    return shlex.join(parts)


def _print(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    console = output()
    console.print(_table_of_cases(metrics, evaluation.cases))
    for place, text in enumerate(_pooled(metrics)):
        console.print(text, soft_wrap=bool(place))
    seconds = metrics["seconds"]
    console.print(
        "Seconds: " + ", ".join(f"{step} {value:.1f}" for step, value in seconds.items()),
        soft_wrap=True,
    )


def _table_of_cases(metrics: dict[str, Any], cases: list[dict[str, Any]]) -> Any:
    rates = list(metrics["conventions"]["tissue"]["dice_at_fpr"])
    wide = output().width >= _WIDE
    table = new_table(
        "case ", *(("slices", "lesion %") if wide else ()), *OVERALL.values(),
        *(f"Dice at {float(rate):.0%} FPR" for rate in rates if wide), "FPR at 5 %",
        "lesions met", "false findings",
        title="Cases, over tissue" if wide else "Cases, over tissue (all columns: cases.csv)",
    )  # fmt: skip
    for row in cases:
        more = (str(row["slices"]), f"{100 * row['lesion_pixels'] / row['pixels']:.2f}")
        table.add_row(
            row["case"],
            *(more if wide else ()),
            *(number(row[name]) for name in OVERALL),
            *(number(row[f"dice_at_fpr_{rate}"]) for rate in rates if wide),
            number(row["realised_fpr_0.05"]),
            f"{row['lesions_met']} of {row['lesions']}",
            str(row["false_findings"]),
        )
    return table


def _pooled(metrics: dict[str, Any]) -> list[Any]:
    """Return what is printed of all cases together."""
    title = "Pooled, with 95 % intervals over cases" if has_intervals(metrics) else "Pooled"
    table = new_table("all cases ", *CONVENTIONS, title=title)
    for title, values in pooled_rows(metrics):
        table.add_row(title, *values)
    return [
        table,
        *_tables_of_groups(metrics),
        *(f"{name}: {about}." for name, about in CONVENTIONS.items()),
        "Figures over tissue and over all pixels cannot be compared.",
        *pooled_lines(metrics),
    ]


def _tables_of_groups(metrics: dict[str, Any]) -> list[Any]:
    tables = []
    for column, groups in metrics["groups"].items():
        table = new_table(f"{column} ", "cases", *OVERALL.values(), title="Over tissue")
        for row in group_rows(groups):
            table.add_row(*row)
        tables.append(table)
    return tables
