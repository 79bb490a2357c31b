"""Safetensors files; the header is checked before the library and torch see it."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.storage.strict_json import parse_json

if TYPE_CHECKING:
    import torch

__all__ = ["checksum", "is_whole", "read_tensors", "write_tensors"]

# Maximum bytes of a header; the largest backbone needs less than 100,000.
_LARGEST_HEADER = 4_000_000

# Bytes per number, for the types that torch reads on every system.
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
        Whether to copy the tensors to memory of their own. Mapped tensors change with the file,
        and their alignment in it changes the last digit of results.

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
        If it is not a valid safetensors file. The message is a clause such as "it is cut off".
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
    """Read the header, and check that the tensors fill the file without overlap."""
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


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file.

    Parameters
    ----------
    path : Path
        A file in a temporary folder of `staged`.
    tensors : dict of torch.Tensor
        By name; contiguous, and none shares memory with another.
    metadata : dict of str
        Text by name.

    Raises
    ------
    OSError
        If the disk is full or broken. The library raises an error of its own for this.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # The library makes the file readable by its owner only; a model gets the usual permissions.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata=metadata)
        path.chmod(mode)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error


def checksum(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the checksum of tensors and of a header without its own checksum.

    It is SHA-256 over the header's values, however the JSON is laid out, and the names, dtypes,
    shapes and bytes of the tensors.
    """
    import torch

    rest = {name: value for name, value in header.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"
