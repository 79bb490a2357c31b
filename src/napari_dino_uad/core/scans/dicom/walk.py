"""Stepping over the elements of a DICOM file, with nothing trusted.

Other readers wait without end for the end of some damaged ones, or fill what is missing.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.integrity import damaged

__all__ = [
    "BIG_ENDIAN",
    "DEFLATED",
    "ITEM",
    "SEQUENCE_END",
    "SYNTAX",
    "UNDEFINED",
    "Walk",
    "begin",
    "opened",
    "text_of",
    "walk_to_end",
    "walk_to_pixels",
]

_IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

# Explicit types whose length has four bytes.
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")

# GDCM never comes back from some others.
_TYPES = frozenset((
    *_LONG, b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT",
    b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
))  # fmt: skip

UNDEFINED = 0xFFFFFFFF
ITEM, _ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
SYNTAX, _PIXELS = 0x00020010, 0x7FE00010

# Sequences within sequences; real files have a handful.
_DEEPEST = 32
# Bytes that one byte of a file that is compressed as a whole may stand for.
_MOST_DEFLATED = 64


@dataclass
class Walk:
    """A place in the elements of a file."""

    data: memoryview
    name: str
    place: int
    explicit: bool
    order: str
    values: dict[int, bytes] = field(default_factory=dict)

    def element(self) -> tuple[int, int]:
        """Step over one element's head; return its tag and the length of its value."""
        place, data = self.place, self.data
        if place + 8 > len(data):
            raise damaged(self.name)
        group, number, kind, short = struct.unpack_from(self.order + "HH2sH", data, place)
        tag = group << 16 | number
        self.place = place + 8
        if group == 0xFFFE or not self.explicit:
            return tag, struct.unpack_from(self.order + "I", data, place + 4)[0]
        if kind not in _TYPES:
            raise damaged(self.name)
        if kind in _LONG:
            return tag, self.unpack("I")[0]
        return tag, short

    def unpack(self, form: str) -> tuple[int, ...]:
        """Read numbers of a form of `struct`, and step over them."""
        end = self.place + struct.calcsize("=" + form)
        if end > len(self.data):
            raise damaged(self.name)
        out = struct.unpack_from(self.order + form, self.data, self.place)
        self.place = end
        return out

    def skip(self, length: int) -> None:
        """Step over bytes."""
        if self.place + length > len(self.data):
            raise damaged(self.name)
        self.place += length

    def skip_sequence(self, depth: int = 0) -> None:
        """Step over items up to the end of a sequence of undefined length."""
        if depth > _DEEPEST:
            raise damaged(self.name)
        while True:
            tag, length = self.element()
            if tag == SEQUENCE_END:
                return
            if tag != ITEM:
                raise damaged(self.name)
            if length != UNDEFINED:
                self.skip(length)
                continue
            while True:
                tag, length = self.element()
                if tag == _ITEM_END:
                    break
                if length == UNDEFINED:
                    self.skip_sequence(depth + 1)
                else:
                    self.skip(length)


@contextmanager
def opened(path: Path, name: str) -> Iterator[memoryview]:
    """Open a file as bytes that are read where they are looked at."""
    with path.open("rb") as file:
        if path.stat().st_size < 8:
            raise damaged(name)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            data = memoryview(whole)
            try:
                yield data
            finally:
                data.release()


def walk_to_end(walk: Walk) -> None:
    """Step over what follows the pixels: GDCM waits without end for the end of some bytes."""
    last = _PIXELS
    while walk.place < len(walk.data):
        tag, length = walk.element()
        if tag <= last:
            raise damaged(walk.name)
        last = tag
        if length == UNDEFINED:
            walk.skip_sequence()
        else:
            walk.skip(length)


def begin(data: memoryview, name: str) -> Walk:
    """Read the file's own group of elements, which says how the others are written."""
    if bytes(data[128:132]) != b"DICM":
        # An old file without it: implicit, or explicit where two letters follow the first tag.
        explicit = bytes(data[4:6]).isalpha() and bytes(data[4:6]).isupper()
        return Walk(data, name, 0, explicit, "<")
    walk = Walk(data, name, 132, True, "<")
    while bytes(walk.data[walk.place : walk.place + 2]) == b"\x02\0":
        tag, length = walk.element()
        start = walk.place
        walk.skip(length)
        if tag == SYNTAX:
            walk.values[tag] = bytes(walk.data[start : walk.place])
    syntax = text_of(walk.values.get(SYNTAX, b""))
    walk.explicit = syntax != _IMPLICIT
    walk.order = ">" if syntax == BIG_ENDIAN else "<"
    if syntax == DEFLATED:
        walk.data, walk.place = memoryview(_inflated(walk)), 0
    return walk


def _inflated(walk: Walk) -> bytes:
    """Unpack the elements of a file that is compressed as a whole."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # Nothing says how long they are; scans shrink to a half or a third.
        out = stream.decompress(walk.data[walk.place :], _MOST_DEFLATED * len(walk.data))
    except zlib.error as error:
        raise damaged(walk.name) from error
    if not stream.eof:
        raise damaged(walk.name)
    return out


def walk_to_pixels(walk: Walk, used: Collection[int]) -> int:
    """Step over the elements up to the pixel data; return its length.

    The values of used tags are kept in the walk.
    """
    last = 0
    while True:
        if walk.place >= len(walk.data):
            raise InputError(
                f"{walk.name} cannot be read as an image: expected DICOM with pixel data, but it "
                "has none; export the scan again."
            )
        tag, length = walk.element()
        # They are sorted; what is not was damaged.
        if tag <= last:
            raise damaged(walk.name)
        last = tag
        if tag == _PIXELS:
            return length
        if length == UNDEFINED:
            walk.skip_sequence()
            continue
        start = walk.place
        walk.skip(length)
        if tag in used:
            walk.values[tag] = bytes(walk.data[start : walk.place])


def text_of(value: bytes) -> str:
    """Return the value of an element as text."""
    return value.decode("latin-1").strip(" \0")
