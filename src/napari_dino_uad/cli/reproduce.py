"""`reproduce`: the papers' protocol on their data, beside their published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_dino_uad.cli.fit import load_on
from napari_dino_uad.cli.fit_options import NoImageNet, Normalise, ObjectMask
from napari_dino_uad.cli.options import Device, Engine, Weights, parse_settings
from napari_dino_uad.cli.terminal import (
    BAD_INPUT,
    new_table,
    note,
    output,
    progress_bars,
    writable_folder,
)
from napari_dino_uad.core.features.context import Context

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    papers = typer.Typer(
        help="Run the protocol of the two papers on their data.", no_args_is_help=True
    )
    papers.command("bmad")(_bmad)
    app.add_typer(papers, name="reproduce")


def _bmad(
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the data set, as BMAD distributes it.")
    ],
    dataset: Annotated[str, typer.Option(metavar="brats|liver|resc", help="Which data set.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for model and results.")
    ],
    method: Annotated[str, typer.Option(metavar="METHOD", help="dpmm, ar or another.")] = "dpmm",
    backbone: Annotated[
        str, typer.Option(metavar="KEY", help="Backbone; see the command backbones for the keys.")
    ] = "dinov2-vits14",
    preset: Annotated[
        str,
        typer.Option(
            metavar="paper|default",
            help="paper: the published settings, and maps without further steps. default: this "
            "package's own.",
        ),
    ] = "paper",
    shots: Annotated[
        int | None, typer.Option(metavar="N", help="Fit on so many training images only.")
    ] = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", min=32, help="Shorter edge of the input; default the backbone's own."
        ),
    ] = None,
    no_imagenet: NoImageNet = False,
    object_mask: ObjectMask = False,
    normalise: Normalise = Context.normalise,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the fit.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method."),
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Fit on the training part, calibrate on the validation part, and report on the test part."""
    from napari_dino_uad.core.bench.reproduce import (
        bmad_split,
        check_preset,
        published,
        reproduce,
    )
    from napari_dino_uad.core.evaluation.settings import CONVENTIONS
    from napari_dino_uad.core.progress import drain

    chosen = check_preset(preset)
    split = bmad_split(root, dataset, shots)
    values = parse_settings(method, settings or [])
    writable_folder(out)
    loaded = load_on(device, engine, backbone, weights, input_size)
    with progress_bars() as bars:
        running = reproduce(
            split,
            method,
            loaded,
            out,
            preset=chosen,
            settings=values,
            seed=seed,
            input_size=input_size,
            imagenet=not no_imagenet,
            object_mask=object_mask,
            context=Context(normalise),  # type: ignore[arg-type]  # it checks the name
        )
        evaluation = drain(running, bars)
    found = evaluation.metrics["conventions"]
    table = new_table(
        "method ", "AUROC", "AUPR", "ms an image", title=f"{split.about}, over all pixels"
    )
    for one in published(dataset):
        table.add_row(
            one["method"], _share(one["auroc"]), _share(one["aupr"]), f"{one['runtime_ms']}"
        )
    table.add_section()
    seconds, scored = evaluation.metrics["seconds"], evaluation.metrics["slices_scored"]
    table.add_row(
        f"here: {method}, {backbone}, {preset}",
        _number(found["all"]["auroc"]),
        _number(found["all"]["average_precision"]),
        f"{1000 * (seconds['backbone'] + seconds['model']) / scored:.0f}",
    )
    console = output()
    console.print(table)
    tissue = found["tissue"]
    console.print(
        f"{len(split.train)} images to fit on, {len(split.valid)} to calibrate on, "
        f"{len(evaluation.cases)} to test. Published figures: arXiv 2603.02974. Over tissue, which "
        f"cannot be compared with them: AUROC {_number(tissue['auroc'])}, AP "
        f"{_number(tissue['average_precision'])}. {CONVENTIONS['tissue'].capitalize()}.",
        soft_wrap=True,
    )
    console.print(f"Model and results in {out}", soft_wrap=True)
    if evaluation.failed:
        for path, reason in evaluation.failed.items():
            note(f"Error: {path}: {reason}")
        raise typer.Exit(BAD_INPUT)


def _share(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.4f} ± {value[1]:.4f}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"
