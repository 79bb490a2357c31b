"""Strict schemas of stored settings. Imports pydantic, so import it inside functions."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    ValidationError,
    create_model,
    model_validator,
)

__all__ = ["Strict", "Whole", "explain", "whole"]

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Strict(BaseModel):
    """A schema that accepts only its own fields, in their own types, with finite numbers."""

    model_config = _STRICT


class Whole(Strict):
    """All fields of some dataclasses side by side, none of which may be missing.

    The dataclasses check the values when they are built, so each range is defined once.
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


def explain(error: ValidationError) -> str:
    """Return the first error that a schema found as a clause that names the field."""
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
