"""One safe file for each fitted model: safetensors, with everything else as JSON in its header.

Never pickle: a model from a colleague must not be able to run code.
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
from napari_dino_uad.core.normative.base import tensors_under
from napari_dino_uad.core.normative.context import Context
from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.slices import Preprocessing

__all__ = ["FORMAT_VERSION", "load_model", "save_model"]

FORMAT_VERSION = 3
_HEADER = "napari_dino_uad"
_CALIBRATIONS = ("calibration", "levels")


def save_model(model: FittedModel, path: Path | str) -> None:
    """Write a model to a `.safetensors` file, under a temporary name first.

    Parameters
    ----------
    model : FittedModel
        The model.
    path : path
        Where to; its folder is made if need be.

    Raises
    ------
    InputError
        If the name does not end in `.safetensors`.
    """
    import torch
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"A model file ends in .safetensors, but {path.name} came.")
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.safetensors")
    try:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(header)})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no model file at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path.name} is damaged or no safetensors file; expected a model that "
            "napari-dino-uad saved."
        ) from error
    if _HEADER not in metadata:
        raise InputError(
            f"{path.name} holds tensors but no napari-dino-uad model; choose a file that Fit saved."
        )
    header: dict[str, Any] = json.loads(metadata[_HEADER])
    _check_version(header["format_version"], path.name)
    views = tuple(
        View(
            preprocessing=Preprocessing.from_dict(view["preprocessing"]),
            normative=_restore(
                header["method"],
                view["config"],
                tensors_under(f"views.{number}.", tensors),
                path.name,
            ),
            scale=ScoreScale(**view["scale"]),
            prototypes=tensors[f"prototypes.{number}"].float(),
        )
        for number, view in enumerate(header["views"])
    )
    calibrations = {
        kind: Calibration(
            **{name: one.numpy() for name, one in tensors_under(f"{kind}.", tensors).items()},
            pixels=header["pixels"][kind],
        )
        for kind in _CALIBRATIONS
    }
    return FittedModel(
        views=views,
        backbone_key=header["backbone"]["key"],
        backbone_sha256=header["backbone"]["sha256"],
        context=Context(**header["context"]),
        maps=MapSettings(**header["maps"]),
        **calibrations,
        cohort=header["cohort"],
        versions=header["versions"],
    )


def _check_version(version: int, name: str) -> None:
    if version > FORMAT_VERSION:
        raise InputError(
            f"{name} was written by a newer version (format {version}, "
            f"this one reads format {FORMAT_VERSION}); update napari-dino-uad."
        )
    if version < FORMAT_VERSION:
        raise InputError(
            f"{name} was written before the first release (format {version}, this one reads "
            f"format {FORMAT_VERSION}), when scores meant something else; fit the model again."
        )


def _restore(method: str, config: dict[str, Any], tensors: dict[str, Any], name: str) -> Any:
    if method not in METHODS:
        raise InputError(
            f"{name} holds a model of the unknown kind {method!r}; update napari-dino-uad."
        )
    return METHODS[method].model_class().restore(config, tensors)
