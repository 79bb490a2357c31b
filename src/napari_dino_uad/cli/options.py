"""Options that several commands share, and turning what was typed into what the core takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
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
    from napari_dino_uad.core.cohort import Case

__all__ = [
    "Device",
    "Engine",
    "MaskPattern",
    "Model",
    "NoCache",
    "Pattern",
    "Scans",
    "Weights",
    "parse_settings",
    "parse_symmetry",
    "parse_window",
    "path_of",
]

Scans = Annotated[list[Path], typer.Argument(metavar="SCANS", help="Scans: files or folders.")]
Model = Annotated[
    Path, typer.Option("--model", "-m", metavar="MODEL", help="A model that fit saved.")
]
Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN", help="Names of scans in folders, as '*_flair.nii.gz'; * is the case."
    ),
]
MaskPattern = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Names of lesion masks, as '*_lesion.nii.gz' beside the scans, or '../masks/*.png' "
        "as seen from the scan's folder.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A file of the backbone's weights, instead of its hub."),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the backbone runs.")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="auto|torch|openvino",
        help="What runs the backbone: auto measures once which is fastest on this machine. A "
        "precision can be named too or alone, as 'torch float32'.",
    ),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Neither look for embeddings on disk nor keep them there."),
]

# Given by options of their own.
_NOT_SETTINGS = frozenset({"seed"})


def path_of(case: Case) -> Path:
    """Return the file or folder of a case, which on the command line every case has."""
    assert isinstance(case.scan, Path)
    return case.scan


def parse_window(text: str | None) -> tuple[float, float] | None:
    """Read an intensity window.

    Parameters
    ----------
    text : str or None
        ``CENTRE,WIDTH``, or the name of a CT window.

    Raises
    ------
    InputError
        If it is neither.
    """
    from napari_dino_uad.core.slices import CT_WINDOWS

    if text is None:
        return None
    if text in CT_WINDOWS:
        return CT_WINDOWS[text]
    parts = text.split(",")
    try:
        centre, width = (float(part) for part in parts)
    except ValueError as error:
        raise InputError(
            f"A window is CENTRE,WIDTH or one of {', '.join(CT_WINDOWS)}, but {text!r} came."
        ) from error
    if not (math.isfinite(centre) and math.isfinite(width)):
        raise InputError(f"A window has a finite centre and width, but {text!r} came.")
    return centre, width


def parse_symmetry(text: str) -> float | None:
    """Read the weight of the comparison of left and right; None is auto.

    Raises
    ------
    InputError
        If it is neither a number nor auto.
    """
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"The weight of symmetry is auto or a number from 0 up, but {text!r} came."
        ) from error


def parse_settings(method: str, assignments: Sequence[str]) -> dict[str, Any]:
    """Read settings of a method.

    Parameters
    ----------
    method : str
        Name of the method.
    assignments : sequence of str
        Each ``KEY=VALUE``.

    Returns
    -------
    dict
        Values of the types that the method's settings have.

    Raises
    ------
    InputError
        If the method or a key is unknown, or a value is of another type.
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
            raise InputError(f"A setting is KEY=VALUE, but {assignment!r} came.")
        if key in _NOT_SETTINGS:
            raise InputError(f"{key} is not a setting; give it as --{key} VALUE.")
        if key not in known:
            raise InputError(
                f"The method {method} has no setting {key!r}; it has {', '.join(known)}."
            )
        settings[key] = _parse_value(key, text.strip(), hints[key])
    # The class checks the ranges, now rather than after the scans were read.
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
    raise InputError(f"The setting {key} takes {expected}, but {text!r} came.")


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "whole numbers with commas between" if get_args(kind)[0] is int else "numbers"
    names = {
        int: "a whole number", float: "a number", bool: "true or false", NoneType: "none",
        str: "a text",
    }  # fmt: skip
    return names.get(kind, str(kind))
