"""What the header of a model file must say. Imports pydantic, so import it inside functions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    create_model,
    model_validator,
)

from napari_dino_uad.core.backbone_table import BackboneSpec, backbone_spec
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.context import Context
from napari_dino_uad.core.normative.methods import METHODS, find_method
from napari_dino_uad.core.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.slices import Preprocessing
from napari_dino_uad.core.tensor_schema import TensorSpec, check_tensors, scoped, unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = [
    "ModelHeader",
    "check_model",
    "checksum",
    "explain",
    "read_config",
    "read_header",
    "whole",
]

Text = Annotated[str, StringConstraints(max_length=200)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class _Strict(BaseModel):
    """Fields of exactly these names and types, and finite numbers."""

    model_config = _STRICT


class Whole(_Strict):
    """All fields of some dataclasses side by side, none of which may be missing.

    The dataclasses check the values when they are made, so that a range stands in one place.
    """

    parts: ClassVar[tuple[type[Any], ...]] = ()
    _made: tuple[Any, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _make(self) -> Whole:
        self._made = tuple(
            part(**{one.name: getattr(self, one.name) for one in dataclasses.fields(part)})
            for part in self.parts
        )
        return self

    @property
    def made(self) -> tuple[Any, ...]:
        """The dataclasses, in the order of `parts`."""
        return self._made


_schemas: dict[tuple[type[Any], ...], type[Whole]] = {}


def whole(*parts: type[Any]) -> type[Whole]:
    """Return the schema of dataclasses whose fields stand side by side in a file."""
    if parts in _schemas:
        return _schemas[parts]
    fields: dict[str, Any] = {}
    for part in parts:
        hints = get_type_hints(part, include_extras=True)
        fields |= {one.name: (hints[one.name], ...) for one in dataclasses.fields(part)}
    schema: Any = create_model(parts[0].__name__, __base__=Whole, **fields)
    schema.parts = parts
    _schemas[parts] = schema
    return _schemas[parts]


class ViewHeader(_Strict):
    """What stands in the header for one plane."""

    preprocessing: whole(Preprocessing)  # type: ignore[valid-type]
    config: dict[str, Any]
    scale: whole(ScoreScale)  # type: ignore[valid-type]


class BackboneHeader(_Strict):
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
        """Its row of the table."""
        return backbone_spec(self.key)


class PixelsHeader(_Strict):
    """Healthy pixels that the calibrations rest on."""

    calibration: Annotated[Count, Field(ge=1)]
    levels: Annotated[Count, Field(ge=1)]


class CohortHeader(_Strict):
    """What a model was fitted on."""

    scans: Count
    validation_scans: Count
    slices: Count
    validation_slices: Count
    date: Text
    seed: Count
    engine: Text


class ModelHeader(_Strict):
    """All that a model file says besides its tensors.

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


def read_config(method: str, config: Mapping[str, Any], where: str = "") -> tuple[Any, ...]:
    """Validate what the header says of one normative model.

    Parameters
    ----------
    method : str
        A key of `METHODS`.
    config : dict
        What the model's `config` gave, after JSON.
    where : str
        Where it stands, for messages; ends in a dot.

    Returns
    -------
    tuple
        The dataclasses that the model's class names in `saved`.

    Raises
    ------
    InputError
        If a field is missing, unknown, of another type or out of its range.
    """
    schema = whole(*find_method(method).model_class().saved)
    try:
        return schema.model_validate_json(json.dumps(config)).made
    except ValidationError as error:
        raise InputError(where + explain(error)) from error


def check_model(header: ModelHeader, tensors: Mapping[str, torch.Tensor]) -> None:
    """Validate the settings and the tensors of a model, before anything is built of them.

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


def checksum(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the checksum of a header, but for its own checksum, and of tensors.

    It is SHA-256 over the header's values, however the JSON is laid out, and the names, dtypes,
    shapes and bytes of the tensors.
    """
    import torch

    said = {name: value for name, value in header.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


def explain(error: ValidationError) -> str:
    """Put the first thing that a schema found wrong in a clause that names the field."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))[:120]
    kind, given = first["type"], repr(first["input"])[:60]
    if kind == "missing":
        return f"{where} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where} is unknown"
    if kind == "value_error":
        told = str(first["ctx"]["error"]).rstrip(".")
        return f"{where}: {told}" if where else told
    told = first["msg"].replace("Input should", "expected").replace("expected be", "expected")
    return f"{where}: {told[0].lower()}{told[1:]}, got {given}"
