"""One safe file for each fitted model: safetensors, with everything else as JSON in its header.

Never pickle: a model from a colleague must not be able to run code. The checksum, the header and
the tensors are checked before anything is built from a file.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.model import FittedModel, View
from napari_dino_uad.core.model_schema import (
    ModelHeader,
    check_model,
    checksum,
    read_header,
)
from napari_dino_uad.core.normative.base import tensors_under
from napari_dino_uad.core.normative.methods import KNOWN
from napari_dino_uad.core.storage.atomic import staged, writing
from napari_dino_uad.core.storage.strict_json import parse_json
from napari_dino_uad.core.storage.tensor_file import read_tensors, write_tensors

__all__ = ["FORMAT_VERSION", "load_model", "model_checksum", "save_model"]

FORMAT_VERSION = 7

# This format compared the brightness of both sides by another formula; those before, not at all.
_OTHER_BRIGHTNESS = 5
# Format 3 has no checksum; `model_schema` adds the settings that formats before 7 do not hold.
_OLDEST_VERSION = 3
_HEADER = "napari_dino_uad"
_CALIBRATIONS = ("calibration", "levels")
# Where a model comes from, on which no score depends.
_HISTORY = ("cohort", "versions")


def save_model(model: FittedModel, path: Path | str) -> None:
    """Write a model to a `.safetensors` file, whole or not at all.

    Parameters
    ----------
    model : FittedModel
        The model.
    path : path
        File to write; its folder is created if needed.

    Raises
    ------
    InputError
        If the name does not end in `.safetensors`, `load_model` would refuse a number of the
        model, or the file cannot be written.

    Examples
    --------
    >>> model = load_model("model.safetensors")
    >>> save_model(model, "copy.safetensors")
    >>> load_model("copy.safetensors").backbone_key == model.backbone_key
    True
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"Expected a name that ends in .safetensors, got {path.name}; change it.")
    header, tensors = _content(model)
    header["checksum"] = checksum(header, tensors)
    try:
        check_model(read_header(header), tensors)
    except ValueError as error:
        raise InputError(
            f"The model cannot be saved, since it would not load again: {_clause(error)}; fit it "
            "with other settings or scans."
        ) from error
    with writing(path), staged(path.parent) as partial:
        write_tensors(partial / path.name, tensors, {_HEADER: json.dumps(header)})


def model_checksum(model: FittedModel) -> str:
    """Return a checksum of everything that the scores of a model depend on.

    It is the same for a model and for its file loaded again.
    """
    header, tensors = _content(model)
    return checksum({key: header[key] for key in header if key not in _HISTORY}, tensors)


