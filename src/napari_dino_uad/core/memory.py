"""Release of freed memory to the system between the stages of long work."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back"]


def give_back() -> None:
    """Return freed memory to the system, if the C library keeps it.

    glibc (Linux) keeps memory freed by threads, in pieces too small for large arrays: half a
    gigabyte after embedding a large CT. The call takes hundredths of a second. Other C libraries
    have no such function; there this does nothing.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
