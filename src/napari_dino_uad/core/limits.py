"""Limits of what is read and computed, and the reasons for them.

They are far beyond any real scan. A damaged header gets a sentence here, before memory is taken.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence

from napari_dino_uad.core.errors import InputError

__all__ = [
    "FARTHEST_MM",
    "LARGEST_EDGE",
    "LARGEST_SPACING_MM",
    "LONGEST_HEADER",
    "MEMORY_SHARE",
    "MOST_ANISOTROPIC",
    "SMALLEST_SPACING_MM",
    "check_grid",
    "check_memory",
    "check_one_volume",
    "check_reading",
    "memory_limit",
    "needed_for_map",
    "total_memory",
]

#: Ten nanometres: finer than any light microscope.
SMALLEST_SPACING_MM = 1e-5

#: One metre: coarser than any scan.
LARGEST_SPACING_MM = 1e3

#: Ratio of the largest to the smallest edge of a voxel. A thick slice of a light microscope, of
#: 1 mm with pixels of 0.25 um, has 4000.
MOST_ANISOTROPIC = 1e4

#: One hundred metres: farther from the origin than any scanner's table. Single precision still
#: keeps hundredths of a mm there.
FARTHEST_MM = 1e5

#: Voxels along one axis. Whole-slide images have a few hundred thousand.
LARGEST_EDGE = 1 << 20

#: Bytes of a text header. Those of diffusion scans have some hundred kilobytes.
LONGEST_HEADER = 1 << 20

#: Share of the machine's memory that one step may take. The system and the viewer need the rest.
MEMORY_SHARE = 0.8

# Bytes of a voxel that reading holds at once beside those of the file: single precision, twice
# where NaN is replaced.
_READING_BYTES = 4

# Bytes of an input pixel: some batches of three channels, and what a network makes of one.
_INPUT_BYTES = 250

# Pixels of the input in a patch, at least, and bytes of a patch in the maps of all slices.
_PATCH_PIXELS = 64
_PATCH_BYTES = 16

# Bytes of a voxel beside its own: foreground, scores, findings and what is written of them.
_MAP_BYTES = 16

_GIB = 1 << 30


def memory_limit() -> int:
    """Return how many bytes one step may take on this machine."""
    return int(MEMORY_SHARE * total_memory())


def total_memory() -> int:
    """Return the machine's memory in bytes; 8 GiB where the system does not say."""
    if sys.platform == "win32":
        import ctypes

        names = ("total", "free", "a", "b", "c", "d", "e")

        class Status(ctypes.Structure):
            _fields_ = [
                ("length", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                *((name, ctypes.c_ulonglong) for name in names),
            ]

        status = Status(length=ctypes.sizeof(Status))
        known = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.total) if known else 8 * _GIB
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 8 * _GIB


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse work that needs more memory than the machine has.

    Parameters
    ----------
    needed : float
        Bytes.
    what : str
        Begins the sentence, such as "Reading scan.nii".
    advice : str
        What the user can do.

    Raises
    ------
    InputError
        If it is more than `memory_limit`.
    """
    limit = memory_limit()
    if needed > limit:
        raise InputError(
            f"{what} needs {needed / _GIB:.1f} GiB of memory, but at most {limit / _GIB:.1f} GiB "
            f"of this machine's memory are expected; {advice}."
        )


def needed_for_map(shape: Sequence[int], input_pixels: float) -> float:
    """Estimate the memory that input, patches and map of a scan need, in bytes.

    Parameters
    ----------
    shape : sequence of int
        (slices, rows, cols).
    input_pixels : float
        Pixels of the network's input for one slice.
    """
    slices, rows, cols = shape
    patches = input_pixels / _PATCH_PIXELS
    return (
        _INPUT_BYTES * input_pixels
        + _PATCH_BYTES * slices * patches
        + _MAP_BYTES * slices * rows * cols
    )


def check_reading(name: str, size: Sequence[int], value_bytes: float) -> None:
    """Refuse a size that no scan has, or that does not fit into memory.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    size : sequence of int
        Voxels along each axis.
    value_bytes : float
        Bytes of one voxel in the file, all its channels together.

    Raises
    ------
    InputError
        If an edge is out of range, or reading would take too much memory.
    """
    if not all(1 <= edge <= LARGEST_EDGE for edge in size):
        raise InputError(
            f"{name} has the size {' x '.join(map(str, size))} in its header, but edges of 1 to "
            f"{LARGEST_EDGE} voxels are expected; export the scan again."
        )
    check_memory(
        math.prod(size) * (value_bytes + _READING_BYTES),
        f"Reading {name} ({' x '.join(map(str, size))} voxels)",
        "export the scan again if it is smaller, or use a machine with more memory",
    )


def check_one_volume(name: str, size: Sequence[int]) -> None:
    """Refuse a series of volumes.

    Parameters
    ----------
    name : str
        For messages.
    size : sequence of int
        Along x, y, z and perhaps a fourth axis.

    Raises
    ------
    InputError
        If there are several volumes along a fourth axis.
    """
    if len(size) > 3 and size[3] > 1:
        raise InputError(
            f"{name} has four dimensions ({size[3]} volumes), but one volume is expected; save "
            "the one to look at to its own file."
        )


def check_grid(
    name: str,
    spacing: Sequence[float],
    origin: Sequence[float] = (),
    *,
    known: bool = True,
) -> None:
    """Refuse a spacing or an origin that no scan has.

    Parameters
    ----------
    name : str
        For messages.
    spacing, origin : sequence of float
        In mm, in any order of axes.
    known : bool
        Whether the spacing is in mm. If not, its ratio alone is checked.

    Raises
    ------
    InputError
        If a number is not finite or out of range.
    """
    text = " x ".join(f"{edge:g}" for edge in spacing)
    if not all(math.isfinite(edge) and edge > 0 for edge in spacing) or (
        known and not SMALLEST_SPACING_MM <= min(spacing) <= max(spacing) <= LARGEST_SPACING_MM
    ):
        raise InputError(
            f"{name} has a spacing of {text} mm in its header, but {SMALLEST_SPACING_MM:g} to "
            f"{LARGEST_SPACING_MM:g} mm are expected; correct the header or export the scan again."
        )
    if max(spacing) > MOST_ANISOTROPIC * min(spacing):
        raise InputError(
            f"{name} has voxels of {text} in its header, but edges that differ by a factor of at "
            f"most {MOST_ANISOTROPIC:g} are expected; correct the header or export the scan again."
        )
    if not all(abs(place) <= FARTHEST_MM for place in origin):
        raise InputError(
            f"{name} has its origin at {', '.join(f'{place:g}' for place in origin)} mm in its "
            f"header, but at most {FARTHEST_MM:g} mm are expected; correct the header or export "
            "the scan again."
        )
