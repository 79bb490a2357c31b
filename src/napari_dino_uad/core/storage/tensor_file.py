"""Safetensors files, whose header is checked before the library and torch see it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.storage.strict_json import parse_json

if TYPE_CHECKING:
    import torch

__all__ = ["is_whole", "read_tensors"]

# Bytes of a header: that of the largest backbone has less than 100,000.
_LARGEST_HEADER = 4_000_000

# Bytes of a number, of the types that torch reads everywhere.
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip


def read_tensors(path: Path, owned: bool = True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Read a safetensors file.

    Parameters
    ----------
    path : Path
        A regular file.
    owned : bool
        Whether the tensors are copied to memory of their own. Mapped ones change with the file,
        and where they begin in it changes the last digit of what is computed with them.

    Returns
    -------
    metadata : dict of str
        Text by name.
    tensors : dict of torch.Tensor
        By name.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no sound safetensors file. The message is a clause such as "it is cut off".
    """
    from safetensors import SafetensorError, safe_open

    header = _read_header(path)
    metadata = header.get("__metadata__", {})
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}
            if owned:
                found = {name: tensor.clone() for name, tensor in found.items()}
    except (SafetensorError, RuntimeError) as error:
        raise ValueError("its header does not describe its tensors") from error
    return metadata, found


def is_whole(path: Path) -> bool:
    """Return whether a safetensors file exists and its tensors fill it as its header says."""
    try:
        if path.is_file():
            _read_header(path)
            return True
    except (OSError, ValueError):
        pass
    return False


def _read_header(path: Path) -> dict[str, Any]:
    """Read the description of the tensors, and see that they fill the file without overlap."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER:
            raise ValueError(f"its header would have {length:,} bytes")
        text = file.read(length)
        rest = path.stat().st_size - 8 - length
    if length == 0 or rest < 0:
        raise ValueError("it is cut off")
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("its header does not name tensors")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are not texts by name")
    spans = sorted(_span(name, one) for name, one in header.items() if name != "__metadata__")
    position = 0
    for start, end, name in spans:
        if start != position:
            raise ValueError(f"its tensor {name[:80]!r} does not begin where the one before ends")
        position = end
    if position != rest:
        raise ValueError(f"its tensors have {position:,} bytes and the file holds {rest:,} of them")
    return header


def _span(name: str, described: Any) -> tuple[int, int, str]:
    """Return the first byte of a tensor, the one after its last, and its name."""
    short = name[:80]
    if not isinstance(described, dict) or set(described) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its tensor {short!r} has no dtype, shape and offsets")
    dtype, shape, offsets = (described[key] for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise ValueError(f"its tensor {short!r} is of the unknown dtype {str(dtype)[:40]}")
    for values in (shape, offsets):
        if not isinstance(values, list) or any(type(v) is not int or v < 0 for v in values):
            raise ValueError(f"its tensor {short!r} has no valid shape and offsets")
    if len(offsets) != 2 or offsets[1] - offsets[0] != _BYTES[dtype] * math.prod(shape):
        raise ValueError(f"its tensor {short!r} does not have the bytes that its shape needs")
    return offsets[0], offsets[1], name