def _content(model: FittedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header of a model's file, without its checksum, and its tensors."""
    import torch

    header = {
        "format_version": FORMAT_VERSION,
        "method": model.normative.method,
        "views": [
            {
                "preprocessing": view.preprocessing.to_dict(),
                "config": view.normative.config(),
                "scale": dataclasses.asdict(view.scale),
            }
            for view in model.views
        ],
        "backbone": {"key": model.backbone_key, "sha256": model.backbone_sha256},
        "context": dataclasses.asdict(model.context),
        "maps": dataclasses.asdict(model.maps),
        "pixels": {name: getattr(model, name).pixels for name in _CALIBRATIONS},
        "cohort": model.cohort,
        "versions": model.versions,
    }
    tensors = {
        f"views.{number}.{name}": tensor.contiguous()
        for number, view in enumerate(model.views)
        for name, tensor in view.normative.tensors().items()
    }
    for number, view in enumerate(model.views):
        tensors[f"prototypes.{number}"] = view.prototypes.half().contiguous()
    for kind in _CALIBRATIONS:
        for name, array in getattr(model, kind).tensors().items():
            tensors[f"{kind}.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    return json.loads(json.dumps(header)), tensors


def load_model(path: Path | str) -> FittedModel:
    """Read a model file.

    Parameters
    ----------
    path : path
        A file that `save_model` wrote.

    Returns
    -------
    FittedModel

    Raises
    ------
    InputError
        If the file is missing, damaged, foreign or of another version.

    Examples
    --------
    >>> model = load_model("model.safetensors")
    >>> model.calibration.threshold(0.05) < model.calibration.threshold(0.01)
    True
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no model file at {path}.")
    try:
        metadata, tensors = read_tensors(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected a model that napari-dino-uad saved, but {path.name} is damaged or another "
            f"kind of file: {_clause(error)}; choose another file, or copy it again."
        ) from error
    if _HEADER not in metadata:
        raise InputError(
            f"{path.name} has tensors but no napari-dino-uad model; choose a file that Fit saved."
        )
    try:
        raw = parse_json(metadata[_HEADER])
    except ValueError as error:
        raise InputError(
            f"Expected a model, but the header of {path.name} is damaged: {_clause(error)}; copy "
            "the file again."
        ) from error
    _check_version(raw, path.name)
    _check_sum(raw, tensors, path.name)
    try:
        header = read_header(raw)
        _check_brightness(header, path.name)
        check_model(header, tensors)
    except ValueError as error:
        raise InputError(
            f"{path.name} does not describe a model: {_clause(error)}; get the file again, or "
            "fit the model again."
        ) from error
    return dataclasses.replace(_build(header, tensors), path=path)


def _check_brightness(header: ModelHeader, name: str) -> None:
    """Refuse a model whose calibration belongs to another comparison of brightness."""
    compared = any(view.scale.made[0].brightness > 0 for view in header.views)
    if compared and header.format_version == _OTHER_BRIGHTNESS:
        raise InputError(
            f"{name} compares the brightness of both sides as an earlier version did (format "
            f"{header.format_version}, this one writes format {FORMAT_VERSION}), and its "
            "thresholds would not hold any more; fit the model again."
        )


def _build(header: ModelHeader, tensors: dict[str, Any]) -> FittedModel:
    """Build a model from a checked header and tensors."""
    kind = KNOWN[header.method].model_class()
    views = tuple(
        View(
            preprocessing=view.preprocessing.made[0],
            normative=kind.restore(view.config, tensors_under(f"views.{number}.", tensors)),
            scale=view.scale.made[0],
            prototypes=tensors[f"prototypes.{number}"].float(),
        )
        for number, view in enumerate(header.views)
    )
    calibrations = {
        name: Calibration(
            **{key: one.numpy() for key, one in tensors_under(f"{name}.", tensors).items()},
            pixels=getattr(header.pixels, name),
        )
        for name in _CALIBRATIONS
    }
    return FittedModel(
        views=views,
        backbone_key=header.backbone.key,
        backbone_sha256=header.backbone.sha256,
        context=header.context.made[0],
        maps=header.maps.made[0],
        calibration=calibrations["calibration"],
        levels=calibrations["levels"],
        cohort=header.cohort.model_dump(),
        versions=dict(header.versions),
    )


def _check_version(header: Any, name: str) -> None:
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is not int:
        raise InputError(
            f"{name} does not describe a model: expected a whole number as its format_version, got "
            f"{str(version)[:40]}; get the file again, or fit the model again."
        )
    if version > FORMAT_VERSION:
        raise InputError(
            f"{name} was written by a newer version (format {version}, "
            f"this one reads format {FORMAT_VERSION}); update napari-dino-uad."
        )
    if version < _OLDEST_VERSION:
        raise InputError(
            f"{name} was written before the first release (format {version}, this one reads "
            f"format {FORMAT_VERSION}), when scores meant something else; fit the model again."
        )


def _check_sum(header: dict[str, Any], tensors: dict[str, Any], name: str) -> None:
    """Refuse a file that has changed since it was saved; format 3 has no checksum."""
    stored = header.get("checksum")
    if header["format_version"] == _OLDEST_VERSION and "checksum" not in header:
        return
    if stored is None or header["format_version"] == _OLDEST_VERSION:
        raise InputError(
            f"{name} does not describe a model: a file of format {header['format_version']} has "
            f"{'a' if stored is None else 'no'} checksum; get the file again, or fit the model "
            "again."
        )
    if stored != checksum(header, tensors):
        raise InputError(
            f"{name} is damaged: it is not as it was saved; copy the file again, "
            "or fit the model again."
        )


def _clause(error: Exception) -> str:
    """Return the message of an error in one line, without a full stop."""
    return " ".join(str(error).split()).rstrip(".")[:400]
