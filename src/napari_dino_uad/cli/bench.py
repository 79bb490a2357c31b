"""`bench`: compare methods on a data set with lesion masks, over several seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_dino_uad.cli.fit import load_on
from napari_dino_uad.cli.options import (
    Device,
    Engine,
    MaskGeometryOption,
    Weights,
    parse_settings,
)
from napari_dino_uad.cli.terminal import output, progress_bars, writable_folder
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.methods import BASELINES, METHODS, find_method

__all__ = ["register"]

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the data set.")]
Methods = Annotated[str, typer.Option(metavar="METHOD,...", help="Methods to compare.")]
Maps = Annotated[
    str,
    typer.Option(
        metavar="MAP,...",
        help="Maps to make of each method: raw for the scores as they are, none, either, bright or "
        "dark for all steps with what the reader looks for.",
    ),
]
Seeds = Annotated[str, typer.Option(metavar="N,N,...", help="Seeds; one run for each.")]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the tables and the runs.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="METHOD.KEY=VALUE",
        help="A setting of a method, such as dpmm.components=250.",
    ),
]
BackboneKey = Annotated[
    str, typer.Option(metavar="KEY", help="Backbone; see the command backbones for the keys.")
]
Readme = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also put the table between its two markers in this file."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Repeat finished runs.")]

_ABOUT = {
    "lgg": "FLAIR head scans: DATA contains train, valid and test with *_flair.nii.gz and "
    "*_lesion.nii.gz.",
    "oct": "Retinal B-scans: DATA contains img and fluid with img_N.png, 11 per patient.",
}
_WRITES = (
    "Writes {name}.json, {name}.csv and {name}.md. Finished runs with the same data, settings and "
    "code are reused, so a stopped benchmark resumes where it was."
)
_OUT = Path("benchmarks/results")
# The baselines of `bench.variants` that need no model; importing that takes seconds.
_NO_MODEL = ("brightness", "asymmetry")
_METHODS = ",".join([*METHODS, *BASELINES, *_NO_MODEL])
_MAPS = "raw,none,either,bright"
_SEEDS = "0,1,2"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    bench = typer.Typer(help="Compare methods on a data set with masks.", no_args_is_help=True)
    for name, about in _ABOUT.items():
        bench.command(name, help=f"{about}\n\n{_WRITES.format(name=name)}")(_command(name))
    app.add_typer(bench, name="bench")


def _command(name: str) -> Callable[..., None]:
    """Create the command of a split; all have the same options."""

    def run(
        data: Data,
        methods: Methods = _METHODS,
        seeds: Seeds = _SEEDS,
        maps: Maps = _MAPS,
        out: Out = _OUT,
        settings: Settings = None,
        backbone: BackboneKey = "efficientnet-lite0",
        weights: Weights = None,
        device: Device = "auto",
        engine: Engine = "auto",
        readme: Readme = None,
        overwrite: Overwrite = False,
        mask_geometry: MaskGeometryOption = "check",
    ) -> None:
        from napari_dino_uad.core.bench.splits import lgg_split, oct_split
        from napari_dino_uad.core.bench.table import bench_table, read_section, replace_section
        from napari_dino_uad.core.bench.variants import check_maps
        from napari_dino_uad.core.scans.grids import check_mask_geometry
        from napari_dino_uad.core.storage.atomic import write_text

        asked = _methods(methods, settings or [])
        make_split = {"lgg": lgg_split, "oct": oct_split}[name]
        split = make_split(data, check_mask_geometry(mask_geometry))
        numbers = _seeds(seeds)
        named = [name.strip() for name in maps.split(",")]
        check_maps(named)
        if readme is not None:
            # Fail now rather than after an hour.
            read_section(readme.read_text(encoding="utf-8"), split.name)
        writable_folder(out)
        loaded = load_on(device, engine, backbone, weights)

        from napari_dino_uad.core.bench.run import bench
        from napari_dino_uad.core.bench.table import write_bench
        from napari_dino_uad.core.progress import drain

        with progress_bars() as bars:
            running = bench(
                split, asked, numbers, out, backbone=loaded, maps=named, overwrite=overwrite
            )
            result = drain(running, bars)
        paths = write_bench(result, out)
        table = bench_table(result)
        if readme is not None:
            text = readme.read_text(encoding="utf-8")
            write_text(readme, replace_section(text, split.name, table))
            paths.append(readme)
        console = output()
        console.print(table, soft_wrap=True)
        console.print(f"Written: {', '.join(map(str, paths))}", soft_wrap=True)

    return run


def _methods(names: str, assignments: list[str]) -> dict[str, dict[str, Any]]:
    """Parse methods and their settings."""
    methods = [name.strip() for name in names.split(",") if name.strip()]
    own: dict[str, list[str]] = {
        name if name in _NO_MODEL else find_method(name).key: [] for name in methods
    }
    for assignment in assignments:
        method, dot, rest = assignment.partition(".")
        if not dot or method not in own:
            raise InputError(
                f"A setting must be METHOD.KEY=VALUE with one of {', '.join(own)}, got "
                f"{assignment!r}; name one of them."
            )
        own[method].append(rest)
    return {method: parse_settings(method, rest) if rest else {} for method, rest in own.items()}


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"Seeds must be whole numbers separated by commas, got {text!r}; write, say, 0,1,2."
        ) from error
    if min(seeds) < 0:
        raise InputError(f"A seed must be 0 or more, got {min(seeds)}; raise it.")
    return list(dict.fromkeys(seeds))
