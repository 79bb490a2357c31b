"""Declarations of a file's tensors (names, shapes, dtypes, values), and their check."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["TensorSpec", "check_tensors", "history_spec", "scoped", "unit_rows"]

#: A size in a shape: a number, or a symbol such as "K" or "2P".
Size = int | str


@dataclass(frozen=True)
class TensorSpec:
    """Declaration of one tensor.

    Attributes
    ----------
    shape : tuple of int or str
        Sizes. A symbol stands for one size of 1 or more, the same wherever it occurs; "2P" is
        twice the size P.
    dtype : str
        Name of the dtype in torch.
    least, most : float
        Bounds of the values. The defaults keep products in single precision from overflowing.
    above : float
        Exclusive lower bound of the values.
    finite : bool
        Whether NaN and infinities are refused.
    rule : callable, optional
        Takes the tensor and returns a clause that names the fault, or an empty text.
    """

    shape: tuple[Size, ...]
    dtype: str = "float32"
    least: float = -1e9
    most: float = 1e9
    above: float = -math.inf
    finite: bool = True
    rule: Callable[[torch.Tensor], str] | None = None


def scoped(prefix: str, specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Put a prefix before names and symbols, so that the symbols stand for their own sizes."""

    def own(size: Size) -> Size:
        return re.sub(r"^(\d*)", rf"\1{prefix}", size) if isinstance(size, str) else size

    return {
        prefix + name: replace(spec, shape=tuple(own(size) for size in spec.shape))
        for name, spec in specs.items()
    }


def check_tensors(specs: Mapping[str, TensorSpec], tensors: Mapping[str, torch.Tensor]) -> None:
    """Compare tensors with their declarations.

    Parameters
    ----------
    specs : dict of TensorSpec
        By name.
    tensors : dict of torch.Tensor
        By name.

    Raises
    ------
    ValueError
        If a tensor is missing, unknown or not as described. The message is a clause that names
        it, such as "the tensor means has the shape (3, 4), expected (K, 8)".
    """
    for name in specs:
        if name not in tensors:
            raise ValueError(f"the tensor {name} is missing")
    for name in tensors:
        if name not in specs:
            raise ValueError(f"the tensor {name[:80]} is unknown")
    sizes: dict[str, int] = {}
    for name, spec in specs.items():
        tensor = tensors[name]
        if str(tensor.dtype) != f"torch.{spec.dtype}":
            found = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"the tensor {name} is of {found}, expected {spec.dtype}")
        if not _fits(tuple(tensor.shape), spec.shape, sizes):
            wanted = ", ".join(_shown(size, sizes) for size in spec.shape)
            shape = ", ".join(map(str, tensor.shape))
            raise ValueError(f"the tensor {name} has the shape ({shape}), expected ({wanted})")
    for name, spec in specs.items():
        wrong = _wrong_values(tensors[name], spec)
        if wrong:
            raise ValueError(f"the tensor {name} {wrong}")


def _split(size: str) -> tuple[int, str]:
    """Return factor and symbol of a size such as "2P"."""
    digits = len(size) - len(size.lstrip("0123456789"))
    return int(size[:digits] or 1), size[digits:]


def _fits(found: tuple[int, ...], wanted: tuple[Size, ...], sizes: dict[str, int]) -> bool:
    """Return whether a shape matches; new symbols take their sizes from it."""
    if len(found) != len(wanted):
        return False
    for here, size in zip(found, wanted, strict=True):
        if isinstance(size, int):
            if here != size:
                return False
            continue
        factor, symbol = _split(size)
        if here < 1 or here != factor * sizes.setdefault(symbol, here // factor):
            return False
    return True


def _shown(size: Size, sizes: Mapping[str, int]) -> str:
    if isinstance(size, int):
        return str(size)
    factor, symbol = _split(size)
    if symbol in sizes:
        return str(factor * sizes[symbol])
    return f"{'' if factor == 1 else factor}{symbol.rpartition('.')[2]}"


def _wrong_values(tensor: torch.Tensor, spec: TensorSpec) -> str:
    """Return a clause that names the fault in a tensor's values, or an empty text."""
    import torch

    if tensor.numel() == 0:
        return "is empty"
    if not spec.finite:
        return "" if spec.rule is None else spec.rule(tensor)
    if not bool(torch.isfinite(tensor).all()):
        return "holds values that are not finite"
    low, high = (float(value) for value in torch.aminmax(tensor))
    if low < spec.least or low <= spec.above or high > spec.most:
        bound = f"above {spec.above:g}" if spec.above > -math.inf else f"{spec.least:g} or more"
        return (
            f"holds values from {low:.4g} to {high:.4g}, expected {bound} and at most {spec.most:g}"
        )
    return "" if spec.rule is None else spec.rule(tensor)


def unit_rows(tensor: torch.Tensor) -> str:
    """Rule: the rows of a matrix have unit length, up to the rounding of half precision."""
    import torch

    lengths = torch.linalg.vector_norm(tensor.float(), dim=1)
    return "" if bool(((lengths - 1).abs() < 1e-2).all()) else "has rows that are not of length 1"


def history_spec(best_epoch: int) -> TensorSpec:
    """Declare the losses of all epochs.

    The loss of a failed epoch may not be finite; no score depends on it.
    """

    def has_best(history: torch.Tensor) -> str:
        if len(history) >= best_epoch:
            return ""
        return f"has {len(history)} epochs, but the best is epoch {best_epoch}"

    return TensorSpec(("E",), finite=False, rule=has_best)
