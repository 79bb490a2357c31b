"""Giving memory back between the stages of long work."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back"]


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it.

    That of Linux (glibc) keeps what threads have freed, in pieces that no large array fits into:
    after the embedding of a large CT half a gigabyte. It takes hundredths of a second. Other C
    libraries have no such function, and nothing is done there.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
