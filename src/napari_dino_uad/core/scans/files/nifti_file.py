"""One volume of a NIfTI file, read without taking the others into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.limits import check_grid
from napari_dino_uad.core.scans.files.integrity import damaged, wrong_length
from napari_dino_uad.core.scans.files.nifti_header import NiftiHeader, read_nifti_header
from napari_dino_uad.core.scans.files.stored_image import StoredImage, choose_volume, grey_values

__all__ = ["count_nifti_volumes", "read_nifti"]

_CHUNK = 1 << 20


def count_nifti_volumes(path: Path) -> int:
    """Return how many volumes a NIfTI file has, as its header says.

    Raises
    ------
    InputError
        If the header is damaged.
    """
    with _opened(path) as file:
        return read_nifti_header(file, path.name).volumes


def read_nifti(path: Path, volume: int | None = None) -> StoredImage:
    """Read one volume of a NIfTI file.

    Parameters
    ----------
    path : Path
        A file of version 1 or 2, compressed or not.
    volume : int, optional
        Which one, counted from 1; the first if not given.

    Raises
    ------
    InputError
        If the file is damaged, truncated or too long, in colour, or has no such volume.
    """
    name = path.name
    with _opened(path) as file:
        header = read_nifti_header(file, name)
        index, others = choose_volume(name, header.volumes, volume)
        spacing, origin, direction = header.forms.geometry(header.size, name)
        known = header.forms.spacing_known(header.size)
        check_grid(name, spacing, origin, known=known)
        stored = _voxels(file, path, header, index)
    notices = [*others, *header.forms.notices(header.size, name)]
    if not known:
        notices.append(f"{name} has no voxel size in its header; sizes are in pixels.")
    values = stored.reshape(*header.size[::-1], header.channels)
    return StoredImage(
        values=_scaled(grey_values(values, name), header.scale),
        spacing=spacing,
        origin=origin,
        direction=direction,
        dimension=header.dimension,
        spacing_known=known,
        notices=tuple(notices),
        forms=header.forms,
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacking it on the way; ISA-L does so three times as fast as zlib.

    Raises
    ------
    InputError
        If a compressed file is damaged.
    """
    from isal import igzip, igzip_lib

    with path.open("rb") as plain:
        if plain.read(2) != b"\x1f\x8b":
            plain.seek(0)
            yield plain
            return
    try:
        with igzip.open(path, "rb") as packed:
            yield packed
    except (EOFError, igzip.BadGzipFile, igzip_lib.IsalError) as error:  # type: ignore[misc]  # its stub is no class
        raise damaged(path.name) from error


def _voxels(file: BinaryIO, path: Path, header: NiftiHeader, index: int) -> NDArray[Any]:
    """Read the numbers of one volume, and see that the file is as long as its header says."""
    before = header.start + index * header.volume_bytes
    end = header.start + header.body
    count = header.volume_bytes // header.dtype.itemsize
    values = np.empty(count, dtype=header.dtype)
    if hasattr(file, "fileno") and not _is_packed(file):
        length = path.stat().st_size
        if length != end:
            raise wrong_length(path.name, header.body, max(0, length - header.start))
        file.seek(before)
        _fill(file, values)
        return values
    _skip(file, before - file.tell(), path.name, header)
    _need(_fill(file, values), header.volume_bytes, path.name, header)
    _skip(file, end - before - header.volume_bytes, path.name, header)
    # The checksum is looked at behind the last byte; only a damaged file is longer.
    if file.read(1):
        raise wrong_length(path.name, header.body, header.body + 1)
    return values


def _is_packed(file: BinaryIO) -> bool:
    from isal import igzip

    return isinstance(file, igzip.IGzipFile)


def _fill(file: BinaryIO, values: NDArray[Any]) -> int:
    """Read as many bytes as an array takes, or fewer at the end of the file; return how many."""
    room = memoryview(values.view(np.uint8).data)
    done = 0
    while done < len(room) and (taken := file.readinto(room[done:])):  # type: ignore[attr-defined]
        done += taken
    return done


def _skip(file: BinaryIO, count: int, name: str, header: NiftiHeader) -> None:
    left = count
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        left -= len(chunk)
    _need(count - left, count, name, header)


def _need(found: int, expected: int, name: str, header: NiftiHeader) -> None:
    if found < expected:
        raise wrong_length(name, header.body, header.body - (expected - found))


def _scaled(values: NDArray[Any], scale: tuple[float, float] | None) -> NDArray[Any]:
    """Apply slope and intercept in double precision, slice by slice to save memory."""
    if scale is None:
        return values
    slope, intercept = scale
    out = np.empty(values.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for place, one in enumerate(values):
            out[place] = one.astype(np.float64) * slope + intercept
    return out
