"""Whether a file is whole and its values are those of an image.

SimpleITK fills what is missing from a truncated file with zeros in silence, so that is checked
here.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["check_length", "clean_values", "damaged"]

# Larger values are fill values or damage: their squares overflow single precision.
_LARGEST = 1e18

_HEADER_BYTES = 348  # Of NIfTI-1.


def check_length(path: Path, name: str) -> None:
    """Refuse a NIfTI or TIFF file that ends too early, without reading its voxels.

    Parameters
    ----------
    path : Path
        Any file, a NIfTI file unpacked; other formats are SimpleITK's to check.
    name : str
        What the user calls it.

    Raises
    ------
    InputError
        If the file is truncated, or it is NIfTI-2.
    """
    ending = path.suffix.lower()
    if ending in (".tif", ".tiff"):
        _check_tiff(path, name)
    elif ending == ".nii":
        end = _data_end(_nifti_header(path, name))
        if end is not None and path.stat().st_size < end:
            raise damaged(name)


def damaged(name: str) -> InputError:
    """Return the error to raise for a file that is not whole."""
    return InputError(
        f"{name} is truncated or damaged, but a whole file is expected; copy or download it again."
    )


def _nifti_header(path: Path, name: str) -> bytes:
    """Read the header of a NIfTI-1 file; empty where it is none."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if header[4:7] == b"n+2":
        raise InputError(
            f"{name} is a NIfTI-2 file, but NIfTI-1 is expected; save it as NIfTI-1, NRRD or MHA."
        )
    return header if len(header) == _HEADER_BYTES and header[344:347] == b"n+1" else b""


def _field(header: bytes, form: str, start: int) -> tuple[Any, ...]:
    """Unpack a field in the header's byte order, which its first number, 348, tells."""
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    return struct.unpack_from(order + form, header, start)


def _data_end(header: bytes) -> int | None:
    """Return how long an uncompressed NIfTI file of this header must be, in bytes."""
    if not header:
        return None
    start = int(_field(header, "f", 108)[0])
    dimensions, *sizes = _field(header, "8h", 40)
    if not 1 <= dimensions <= 7 or min(sizes[:dimensions]) < 1:
        return None
    bits = int(_field(header, "h", 72)[0])
    return start + (math.prod(sizes[:dimensions]) * bits + 7) // 8


def _check_tiff(path: Path, name: str) -> None:
    """Follow the chain of pages to its end: libtiff would drop those behind a broken link."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16).ljust(16, b"\0")
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None:
            return
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        counter, pointer, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        count_bytes, pointer_bytes = (
            struct.calcsize(order + counter),
            struct.calcsize(order + pointer),
        )
        page = struct.unpack_from(order + pointer, head, 8 if big else 4)[0]
        seen: set[int] = set()
        while page:
            if page in seen or page + count_bytes > size:
                raise damaged(name)
            seen.add(page)
            file.seek(page)
            link = page + count_bytes
            link += struct.unpack(order + counter, file.read(count_bytes))[0] * entry
            if link + pointer_bytes > size:
                raise damaged(name)
            file.seek(link)
            page = struct.unpack(order + pointer, file.read(pointer_bytes))[0]


def clean_values(
    array: NDArray[Any], name: str, allow_constant: bool, *, owned: bool = False
) -> NDArray[np.float32]:
    """Copy an image to contiguous float32, with finite values only.

    Parameters
    ----------
    array : ndarray
        Of real numbers.
    name : str
        Name of the case, for messages.
    allow_constant : bool
        Whether one value throughout is welcome, as in an empty mask.
    owned : bool
        Whether nobody else holds the array, which then need not be copied.

    Returns
    -------
    ndarray of float32
        NaN became the smallest finite value, infinities the smallest and the largest.

    Raises
    ------
    InputError
        If no value is finite, one is huge, or all are the same.
    """
    if array.size == 0:
        raise InputError(f"{name} has no voxels; expected an image of at least one slice.")
    with np.errstate(invalid="ignore"):
        lowest, highest = float(array.min()), float(array.max())
    if not np.isfinite([lowest, highest]).all():
        finite = np.isfinite(array)
        if not finite.any():
            raise InputError(
                f"{name} holds no finite number, only NaN or infinity; export the scan again."
            )
        lowest, highest = float(array[finite].min()), float(array[finite].max())
        array = np.nan_to_num(array, nan=lowest, posinf=highest, neginf=lowest)
    extreme = max(lowest, highest, key=abs)
    if abs(extreme) > _LARGEST:
        raise InputError(
            f"{name} holds the value {extreme:.3g}, but grey values are expected; replace the "
            "fill value by 0 and export the scan again."
        )
    if not allow_constant and lowest == highest:
        raise InputError(
            f"{name} has the value {lowest:g}{' or NaN' if lowest == 0 else ''} in every voxel, "
            "but an image with contrast is expected; choose another file."
        )
    if owned:
        return np.ascontiguousarray(array, dtype=np.float32)
    # The copy is needed even of float32: the view dies with SimpleITK's image.
    return np.array(array, dtype=np.float32, order="C")
