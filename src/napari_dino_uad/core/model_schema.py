"""The schema of a model file's header. Imports pydantic, so import it inside functions."""

from __future__ import annotations

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
from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.slices.preprocessing import Preprocessing
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

    format_version: Literal[3, 4]
    method: Literal[tuple(METHODS)]  # type: ignore[valid-type]
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
        return self


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
    kind = METHODS[header.method].model_class()
    specs: dict[str, TensorSpec] = {}
    for number, view in enumerate(header.views):
        saved = read_config(header.method, view.config, f"views.{number}.config.")
        specs |= scoped(f"views.{number}.", kind.described(saved, channels))
        shape = (f"prototypes{number}", channels)
        specs[f"prototypes.{number}"] = TensorSpec(shape, "float16", rule=unit_rows)
    for name in type(header.pixels).model_fields:
        specs |= scoped(f"{name}.", Calibration.described(getattr(header.pixels, name)))
    check_tensors(specs, tensors)
