"""The pipelines of Fit, which run in threads: find scans, read settings, fit, save."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.layer_masks import LayerScan, layer_cases
from napari_dino_uad.widgets.session import session
from napari_dino_uad.widgets.settings import remember_model
from napari_dino_uad.widgets.workers import writing

if TYPE_CHECKING:
    from napari_dino_uad.core.maps.score_map import MapSettings
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.cohort import Case
    from napari_dino_uad.core.scans.grids import MaskGeometry
    from napari_dino_uad.core.scans.sorting import SortedFiles
    from napari_dino_uad.core.slices.planes import Plane

__all__ = [
    "Cohort",
    "FoundCases",
    "Request",
    "finder",
    "fitter",
    "load_settings",
    "saver",
]


@dataclass(frozen=True)
class Cohort:
    """Healthy scans, as chosen in the widget.

    Attributes
    ----------
    paths : list of Path
        Files and folders to look in.
    files : list of Case
        Cases found there so far.
    layers : list of LayerScan
        Scans that are open, with their masks.
    held_out : str or None
        Folder of other healthy scans to calibrate on.
    pattern, mask_pattern : str or None
        Which files are scans and masks.
    mask_geometry : {"check", "ignore"}
        Whether masks must lie where their scans lie.
    """

    paths: list[Path]
    files: list[Case]
    layers: list[LayerScan]
    held_out: str | None
    pattern: str | None
    mask_pattern: str | None
    mask_geometry: MaskGeometry


class FoundCases(NamedTuple):
    """The cases of a cohort, a note on them, and patterns that would pair scans with masks."""

    cases: list[Case]
    note: str
    patterns: tuple[str, str] | None


@dataclass(frozen=True)
class Request:
    """Everything a fit needs, read from the widget when the button is pressed.

    Attributes
    ----------
    cohort : Cohort
    method : str
        A key of `METHODS`.
    settings : dict
        Settings of the method that differ from its defaults.
    backbone : str
        Key of the backbone and its layers.
    weights : Path or None
        File of the backbone's weights.
    planes : tuple of str
        Planes to cut slices in; a model is fitted for each.
    input_size : int
        Shorter edge of the backbone's input in pixels.
    window : str
        A key of `CT_WINDOWS`; any other text scales each scan to itself.
    neighbours : bool
        Whether the backbone sees the neighbouring slices as colours.
    maps : MapSettings
    seed : int
    pictures : bool
        Whether pictures of healthy patches are kept with the model.
    """

    cohort: Cohort
    method: str
    settings: dict[str, Any]
    backbone: str
    weights: Path | None
    planes: tuple[Plane, ...]
    input_size: int
    window: str
    neighbours: bool
    maps: MapSettings
    seed: int
    pictures: bool = False


def load_settings() -> Generator[Progress, None, dict[str, Any]]:
    """Return the default settings of each method; importing them takes seconds."""
    yield Progress("Loading", 0, 1)
    return {key: method.config_class()() for key, method in METHODS.items()}


def finder(cohort: Cohort) -> Callable[[], Generator[Progress, None, FoundCases]]:
    """Return a pipeline that finds the cases of a cohort."""

    def pipeline() -> Generator[Progress, None, FoundCases]:
        from napari_dino_uad.core.scans.cohort import find_cases
        from napari_dino_uad.core.scans.sorting import LabelsAmongScansError

        yield Progress("Looking", 0, 1)
        cases, note = layer_cases(cohort.layers, cohort.mask_geometry)
        try:
            if cohort.paths:
                cases += find_cases(
                    cohort.paths,
                    cohort.pattern,
                    cohort.mask_pattern,
                    mask_geometry=cohort.mask_geometry,
                )
        except LabelsAmongScansError as error:
            # Refused, with a button for the patterns that would pair them.
            return FoundCases([], _advise(error.files), error.files.patterns)
        return FoundCases(cases, note, None)

    return pipeline


def _advise(files: SortedFiles) -> str:
    """Return what the user can do about masks among scans, in the terms of the widget."""
    if not files.scans:
        advice = "Add the scans themselves."
    elif files.patterns:
        advice = "Press the button below if these are the lesion masks of the scans."
    else:
        advice = "Enter the pattern of the scans, and the mask pattern if these are lesion masks."
    return f"{files.found}. {advice}"


def fitter(request: Request) -> Callable[[], Generator[Progress, None, FittedModel]]:
    """Return a pipeline that fits a model."""
    cohort, planes = request.cohort, request.planes

    def pipeline() -> Generator[Progress, None, FittedModel]:
        from napari_dino_uad.core.explain.pictures import collect_pictures
        from napari_dino_uad.core.fit import fit
        from napari_dino_uad.core.scans.hounsfield import CT_WINDOWS
        from napari_dino_uad.core.slices.preprocessing import Preprocessing

        cases, note = layer_cases(cohort.layers, cohort.mask_geometry)
        cases += cohort.files
        if note:
            yield Progress("Reading layers", 0, 1, note=note)
        yield from session().fetch(request.backbone, request.weights)
        yield Progress("Loading the backbone", 0, 1, request.backbone)
        loaded = session().backbone(request.backbone, request.weights)
        backbone = yield from session().place(loaded, request.input_size)
        window = CT_WINDOWS.get(request.window)
        preprocessing = Preprocessing(
            plane=planes[0],
            input_size=request.input_size,
            window=None if window is None else (window.centre, window.width),
            neighbours=request.neighbours,
        )
        model = yield from fit(
            cases,
            valid=_held_out(cohort),
            method=request.method,
            settings=request.settings,
            backbone=backbone,
            preprocessing=preprocessing,
            planes=planes if len(planes) > 1 else None,
            maps=request.maps,
            seed=request.seed,
        )
        if request.pictures:
            pictures = yield from collect_pictures(model, cases, backbone)
            session().keep_pictures(model, pictures)
        return model

    return pipeline


def _held_out(cohort: Cohort) -> list[Case] | None:
    from napari_dino_uad.core.scans.cohort import find_cases

    if cohort.held_out is None:
        return None
    return find_cases(
        [cohort.held_out],
        cohort.pattern,
        cohort.mask_pattern,
        mask_geometry=cohort.mask_geometry,
    )


def saver(model: FittedModel, path: Path) -> Callable[[], Generator[Progress, None, str]]:
    """Return a pipeline that writes a model to a file."""

    def pipeline() -> Generator[Progress, None, str]:
        from napari_dino_uad.core.explain.pictures import save_pictures
        from napari_dino_uad.core.model_file import save_model

        pictures, beside = session().pictures_of(model), ""
        yield Progress("Saving", 0, 1)
        with writing(path.parent, path):
            save_model(model, path)
            remember_model(path)
            if pictures is not None:
                beside = f" Pictures: {save_pictures(pictures, path).name}."
        return f"Saved {path.name}, {path.stat().st_size / 1e6:.1f} MB.{beside}"

    return pipeline
