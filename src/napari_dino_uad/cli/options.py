"""Options shared by several commands, and parsing of their values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.crew import Crew
    from napari_dino_uad.core.scans.cohort import Case

__all__ = [
    "Device",
    "Engine",
    "Jobs",
    "MaskGeometryOption",
    "MaskPattern",
    "Model",
    "NoCache",
    "Pattern",
    "Scans",
    "Scheduler",
    "VolumeNumber",
    "Weights",
    "crew_of",
    "parse_settings",
    "parse_symmetry",
    "parse_window",
    "path_of",
]

Scans = Annotated[
    list[Path],
    typer.Argument(metavar="SCANS", help="Scans: files, folders, or a table (.csv) of them."),
]
Model = Annotated[
    Path, typer.Option("--model", "-m", metavar="MODEL", help="A model saved by fit.")
]
Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="File names of scans in folders, such as '*_flair.nii.gz'; * is the case. In a BIDS "
        "data set entities and suffix, such as ses-1_FLAIR; in a table rows, such as split=train.",
    ),
]
MaskPattern = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="File names of lesion masks, such as '*_lesion.nii.gz' beside the scans, or "
        "'../masks/*.png' relative to the scan's folder. In a BIDS data set entities and suffix, "
        "such as label-lesion_mask.",
    ),
]
MaskGeometryOption = Annotated[
    str,
    typer.Option(
        "--mask-geometry",
        metavar="check|ignore",
        help="Whether a mask must lie where its scan lies. ignore takes its voxels in the order "
        "of its file as those of the scan's own file, for masks saved without geometry.",
    ),
]
VolumeNumber = Annotated[
    int | None,
    typer.Option(
        "--volume",
        metavar="N",
        min=1,
        help="Which volume to read of files of four dimensions (fMRI, DWI), counted from 1. "
        "Without it the first, with a note.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File of the backbone's weights, used instead of the hub."),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the backbone runs.")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="auto|torch|openvino",
        help="What runs the backbone: auto measures once which is fastest on this machine. A "
        "precision can be added, as in 'torch float32', or given alone.",
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Keep nothing on disk: neither embeddings nor the training of a stopped fit.",
    ),
]

Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help="Processes that work on scans side by side, each with its share of the cores.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Dask scheduler whose workers do the work, such as tcp://10.0.0.5:8786. Scans, "
        "results and cache must lie at the same paths on all machines.",
    ),
]

# These have their own options.
_NOT_SETTINGS = frozenset({"seed"})


@contextmanager
def crew_of(jobs: int, scheduler: str | None) -> Iterator[Crew | None]:
    """Provide the processes that the options ask for; None for this one alone.

    Raises
    ------
    InputError
        If both are asked for, or no scheduler answers.
    """
    from napari_dino_uad.core.crew import DaskCrew, LocalCrew

    if scheduler is None:
        yield LocalCrew(jobs) if jobs > 1 else None
        return
    if jobs > 1:
        raise InputError("Give --jobs for this machine or --scheduler for a cluster, not both.")
    crew = DaskCrew(scheduler)
    try:
        yield crew
    finally:
        crew.close()


def path_of(case: Case) -> Path:
    """Return the file or folder of a case; on the command line, every case has one."""
    assert isinstance(case.scan, Path)
    return case.scan


def parse_window(text: str | None) -> tuple[float, float] | None:
    """Parse an intensity window.

    Parameters
    ----------
    text : str or None
        ``CENTRE,WIDTH``, or the name of a CT window.

    Raises
    ------
    InputError
        If the text is neither.
    """
    from napari_dino_uad.core.scans.hounsfield import CT_WINDOWS

    if text is None:
        return None
    if text in CT_WINDOWS:
        return CT_WINDOWS[text].centre, CT_WINDOWS[text].width
    parts = text.split(",")
    try:
        centre, width = (float(part) for part in parts)
    except ValueError as error:
        raise InputError(
            f"A window must be CENTRE,WIDTH or one of {', '.join(CT_WINDOWS)}, got {text!r}; "
            "write, say, 40,80."
        ) from error
    if not (math.isfinite(centre) and math.isfinite(width)):
        raise InputError(f"A window must have a finite centre and width, got {text!r}; change it.")
    return centre, width


def parse_symmetry(text: str) -> float | None:
    """Parse the weight of the left-right comparison; None for auto.

    Raises
    ------
    InputError
        If the text is neither a number nor auto.
    """
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"The weight of symmetry must be auto or a number from 0 up, got {text!r}; give either."
        ) from error


def parse_settings(method: str, assignments: Sequence[str]) -> dict[str, Any]:
    """Parse settings of a method.

    Parameters
    ----------
    method : str
        Name of the method.
    assignments : sequence of str
        Strings ``KEY=VALUE``.

    Returns
    -------
    dict
        Values, converted to the types of the method's settings.

    Raises
    ------
    InputError
        If the method or a key is unknown, or a value has another type.
    """
    from napari_dino_uad.core.normative.methods import find_method

    kind_of = find_method(method)
    if not assignments:
        return {}
    kind = kind_of.config_class()
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind) if field.name not in _NOT_SETTINGS]
    settings = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise InputError(f"A setting must be KEY=VALUE, got {assignment!r}; add the value.")
        if key in _NOT_SETTINGS:
            raise InputError(f"{key} is not a setting; give it as --{key} VALUE.")
        if key not in known:
            raise InputError(
                f"The method {method} has no setting {key!r}; it has {', '.join(known)}."
            )
        settings[key] = _parse_value(key, text.strip(), hints[key])
    # The class checks the ranges. Do it now, before the scans are read.
    kind(**settings)
    return settings


def _parse_value(key: str, text: str, kind: Any) -> Any:
    choices = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    if NoneType in choices and text.lower() == "none":
        return None
    for choice in choices:
        if get_origin(choice) is Literal:
            if text in get_args(choice):
                return text
        elif choice is bool:
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
        elif get_origin(choice) is tuple:
            try:
                return tuple(get_args(choice)[0](part) for part in text.split(","))
            except ValueError:
                continue
        elif choice in (int, float, str):
            try:
                return choice(text)
            except ValueError:
                continue
    expected = " or ".join(_describe(choice) for choice in choices)
    raise InputError(f"The setting {key} takes {expected}, got {text!r}; change the value.")


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "whole numbers separated by commas" if get_args(kind)[0] is int else "numbers"
    names = {
        int: "a whole number", float: "a number", bool: "true or false", NoneType: "none",
        str: "a text",
    }  # fmt: skip
    return names.get(kind, str(kind))
