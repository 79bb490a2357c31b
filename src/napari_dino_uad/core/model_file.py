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
from napari_dino_uad.core.model import FittedModel
from napari_dino_uad.core.normative.context import Context
from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.slices import Preprocessing

__all__ = ["FORMAT_VERSION", "load_model", "save_model"]

FORMAT_VERSION = 1
_HEADER = "napari_dino_uad"


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
        "config": model.normative.config(),
        "backbone": {"key": model.backbone_key, "sha256": model.backbone_sha256},
        "preprocessing": model.preprocessing.to_dict(),
        "context": dataclasses.asdict(model.context),
        "smoothing_mm": model.smoothing_mm,
        "calibration_pixels": model.calibration.pixels,
        "cohort": model.cohort,
        "versions": model.versions,
    }
    tensors = {
        f"normative.{name}": tensor.contiguous()
        for name, tensor in model.normative.tensors().items()
    }
    tensors["calibration.rates"] = torch.from_numpy(np.ascontiguousarray(model.calibration.rates))
    tensors["calibration.scores"] = torch.from_numpy(np.ascontiguousarray(model.calibration.scores))
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
        If the file is missing, damaged, foreign or of a newer version.
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
    if header["format_version"] > FORMAT_VERSION:
        raise InputError(
            f"{path.name} was written by a newer version (format {header['format_version']}, "
            f"this one reads up to {FORMAT_VERSION}); update napari-dino-uad."
        )
    return FittedModel(
        normative=_restore(header["method"], header["config"], tensors, path.name),
        backbone_key=header["backbone"]["key"],
        backbone_sha256=header["backbone"]["sha256"],
        preprocessing=Preprocessing.from_dict(header["preprocessing"]),
        context=Context(**header["context"]),
        smoothing_mm=header["smoothing_mm"],
        calibration=Calibration(
            rates=tensors["calibration.rates"].numpy(),
            scores=tensors["calibration.scores"].numpy(),
            pixels=header["calibration_pixels"],
        ),
        cohort=header["cohort"],
        versions=header["versions"],
    )


def _restore(method: str, config: dict[str, Any], tensors: dict[str, Any], name: str) -> Any:
    if method not in METHODS:
        raise InputError(
            f"{name} holds a model of the unknown kind {method!r}; update napari-dino-uad."
        )
    prefix = "normative."
    own = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    return METHODS[method].model_class().restore(config, own)
