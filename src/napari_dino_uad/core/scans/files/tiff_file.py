"""TIFF files, checked before libtiff decodes them.

libtiff drops pages after a broken link, and allocates memory for the size in the header before it
checks the length of the file.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.files.integrity import damaged

__all__ = ["TIFF_MAGICS", "check_tiff"]

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Tags, by their names in the specification, TIFF 6.0.
_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION = 254, 256, 257, 258, 259
_PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 262, 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 322, 323, 324, 325, 339
_USED = (
    _SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS,
    _COUNTS, _PLANAR, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT,
)  # fmt: skip

# Format characters of struct and bytes of the integer types.
_NUMBERS = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8), 13: ("I", 4)}

# Most fields per page and pages per file; real files have tens and hundreds.
_MOST_FIELDS = 4096
_MOST_PAGES = 65_536
_MOST_VALUES = 1 << 24

_PLAIN = 1


def check_tiff(path: Path, name: str) -> None:
    """Refuse a TIFF file with incomplete pages or an impossible size.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If a page is damaged, the pages are of several kinds, or do not fit into memory.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        pages = _Pages(file, size, name).read()
    images = [page for page in pages if not page.get(_SUBFILE, (0,))[0] & 1]
    if not images:
        raise damaged(name)
    kinds = {tuple(page.get(tag, default) for tag, default in _KIND) for page in images}
    if len(kinds) > 1:
        raise InputError(
            f"{name} has pages of several sizes or types, but the slices of one scan are "
            "expected; save them to their own files."
        )
    for page in images:
        _check_strips(page, size, name)
    first = images[0]
    channels, bits = first.get(_SAMPLES, (1,))[0], max(first.get(_BITS, (1,)))
    check_reading(
        name,
        (first[_WIDTH][0], first[_LENGTH][0], len(images)),
        channels * max(1, bits / 8) * 2,
    )


# Tags that must be equal in all pages, with their defaults.
_KIND: tuple[tuple[int, Any], ...] = (
    (_WIDTH, ()), (_LENGTH, ()), (_BITS, (1,)), (_SAMPLES, (1,)), (_FORMAT, (1,)),
    (_PHOTOMETRIC, ()),
)  # fmt: skip


class _Pages:
    """Follows the chain of pages of one file to its end."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file, self._size, self._name = file, size, name
        head = file.read(16).ljust(16, b"\0")
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = head[:4] in (b"II+\0", b"MM\0+")
        self._pointer = "Q" if self._big else "I"
        self._first = struct.unpack_from(self._order + self._pointer, head, 8 if self._big else 4)[
            0
        ]

    def read(self) -> list[dict[int, tuple[int, ...]]]:
        """Return the used tags of each page."""
        place, pages = self._first, []
        seen: set[int] = set()
        while place:
            if place in seen or len(seen) == _MOST_PAGES:
                raise damaged(self._name)
            seen.add(place)
            page, place = self._page(place)
            pages.append(page)
        return pages

    def _take(self, place: int, length: int) -> bytes:
        if place < 0 or place + length > self._size:
            raise damaged(self._name)
        self._file.seek(place)
        return self._file.read(length)

    def _page(self, place: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """Read one page and the position of the next one."""
        counter = "Q" if self._big else "H"
        entry = 20 if self._big else 12
        start = place + struct.calcsize("=" + counter)
        (count,) = struct.unpack(self._order + counter, self._take(place, start - place))
        if not 1 <= count <= _MOST_FIELDS:
            raise damaged(self._name)
        entries = self._take(start, count * entry + struct.calcsize("=" + self._pointer))
        page: dict[int, tuple[int, ...]] = {}
        last = 0
        for at in range(0, count * entry, entry):
            tag, kind, values = struct.unpack_from(f"{self._order}HH{self._pointer}", entries, at)
            # The specification requires sorted tags without duplicates.
            if tag <= last:
                raise damaged(self._name)
            last = tag
            if tag in _USED:
                inline = entries[at + (12 if self._big else 8) : at + entry]
                page[tag] = self._values(kind, values, inline)
        return page, struct.unpack_from(self._order + self._pointer, entries, count * entry)[0]

    def _values(self, kind: int, count: int, inline: bytes) -> tuple[int, ...]:
        if kind not in _NUMBERS or not 1 <= count <= _MOST_VALUES:
            raise damaged(self._name)
        letter, length = _NUMBERS[kind]
        if count * length > len(inline):
            (place,) = struct.unpack_from(self._order + self._pointer, inline)
            inline = self._take(place, count * length)
        return struct.unpack_from(f"{self._order}{count}{letter}", inline)


def _check_strips(page: dict[int, tuple[int, ...]], size: int, name: str) -> None:
    """Refuse a page whose strips or tiles are outside the file or have a wrong length."""
    tiled = _TILE_OFFSETS in page or _TILE_WIDTH in page
    needed = (
        (_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS)
    )
    if any(tag not in page for tag in (_WIDTH, _LENGTH, *needed)):
        raise damaged(name)
    width, length = page[_WIDTH][0], page[_LENGTH][0]
    samples = page.get(_SAMPLES, (1,))[0]
    bits = page.get(_BITS, (1,))
    if min(width, length, samples, *bits) < 1 or len(bits) not in (1, samples) or max(bits) > 64:
        raise damaged(name)
    planes = samples if page.get(_PLANAR, (1,))[0] == 2 else 1
    if tiled:
        across, down = page[_TILE_WIDTH][0], page[_TILE_LENGTH][0]
        if min(across, down) < 1:
            raise damaged(name)
        parts = [down] * (math.ceil(width / across) * math.ceil(length / down))
    else:
        rows = min(page.get(_ROWS, (length,))[0], length)
        if rows < 1:
            raise damaged(name)
        across = width
        parts = [min(rows, length - top) for top in range(0, length, rows)]
    offsets, counts = (page[tag] for tag in needed[-2:])
    if not len(offsets) == len(counts) == len(parts) * planes:
        raise damaged(name)
    row_bits = across * max(bits) * (samples // planes)
    for rows, offset, count in zip(parts * planes, offsets, counts, strict=True):
        if count < 1 or offset < 8 or offset + count > size:
            raise damaged(name)
        if page.get(_COMPRESSION, (_PLAIN,))[0] == _PLAIN and count != rows * -(-row_bits // 8):
            raise damaged(name)
