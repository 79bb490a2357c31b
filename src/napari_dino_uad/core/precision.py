"""The precision that a network computes in."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["PRECISIONS", "Precision", "computing_dtype", "native_bfloat16"]

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16")


def native_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware supports matrix products in bfloat16."""
    if device.type == "cpu":
        check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(check and check())
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def computing_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the data type for matrix products.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
        "auto" is bfloat16 if `native_bfloat16` holds, otherwise float32.
    device : torch.device
        Device of the products.
    """
    if precision == "auto":
        return torch.bfloat16 if native_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
