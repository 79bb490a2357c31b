"""Whether a file is whole and its values are those of an image.

SimpleITK fills what is missing from a truncated file with zeros in silence, so that is checked
here.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["check_contents", "check_length", "clean_values"]

# Larger values are fill values or damage: their squares overflow single precision.
_LARGEST = 1e18

_HEADER_BYTES = 348  # Of NIfTI-1.
_CHUNK = 1 << 24


def check_length(path: Path) -> None:
    """Refuse a NIfTI or TIFF file that ends too early, without reading its voxels.

    Parameters
    ----------
    path : Path
        Any file; other formats are SimpleITK's to check.

    Raises
    ------
    InputError
        If the file is truncated, its compression damaged, or it is NIfTI-2.
    """
    name = path.name.lower()
    if name.endswith((".tif", ".tiff")):
        _check_tiff(path)
    elif name.endswith((".nii", ".nii.gz")):
        end = _data_end(_nifti_header(path))
        if end is None:
            return
        if not _is_gzip(path):
            if path.stat().st_size < end:
                raise _damaged(path)
        elif _gzip_trailer(path)[1] != end % (1 << 32):
            # A file in several parts or with something at its end may still be whole.
            _decompress_all(path)


def check_contents(path: Path, array: NDArray[Any]) -> None:
    """Refuse a compressed NIfTI file whose voxels are not those that were compressed.

    The file's own checksum is compared with that of the array, which takes a fraction of the
    time of decompressing again; only where SimpleITK changed the voxels (a scaling in the header,
    the other byte order) is it read a second time.

    Parameters
    ----------
    path : Path
        Any file; other formats are SimpleITK's to check.
    array : ndarray
        Its voxels in the order of the file.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not path.name.lower().endswith(".nii.gz") or not _is_gzip(path):
        return
    start = _data_start(_nifti_header(path))
    if start is not None:
        with gzip.open(path) as file:
            checksum = zlib.crc32(file.read(start))
        if zlib.crc32(np.ascontiguousarray(array).data, checksum) == _gzip_trailer(path)[0]:
            return
    _decompress_all(path)


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path.name} is truncated or damaged, but a whole file is expected; copy or download it "
        "again."
    )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _gzip_trailer(path: Path) -> tuple[int, int]:
    """Return checksum and length of what was compressed, as the end of the file says."""
    with path.open("rb") as file:
        if path.stat().st_size < 18:
            raise _damaged(path)
        file.seek(-8, 2)
        checksum, length = struct.unpack("<II", file.read(8))
    return checksum, length


def _decompress_all(path: Path) -> None:
    try:
        with gzip.open(path) as file:
            while file.read(_CHUNK):
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path) from error


def _nifti_header(path: Path) -> bytes:
    """Read the header of a NIfTI-1 file; empty where it is none."""
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            header = bytes(file.read(_HEADER_BYTES))
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path) from error
    if header[4:7] == b"n+2":
        raise InputError(
            f"{path.name} is a NIfTI-2 file, but NIfTI-1 is expected; save it as NIfTI-1, NRRD or "
            "MHA."
        )
    return header if len(header) == _HEADER_BYTES and header[344:347] == b"n+1" else b""


def _field(header: bytes, form: str, start: int) -> tuple[Any, ...]:
    """Unpack a field in the header's byte order, which its first number, 348, tells."""
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    return struct.unpack_from(order + form, header, start)


def _data_start(header: bytes) -> int | None:
    return int(_field(header, "f", 108)[0]) if header else None


def _data_end(header: bytes) -> int | None:
    """Return how long an uncompressed NIfTI file of this header must be, in bytes."""
    start = _data_start(header)
    if start is None:
        return None
    dimensions, *sizes = _field(header, "8h", 40)
    if not 1 <= dimensions <= 7 or min(sizes[:dimensions]) < 1:
        return None
    bits = int(_field(header, "h", 72)[0])
    return start + (math.prod(sizes[:dimensions]) * bits + 7) // 8


def _check_tiff(path: Path) -> None:
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
                raise _damaged(path)
            seen.add(page)
            file.seek(page)
            link = page + count_bytes
            link += struct.unpack(order + counter, file.read(count_bytes))[0] * entry
            if link + pointer_bytes > size:
                raise _damaged(path)
            file.seek(link)
            page = struct.unpack(order + pointer, file.read(pointer_bytes))[0]


def clean_values(array: NDArray[Any], name: str, allow_constant: bool) -> NDArray[np.float32]:
    """Copy an image to contiguous float32, with finite values only.

    Parameters
    ----------
    array : ndarray
        Of real numbers.
    name : str
        Name of the case, for messages.
    allow_constant : bool
        Whether one value throughout is welcome, as in an empty mask.

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
    # The copy is needed even of float32: the view dies with SimpleITK's image.
    return np.array(array, dtype=np.float32, order="C")
