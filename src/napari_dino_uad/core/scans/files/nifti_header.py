"""Headers of NIfTI files, checked before SimpleITK decodes the file.

Its decoder trusts the sizes and types in the header, and some make it write beyond its memory.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_one_volume, check_reading
from napari_dino_uad.core.scans.files.integrity import damaged, wrong_length

__all__ = ["HEADER_BYTES", "NiftiHeader", "check_nifti_length", "read_nifti_header"]

#: Includes the four bytes that announce extensions.
HEADER_BYTES = 352

# Bits of a voxel, by the code of its type.
_BITS = {
    2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64,
    128: 24, 2304: 32,
}  # fmt: skip
_COLOUR = (128, 2304)
_COMPLEX = (32, 1792, 2048)


@dataclass(frozen=True)
class NiftiHeader:
    """Expected length of an unpacked NIfTI file.

    Attributes
    ----------
    start : int
        Bytes before the voxels.
    body : int
        Bytes of the voxels.
    """

    start: int
    body: int


def check_nifti_length(path: Path, name: str) -> None:
    """Refuse an unpacked NIfTI file with a damaged header or another length than the header gives.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If it is truncated, too long, damaged or NIfTI-2.
    """
    with path.open("rb") as file:
        header = read_nifti_header(file, name)
    found = path.stat().st_size - header.start
    if found != header.body:
        raise wrong_length(name, header.body, found)


def read_nifti_header(file: BinaryIO, name: str) -> NiftiHeader:
    """Read and check the header of a NIfTI-1 file.

    Parameters
    ----------
    file : binary file
        Positioned at its start; afterwards after the header.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If it is damaged, of another version, or not supported.
    """
    header = file.read(HEADER_BYTES)
    if header[4:7] == b"n+2":
        raise InputError(
            f"{name} is a NIfTI-2 file, but NIfTI-1 is expected; save it as NIfTI-1, NRRD or MHA."
        )
    if len(header) < HEADER_BYTES:
        raise damaged(name)
    order = {b"\x5c\x01\0\0": "<", b"\0\0\x01\x5c": ">"}.get(header[:4])
    if order is None or header[344:348] != b"n+1\0":
        raise InputError(
            f"{name} cannot be read as an image; expected a NIfTI-1 file of one part, whole and "
            "undamaged."
        )

    def field(form: str, start: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + form, header, start)

    sizes = _sizes(name, field("8h", 40))
    bits = _bits(name, *field("2h", 70))
    start = _start(name, field("f", 108)[0])
    _check_scale(name, field("2f", 112), colour=bits == 24)
    _check_geometry(name, field, len(sizes))
    check_one_volume(name, sizes)
    check_reading(name, sizes[:4], bits / 8 + 4)
    return NiftiHeader(start, math.prod(sizes) * bits // 8)


def _sizes(name: str, dimensions: tuple[int, ...]) -> list[int]:
    count, *sizes = dimensions
    if not 1 <= count <= 7:
        raise _wrong(name, f"{count} dimensions")
    # Some programs write 0 if there is no time axis.
    sizes = [max(size, 1) if axis > 2 and size == 0 else size for axis, size in enumerate(sizes)]
    sizes = sizes[:count]
    text = " x ".join(map(str, sizes))
    if min(sizes) < 1:
        raise _wrong(name, f"the size {text}")
    if any(size > 1 for size in sizes[5:]):
        raise InputError(
            f"{name} has {count} dimensions ({text}), but 2 or 3 are expected; save one volume of "
            "it to its own file."
        )
    if len(sizes) > 4 and sizes[4] > 1:
        raise InputError(
            f"{name} has {sizes[4]} values in every voxel (a colour image or a vector field), but "
            "one grey value is expected; convert it to greyscale first."
        )
    return sizes


def _bits(name: str, kind: int, bits: int) -> int:
    """Return the bits per voxel, which the header gives twice."""
    if kind in _COMPLEX:
        raise InputError(
            f"{name} holds complex numbers, but grey values are expected; save the magnitude."
        )
    if _BITS.get(kind) != bits:
        raise _wrong(name, f"voxels of type {kind} with {bits} bits")
    return bits


def _start(name: str, start: float) -> int:
    if not (math.isfinite(start) and HEADER_BYTES <= start < 1 << 31 and start == int(start)):
        raise _wrong(name, f"its voxels at byte {start:g}")
    return int(start)


def _check_scale(name: str, scale: tuple[float, ...], colour: bool) -> None:
    slope, intercept = scale
    # A slope of 0 or NaN means that values are not scaled.
    scaled = slope != 0 and not math.isnan(slope)
    if scaled and not (math.isfinite(slope) and math.isfinite(intercept)):
        raise _wrong(name, f"a slope of {slope:g} and an intercept of {intercept:g}")
    if scaled and colour and (slope, intercept) != (1, 0):
        raise _wrong(name, f"colours with a slope of {slope:g}")


def _check_geometry(name: str, field: Any, count: int) -> None:
    """Refuse numbers of the geometry that are used but not finite."""
    qform, sform = field("2h", 252)
    used = list(field("8f", 76)[1 : 1 + min(count, 3)])
    if qform > 0:
        used += field("6f", 256)
    if sform > 0:
        used += field("12f", 280)
    if not all(map(math.isfinite, used)):
        raise _wrong(name, "a geometry that is not finite")


def _wrong(name: str, what: str) -> InputError:
    return InputError(
        f"{name} has {what} in its header, so the header is damaged or of a kind that is not "
        "supported; export the scan again."
    )
