"""`fit`: healthy scans give a model file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from napari_dino_uad.cli.fit_options import (
    BackboneKey,
    DetailMm,
    InputSize,
    Layers,
    LesionsOption,
    MethodKey,
    Neighbourhood,
    NoCentring,
    NoImageNet,
    Normalise,
    ObjectMask,
    Out,
    PlaneOption,
    Seed,
    Settings,
    SingleSlice,
    SmoothingMm,
    StorePictures,
    Symmetry,
    Valid,
    Window,
)
from napari_dino_uad.cli.options import (
    Device,
    Engine,
    Jobs,
    MaskGeometryOption,
    MaskPattern,
    NoCache,
    Pattern,
    Scans,
    Scheduler,
    VolumeNumber,
    Weights,
    crew_of,
    parse_settings,
    parse_symmetry,
    parse_window,
    path_of,
)
from napari_dino_uad.cli.terminal import note, output, progress_bars, writable_file
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.maps.score_map import MapSettings

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.core.scans.cohort import Case

__all__ = ["load_on", "register"]


class _ManyValidScans(TyperCommand):
    """A command in which `--valid` takes all arguments up to the next option.

    A shell expands `--valid folder/*.nii.gz` to many arguments. Taking only the first would
    silently fit on the others.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
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
    """Load a backbone, choose its engine and print both.

    Parameters
    ----------
    device, engine : str
        The options of the command.
    key : str
        The backbone.
    weights : Path or None
        A file of weights.
    input_size : int, optional
        Shorter edge of the input in pixels; default the backbone's own.

    Raises
    ------
    InputError
        If the device or engine is missing, or the weights are missing or of another network.
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
    out: Out,
    method: MethodKey = "dpmm",
    backbone: BackboneKey = "efficientnet-lite0",
    layers: Layers = None,
    weights: Weights = None,
    plane: PlaneOption = "axial",
    valid: Valid = None,
    pattern: Pattern = None,
    volume: VolumeNumber = None,
    mask_pattern: MaskPattern = None,
    mask_geometry: MaskGeometryOption = "check",
    input_size: InputSize = None,
    window: Window = None,
    single_slice: SingleSlice = False,
    no_imagenet: NoImageNet = False,
    object_mask: ObjectMask = False,
    normalise: Normalise = Context.normalise,
    neighbourhood: Neighbourhood = Context.neighbourhood,
    smoothing_mm: SmoothingMm = MapSettings.smoothing_mm,
    detail_mm: DetailMm = MapSettings.detail_mm,
    symmetry: Symmetry = "auto",
    lesions: LesionsOption = MapSettings.lesions,
    no_centring: NoCentring = False,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "auto",
    no_cache: NoCache = False,
    store_pictures: StorePictures = False,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Fit a model of what is normal on healthy scans.

    With --mask-pattern the slices with lesions, and those within 2 of them, are left out. All
    scans are read and checked first; if some cannot be used, all of them are named and nothing is
    learned. A fit that was stopped resumes after its last finished epoch when it is called again.
    """
    from napari_dino_uad.core.backbones.backbone import backbone_spec
    from napari_dino_uad.core.slices.planes import PLANES
    from napari_dino_uad.core.slices.preprocessing import Preprocessing

    started = time.perf_counter()
    spec = backbone_spec(backbone, layers)
    preprocessing = Preprocessing(
        plane="axial" if plane == "all" else plane,  # type: ignore[arg-type]  # it checks the name
        input_size=spec.input_size if input_size is None else input_size,
        window=parse_window(window),
        neighbours=not single_slice,
        imagenet=not no_imagenet,
        object_mask=object_mask,
    )
    context = Context(normalise, neighbourhood)  # type: ignore[arg-type]  # it checks the name
    maps = MapSettings(
        smoothing_mm,
        detail_mm,
        parse_symmetry(symmetry),
        not no_centring,
        lesions,  # type: ignore[arg-type]  # it checks the name
    )
    writable_file(out, ".safetensors")
    cases, held_out = _find_cohort(scans, valid, pattern, mask_pattern, mask_geometry, volume)
    options = parse_settings(method, settings or [])
    loaded = load_on(device, engine, spec.key, weights, preprocessing.input_size)

    from napari_dino_uad.core.fit import fit

    with crew_of(jobs, scheduler) as crew:
        fitting = fit(
            cases,
            valid=held_out,
            method=method,
            settings=options,
            backbone=loaded,
            preprocessing=preprocessing,
            planes=PLANES if plane == "all" else None,
            context=context,
            maps=maps,
            seed=seed,
            cache=not no_cache,
            crew=crew,
        )
        model = _fit_and_save(fitting, out, started)
    if store_pictures:
        _store_pictures(model, cases, loaded, out, cache=not no_cache)


def _find_cohort(
    scans: list[Path],
    valid: list[Path] | None,
    pattern: str | None,
    mask_pattern: str | None,
    mask_geometry: str,
    volume: int | None,
) -> tuple[list[Case], list[Case] | None]:
    """Find the scans to fit on, and those to validate on if they are given."""
    from napari_dino_uad.core.scans.cohort import find_cases
    from napari_dino_uad.core.scans.grids import check_mask_geometry

    matching = check_mask_geometry(mask_geometry)
    options: dict[str, Any] = {"mask_geometry": matching, "volume": volume}
    cases = find_cases(scans, pattern, mask_pattern, **options)
    held_out = find_cases(valid, pattern, mask_pattern, **options) if valid else None
    _refuse_shared(cases, held_out or [])
    _note_without_mask([*cases, *(held_out or [])])
    return cases, held_out


def _fit_and_save(
    fitting: Generator[Progress, None, FittedModel], out: Path, started: float
) -> FittedModel:
    """Run the fit with progress bars, save the model and print its summary; return the model."""
    from napari_dino_uad.core.model_file import save_model
    from napari_dino_uad.core.progress import drain

    with progress_bars() as bars:
        model = drain(fitting, bars)
    save_model(model, out)
    console = output()
    console.print(model.summary(), soft_wrap=True)
    console.print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - started:.0f} s",
        soft_wrap=True,
    )
    console.print(f"Next: napari-dino-uad detect SCAN --model {out} --out results", soft_wrap=True)
    return model


def _store_pictures(
    model: FittedModel, cases: list[Case], backbone: Backbone, out: Path, cache: bool
) -> None:
    """Take pictures of healthy patches and save them beside the model."""
    from napari_dino_uad.core.explain.pictures import collect_pictures, save_pictures
    from napari_dino_uad.core.progress import drain

    with progress_bars() as bars:
        pictures = drain(collect_pictures(model, cases, backbone, cache), bars)
    path = save_pictures(pictures, out)
    output().print(f"{path}: {len(pictures.images)} pictures of healthy patches", soft_wrap=True)


def _note_without_mask(cases: list[Case]) -> None:
    """Print a note about scans without a mask among scans with masks: they count as healthy."""
    without = [case.name for case in cases if case.mask is None and not case.healthy]
    if without and any(case.mask is not None for case in cases):
        note(
            f"Note: {len(without)} of {len(cases)} scans, such as {without[0]}, have no mask and "
            "are taken as healthy."
        )


def _refuse_shared(cases: list[Case], held_out: list[Case]) -> None:
    """Refuse validation scans that the model is fitted on: thresholds would be too low."""
    learned = {path_of(case).resolve() for case in cases}
    shared = [case.name for case in held_out if path_of(case).resolve() in learned]
    if shared:
        raise InputError(
            f"{len(shared)} of the {len(held_out)} validation scans, such as {shared[0]}, are "
            "among the scans to fit on too; give others to validate on."
        )
