"""The schema of a model file's header. Imports pydantic, so import it inside functions."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from napari_dino_uad.core.backbones.table import BackboneSpec, backbone_spec
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.maps.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.normative.config import read_config
from napari_dino_uad.core.normative.methods import KNOWN
from napari_dino_uad.core.slices.preprocessing import LATER, Preprocessing
from napari_dino_uad.core.storage.schema import Strict, explain, whole
from napari_dino_uad.core.storage.tensor_file import checksum
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, check_tensors, scoped, unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = [
    "ModelHeader",
    "check_model",
    "checksum",
    "read_header",
]

# What files of formats 3 and 4 do not hold, with the values that score as they did.
_MAPS_BEFORE_5 = {"lesions": "none", "level": 50.0, "spread": 0.0}
# The same for formats before 7.
_MAPS_BEFORE_7 = {"level_limit": 0.0}
_SCALE_BEFORE_5 = {"brightness_deviation": 1.0, "brightness": 0.0}
_NETWORK_BEFORE_5 = {"whitening_power": 1.0, "root": False}
_MIXTURE_BEFORE_5 = {"held_out_share": 0.0}

Text = Annotated[str, StringConstraints(max_length=200)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class ViewHeader(Strict):
    """The part of the header for one plane."""

    preprocessing: whole(Preprocessing)  # type: ignore[valid-type]
    config: dict[str, Any]
    scale: whole(ScoreScale)  # type: ignore[valid-type]


class BackboneHeader(Strict):
    """The backbone that a model was fitted on."""

    key: Name
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _known(self) -> BackboneHeader:
        if backbone_spec(self.key).key != self.key:
            raise ValueError(f"the backbone {self.key!r} is not written as {self.spec.key!r}")
        return self

    @property
    def spec(self) -> BackboneSpec:
        """The backbone's row of the table."""
        return backbone_spec(self.key)


class PixelsHeader(Strict):
    """Numbers of healthy pixels in the calibrations."""

    calibration: Annotated[Count, Field(ge=1)]
    levels: Annotated[Count, Field(ge=1)]


class CohortHeader(Strict):
    """The cohort that a model was fitted on."""

    scans: Count
    validation_scans: Count
    slices: Count
    validation_slices: Count
    date: Text
    seed: Count
    engine: Text


class ModelHeader(Strict):
    """Everything in a model file besides its tensors.

    Attributes
    ----------
    checksum : str or None
        From `checksum`; None in files of format 3, which have none.
    """

    format_version: Literal[3, 4, 5, 6, 7]
    method: Literal[tuple(KNOWN)]  # type: ignore[valid-type]
    views: Annotated[list[ViewHeader], Field(min_length=1, max_length=3)]
    backbone: BackboneHeader
    context: whole(Context)  # type: ignore[valid-type]
    maps: whole(MapSettings)  # type: ignore[valid-type]
    pixels: PixelsHeader
    cohort: CohortHeader
    versions: Annotated[dict[Name, Text], Field(max_length=50)]
    checksum: Text | None = None

    @model_validator(mode="after")
    def _agree(self) -> ModelHeader:
        planes = [view.preprocessing.plane for view in self.views]
        if len(set(planes)) < len(planes):
            raise ValueError(f"the plane {planes[0]} is named twice")
        asked = self.maps.symmetry
        for view, plane in zip(self.views, planes, strict=True):
            wanted = 0.0 if plane == "sagittal" else asked
            if wanted is not None and view.scale.symmetry != wanted:
                raise ValueError(
                    f"the weight of symmetry in the {plane} plane is {view.scale.symmetry:g}, "
                    f"expected {wanted:g}"
                )
            compared = self.maps.lesions != "none" and view.scale.symmetry > 0
            if view.scale.brightness > 0 and not compared:
                raise ValueError(
                    f"the weight of brightness in the {plane} plane is "
                    f"{view.scale.brightness:g}, expected 0"
                )
        return self


def _upgraded(header: dict[str, Any]) -> dict[str, Any]:
    """Return the header of an older file with the settings that it does not hold.

    Their values are those that score as before.
    """
    views = []
    for view in header["views"]:
        config = dict(view["config"])
        if "member_configs" in config:
            config["member_configs"] = {
                name: _of_method(one) for name, one in config["member_configs"].items()
            }
        views.append(
            {**view, "config": _of_method(config), "scale": {**_SCALE_BEFORE_5, **view["scale"]}}
        )
    return {**header, "views": views, "maps": {**_MAPS_BEFORE_5, **header["maps"]}}


def _with_later(view: dict[str, Any]) -> dict[str, Any]:
    """Return a view with the settings that files hold only where they are not the usual ones."""
    return {**view, "preprocessing": {**LATER, **view["preprocessing"]}}


def _of_method(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a method with what format 5 added to them."""
    if "position_map" in config:
        return {**_NETWORK_BEFORE_5, **config}
    return {**_MIXTURE_BEFORE_5, **config} if "prior_patches" in config else config


def read_header(header: dict[str, Any]) -> ModelHeader:
    """Validate the header of a model file.

    Parameters
    ----------
    header : dict
        Plain values, as JSON gives them.

    Raises
    ------
    ValueError
        If it does not describe a model. The message is a clause that names the field.
    """
    # A header that cannot be upgraded is wrong, and the schema says where.
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        if header.get("format_version") in (3, 4):
            header = _upgraded(header)
        if header.get("format_version") in range(3, 7):
            header = {**header, "maps": {**_MAPS_BEFORE_7, **header["maps"]}}
        header = {**header, "views": [_with_later(view) for view in header["views"]]}
    try:
        return ModelHeader.model_validate_json(json.dumps(header))
    except ValidationError as error:
        raise ValueError(explain(error)) from error


def check_model(header: ModelHeader, tensors: Mapping[str, torch.Tensor]) -> None:
    """Validate the settings and tensors of a model, before anything is built from them.

    Parameters
    ----------
    header : ModelHeader
        Valid in itself.
    tensors : dict of torch.Tensor
        As in the file.

    Raises
    ------
    ValueError
        If they do not describe a model. The message is a clause that names the field or tensor.
    """
    channels = header.backbone.spec.dimension
    kind = KNOWN[header.method].model_class()
    specs: dict[str, TensorSpec] = {}
    for number, view in enumerate(header.views):
        saved = read_config(header.method, view.config, f"views.{number}.config.")
        specs |= scoped(f"views.{number}.", kind.described(saved, channels))
        shape = (f"prototypes{number}", channels)
        specs[f"prototypes.{number}"] = TensorSpec(shape, "float16", rule=unit_rows)
    for name in type(header.pixels).model_fields:
        specs |= scoped(f"{name}.", Calibration.described(getattr(header.pixels, name)))
    check_tensors(specs, tensors)
