"""The settings of a normative model, read back from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.methods import find_method

__all__ = ["read_config"]


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
    from pydantic import ValidationError

    from napari_dino_uad.core.storage.schema import explain, whole

    schema = whole(*find_method(method).model_class().saved)
    try:
        return schema.model_validate_json(json.dumps(config)).made
    except ValidationError as error:
        raise InputError(where + explain(error)) from error
