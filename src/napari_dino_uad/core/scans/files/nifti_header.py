"""The header of a NIfTI file of version 1 or 2, read and checked before any voxel is."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.files.integrity import damaged
from napari_dino_uad.core.scans.files.nifti_forms import NiftiForms

__all__ = ["NIFTI2_MAGIC", "NiftiHeader", "read_nifti_header"]

#: At byte 4 of a NIfTI-2 file of one part.
NIFTI2_MAGIC = b"n+2\0\r\n\x1a\n"

# The types of numpy, and how many of them make a voxel, by the code of the type.
_TYPES = {
    2: ("u1", 1), 4: ("i2", 1), 8: ("i4", 1), 16: ("f4", 1), 64: ("f8", 1), 256: ("i1", 1),
    512: ("u2", 1), 768: ("u4", 1), 1024: ("i8", 1), 1280: ("u8", 1), 128: ("u1", 3),
    2304: ("u1", 4),
}  # fmt: skip
_COMPLEX = (32, 1792, 2048)


@dataclass(frozen=True)
class _Layout:
    """Where the fields of a version stand, as (format of struct, place).

    `length` includes the four bytes that say whether extensions follow.
    """

    first: int
    length: int
    magic: tuple[int, bytes]
    sizes: tuple[str, int]
    kind: tuple[str, int]
    pixdim: tuple[str, int]
    start: tuple[str, int]
    scale: tuple[str, int]
    unit: tuple[str, int]
    codes: tuple[str, int]
    quaternion: tuple[str, int]
    rows: tuple[str, int]


_VERSIONS = (
    _Layout(
        348, 352, (344, b"n+1\0"), ("8h", 40), ("2h", 70), ("8f", 76), ("f", 108), ("2f", 112),
        ("B", 123), ("2h", 252), ("6f", 256), ("12f", 280),
    ),
    _Layout(
        540, 544, (4, NIFTI2_MAGIC), ("8q", 16), ("2h", 12), ("8d", 104), ("q", 168), ("2d", 176),
        ("i", 500), ("2i", 344), ("6d", 352), ("12d", 400),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class NiftiHeader:
    """How the voxels of a NIfTI file are stored, and where they lie.

    Attributes
    ----------
    size : tuple of int
        Voxels along x, y, z.
    dimension : int
        2 for an image without a third axis.
    volumes : int
        Volumes along the fourth axis.
    dtype : numpy.dtype
        With the byte order of the file.
    channels : int
        Values in every voxel.
    start : int
        Bytes before the voxels.
    scale : tuple of float or None
        Slope and intercept of the values; None where they stand as they are.
    forms : NiftiForms
        The geometry.
    """

    size: tuple[int, int, int]
    dimension: int
    volumes: int
    dtype: np.dtype[Any]
    channels: int
    start: int
    scale: tuple[float, float] | None
    forms: NiftiForms

    @property
    def volume_bytes(self) -> int:
        """Bytes of the voxels of one volume."""
        return math.prod(self.size) * self.channels * self.dtype.itemsize

    @property
    def body(self) -> int:
        """Bytes of all voxels."""
        return self.volumes * self.volume_bytes


def read_nifti_header(file: BinaryIO, name: str) -> NiftiHeader:
    """Read and check the header of a NIfTI file.

    Parameters
    ----------
    file : binary file
        Positioned at its start; afterwards after the header.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If it is damaged, or of a kind that is not supported.
    """
    header = file.read(_VERSIONS[0].length)
    if header[4:7] == NIFTI2_MAGIC[:3]:
        header += file.read(_VERSIONS[1].length - len(header))
    if len(header) < _VERSIONS[0].length:
        raise damaged(name)
    layout, order = _version(header, name)
    if len(header) < layout.length:
        raise damaged(name)

    def field(place: tuple[str, int]) -> tuple[Any, ...]:
        return struct.unpack_from(order + place[0], header, place[1])

    sizes = _sizes(name, field(layout.sizes))
    code, channels = _type(name, *field(layout.kind))
    start = _start(name, field(layout.start)[0], layout.length)
    scale = _scale(name, field(layout.scale), colour=channels > 1)
    qform_code, sform_code = field(layout.codes)
    forms = NiftiForms(
        field(layout.pixdim)[:4],
        qform_code,
        sform_code,
        field(layout.quaternion),
        field(layout.rows),
        field(layout.unit)[0] & 7,
    )
    _check_geometry(name, forms, len(sizes))
    dtype = np.dtype(code).newbyteorder(order)  # type: ignore[arg-type]  # "<" or ">"
    check_reading(name, sizes[:3], channels * dtype.itemsize + 4)
    size = (*sizes[:3], 1)[:3]
    return NiftiHeader(
        size=(size[0], size[1], size[2]),
        dimension=2 if len(sizes) == 2 else 3,
        volumes=math.prod(sizes[3:]),
        dtype=dtype,
        channels=channels,
        start=start,
        scale=scale,
        forms=forms,
    )


def _version(header: bytes, name: str) -> tuple[_Layout, str]:
    """Return the layout of a header and its byte order, as struct writes it."""
    for layout in _VERSIONS:
        place, magic = layout.magic
        for order in "<>":
            first = struct.unpack_from(order + "i", header)[0]
            if first == layout.first and header[place : place + len(magic)] == magic:
                return layout, order
    raise InputError(
        f"{name} cannot be read as an image; expected a NIfTI file of one part, whole and "
        "undamaged."
    )


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
    if count == 1 or any(size > 1 for size in sizes[5:]):
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


def _type(name: str, kind: int, bits: int) -> tuple[str, int]:
    """Return numpy's type and the values of a voxel; the header gives their size twice."""
    if kind in _COMPLEX:
        raise InputError(
            f"{name} holds complex numbers, but grey values are expected; save the magnitude."
        )
    code, channels = _TYPES.get(kind, ("u1", 0))
    if channels * np.dtype(code).itemsize * 8 != bits or not channels:
        raise _wrong(name, f"voxels of type {kind} with {bits} bits")
    return code, channels


def _start(name: str, start: float, least: int) -> int:
    if not (math.isfinite(start) and least <= start < 1 << 31 and start == int(start)):
        raise _wrong(name, f"its voxels at byte {start:g}")
    return int(start)


def _scale(name: str, scale: tuple[float, ...], colour: bool) -> tuple[float, float] | None:
    slope, intercept = scale
    # A slope of 0 or NaN means that values stand as they are, whatever the intercept.
    if slope == 0 or math.isnan(slope):
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise _wrong(name, f"a slope of {slope:g} and an intercept of {intercept:g}")
    if (slope, intercept) == (1, 0):
        return None
    if colour:
        raise _wrong(name, f"colours with a slope of {slope:g}")
    return slope, intercept


def _check_geometry(name: str, forms: NiftiForms, count: int) -> None:
    """Refuse numbers of the geometry that are not finite where the header says they count."""
    used = list(forms.pixdim[1 : 1 + min(count, 3)])
    if forms.qform_code > 0:
        used += forms.quaternion
    if forms.sform_code > 0:
        used += forms.rows
    if not all(map(math.isfinite, used)):
        raise _wrong(name, "a geometry that is not finite")
    if forms.unit > 3:
        raise _wrong(name, f"an unknown unit of length ({forms.unit})")


def _wrong(name: str, what: str) -> InputError:
    return InputError(
        f"{name} has {what} in its header, so the header is damaged or of a kind that is not "
        "supported; export the scan again."
    )
