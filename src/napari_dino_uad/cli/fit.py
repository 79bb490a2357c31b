"""`fit`: healthy scans give a model file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from napari_dino_uad.cli.options import (
    Device,
    Engine,
    MaskGeometryOption,
    MaskPattern,
    NoCache,
    Pattern,
    Scans,
    VolumeNumber,
    Weights,
    parse_settings,
    parse_symmetry,
    parse_window,
    path_of,
)
from napari_dino_uad.cli.terminal import note, output, progress_bars, writable_file
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.maps.score_map import MapSettings
from napari_dino_uad.core.normative.methods import METHODS

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.scans.cohort import Case

__all__ = ["load_on", "register"]


class _ManyValidScans(TyperCommand):
    """A command in which `--valid` takes all that follows it up to the next option.

    So does a shell's `--valid folder/*.nii.gz`; taking the first alone would quietly put the
    others among the scans to learn from.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write the option before each of its values."""
        spread: list[str] = []
        taking = False
        for place, arg in enumerate(args):
            if arg == "--valid":
                taking = True
                if place + 1 == len(args) or args[place + 1].startswith("-"):
                    spread.append(arg)
            elif arg.startswith("-"):
                taking = arg.startswith("--valid=")
                spread.append(arg)
            else:
                spread += ["--valid", arg] if taking else [arg]
        return super().parse_args(ctx, spread)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fit", cls=_ManyValidScans)(_fit)


def load_on(
    device: str, engine: str, key: str, weights: Path | None, input_size: int | None = None
) -> Backbone:
    """Load a backbone, find the engine that runs it and tell the user what runs where.

    Parameters
    ----------
    device, engine : str
        What the user asked for.
    key : str
        The backbone.
    weights : Path or None
        A file of weights.
    input_size : int, optional
        Shorter edge of the input in pixels; the backbone's own if not given.

    Raises
    ------
    InputError
        If the device or engine is not there, or the weights are missing or of another network.
    """
    from napari_dino_uad.core.backbones.backbone import backbone_spec, load_backbone
    from napari_dino_uad.core.backbones.engines.choice import choose_engine, describe_place
    from napari_dino_uad.core.backbones.engines.device import choose_device
    from napari_dino_uad.core.progress import drain

    spec = backbone_spec(key)
    # Before weights are downloaded for nothing.
    choose_device(device)
    source = f", weights of {weights}" if weights else ""
    note(f"Backbone {spec.key} ({spec.licence}{source})")
    with progress_bars() as bars:
        loaded = load_backbone(key, weights, bars)
        placed = drain(choose_engine(loaded, device, engine, input_size), bars)
    note(describe_place(placed, device))
    return placed


def _fit(
    scans: Scans,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="MODEL", help="The .safetensors file to write.")
    ],
    method: Annotated[str, typer.Option(metavar="|".join(METHODS), help="Kind of model.")] = "dpmm",
    backbone: Annotated[
        str, typer.Option(metavar="KEY", help="A key that the command backbones lists.")
    ] = "efficientnet-lite0",
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Layers of the backbone to read and join, counted from 1: a transformer's "
            "blocks or a convolutional network's stages. Short for KEY@N,N,...",
        ),
    ] = None,
    weights: Weights = None,
    plane: Annotated[
        str,
        typer.Option(
            metavar="axial|coronal|sagittal|all",
            help="Plane to cut slices in. all fits a model for each and averages their maps, for "
            "scans whose voxels are nearly cubes.",
        ),
    ] = "axial",
    valid: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="SCANS...",
            help="Other healthy scans, to choose the epoch and calibrate thresholds with; all "
            "paths up to the next option. Without it a fifth of SCANS is held out.",
        ),
    ] = None,
    pattern: Pattern = None,
    volume: VolumeNumber = None,
    mask_pattern: MaskPattern = None,
    mask_geometry: MaskGeometryOption = "check",
    input_size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Shorter edge of the backbone's input."),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="CENTRE,WIDTH",
            help="Fixed intensity window, or brain, stroke, lung, abdomen or bone for CT. "
            "Without it every scan is scaled to its own brightest tissue.",
        ),
    ] = None,
    single_slice: Annotated[
        bool,
        typer.Option(
            "--single-slice",
            help="Show the backbone each slice alone, not with its two neighbours as colours.",
        ),
    ] = False,
    neighbourhood: Annotated[
        int,
        typer.Option(
            metavar="PATCHES", help="Edge of the square of patches that is averaged; 1 for none."
        ),
    ] = Context.neighbourhood,
    smoothing_mm: Annotated[
        float, typer.Option(metavar="MM", help="Width of the Gaussian that smooths the map.")
    ] = MapSettings.smoothing_mm,
    detail_mm: Annotated[
        float,
        typer.Option(
            metavar="MM",
            help="Radius of the windows in which the map's edges follow the anatomy's; 0 for none.",
        ),
    ] = MapSettings.detail_mm,
    symmetry: Annotated[
        str,
        typer.Option(
            metavar="auto|WEIGHT",
            help="Weight of the comparison of left and right beside the model's score; auto "
            "compares where healthy slices are symmetric, 0 never.",
        ),
    ] = "auto",
    no_centring: Annotated[
        bool,
        typer.Option(
            "--no-centring", help="Do not take each scan's own median score from its scores."
        ),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the method, as components=250."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = 0,
    device: Device = "auto",
    engine: Engine = "auto",
    no_cache: NoCache = False,
) -> None:
    """Fit a model of what is normal on healthy scans.

    With --mask-pattern the slices with lesions, and those within 2 of them, are left out. All
    scans are read and checked first; if some cannot be used, all of them are named and nothing is
    learned.
    """
    from napari_dino_uad.core.backbones.backbone import backbone_spec
    from napari_dino_uad.core.scans.cohort import find_cases
    from napari_dino_uad.core.scans.grids import check_mask_geometry
    from napari_dino_uad.core.slices.planes import PLANES
    from napari_dino_uad.core.slices.preprocessing import Preprocessing

    started = time.perf_counter()
    spec = backbone_spec(backbone, layers)
    preprocessing = Preprocessing(
        plane="axial" if plane == "all" else plane,  # type: ignore[arg-type]  # it refuses others
        input_size=spec.input_size if input_size is None else input_size,
        window=parse_window(window),
        neighbours=not single_slice,
    )
    context = Context(neighbourhood=neighbourhood)
    maps = MapSettings(smoothing_mm, detail_mm, parse_symmetry(symmetry), not no_centring)
    writable_file(out, ".safetensors")
    matching = check_mask_geometry(mask_geometry)
    options: dict[str, Any] = {"mask_geometry": matching, "volume": volume}
    cases = find_cases(scans, pattern, mask_pattern, **options)
    held_out = find_cases(valid, pattern, mask_pattern, **options) if valid else None
    _refuse_shared(cases, held_out or [])
    if mask_pattern is not None:
        _tell_without_mask([*cases, *(held_out or [])])
    chosen = parse_settings(method, settings or [])
    loaded = load_on(device, engine, spec.key, weights, preprocessing.input_size)

    from napari_dino_uad.core.fit import fit
    from napari_dino_uad.core.model_file import save_model
    from napari_dino_uad.core.progress import drain

    with progress_bars() as bars:
        model = drain(
            fit(
                cases,
                valid=held_out,
                method=method,
                settings=chosen,
                backbone=loaded,
                preprocessing=preprocessing,
                planes=PLANES if plane == "all" else None,
                context=context,
                maps=maps,
                seed=seed,
                cache=not no_cache,
            ),
            bars,
        )
    save_model(model, out)
    console = output()
    console.print(model.summary(), soft_wrap=True)
    console.print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - started:.0f} s",
        soft_wrap=True,
    )


def _tell_without_mask(cases: list[Case]) -> None:
    """Say which scans are taken as healthy for want of a mask."""
    without = [case.name for case in cases if case.mask is None]
    if without:
        note(
            f"Note: {len(without)} of {len(cases)} scans, such as {without[0]}, have no mask and "
            "are taken as healthy."
        )


def _refuse_shared(cases: list[Case], held_out: list[Case]) -> None:
    """Refuse to validate on a scan that the model learns from: thresholds would come too low."""
    learned = {path_of(case).resolve() for case in cases}
    shared = [case.name for case in held_out if path_of(case).resolve() in learned]
    if shared:
        raise InputError(
            f"{len(shared)} of the {len(held_out)} validation scans, such as {shared[0]}, are "
            "among the scans to fit on too; give others to validate on."
        )
