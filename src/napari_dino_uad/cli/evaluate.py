"""`evaluate`: scans with lesion masks and a model give metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_dino_uad.cli.fit import load_on
from napari_dino_uad.cli.options import (
    Device,
    Engine,
    MaskGeometryOption,
    MaskPattern,
    Model,
    NoCache,
    Pattern,
    Scans,
    VolumeNumber,
    Weights,
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

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(_evaluate)


def _evaluate(
    scans: Scans,
    model: Model,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for metrics.json and cases.csv."),
    ],
    mask_pattern: MaskPattern = None,
    pattern: Pattern = None,
    volume: VolumeNumber = None,
    mask_geometry: MaskGeometryOption = "check",
    weights: Weights = None,
    device: Device = "auto",
    engine: Engine = "auto",
    no_cache: NoCache = False,
) -> None:
    """Compare a model's scores with lesion masks, over the pixels of the foreground.

    A folder in one of the layouts of the BMAD benchmark needs no patterns. A scan that cannot be
    used is named and left out of the metrics; the exit code is 2 then.
    """
    from napari_dino_uad.core.scans.cohort import find_cases
    from napari_dino_uad.core.scans.grids import check_mask_geometry

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

    from napari_dino_uad.core.evaluate import evaluate, write_evaluation
    from napari_dino_uad.core.progress import drain

    with progress_bars() as bars:
        evaluation = drain(evaluate(cases, fitted, backbone=backbone, cache=not no_cache), bars)
    write_evaluation(evaluation, out)
    _print(evaluation.metrics, evaluation.cases)
    output().print(f"Metrics in {out}", soft_wrap=True)
    if evaluation.failed:
        for path, reason in evaluation.failed.items():
            note(f"Error: {path}: {reason}")
        note(f"{len(evaluation.failed)} of {len(cases)} scans have no metrics.")
        raise typer.Exit(BAD_INPUT)


def _print(metrics: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    rates = list(metrics["pixel"]["dice_at_fpr"])
    table = new_table(
        "case ", "slices", "lesion %", "AUROC", "AP", "max Dice",
        *(f"Dice at {float(rate):.0%} FPR" for rate in rates), "FPR at 5 %",
    )  # fmt: skip
    for row in cases:
        table.add_row(
            row["case"],
            str(row["slices"]),
            f"{100 * row['lesion_pixels'] / row['pixels']:.2f}",
            *(_number(row[name]) for name in ("auroc", "average_precision", "max_dice")),
            *(_number(row[f"dice_at_fpr_{rate}"]) for rate in rates),
            _number(row["realised_fpr_0.05"]),
        )
    pixel = metrics["pixel"]
    table.add_section()
    table.add_row(
        f"all {metrics['cases']}",
        str(metrics["slices"]),
        f"{100 * metrics['lesion_pixels'] / metrics['pixels']:.2f}",
        *(_number(pixel[name]) for name in ("auroc", "average_precision", "max_dice")),
        *(_number(pixel["dice_at_fpr"][rate]) for rate in rates),
        _number(pixel["realised_fpr"]["0.05"]),
    )
    console = output()
    console.print(table)
    seconds = metrics["seconds"]
    console.print(
        "Seconds: " + ", ".join(f"{step} {value:.1f}" for step, value in seconds.items()),
        soft_wrap=True,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
