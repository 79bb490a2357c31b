"""The pixel data of a DICOM file: whether it is as long as the header says.

GDCM fills what is missing with whatever lay in memory. The elements of the file are walked here
as far as the pixels; their values are left to GDCM.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.files.integrity import damaged, wrong_length

__all__ = ["check_dicom", "holds_pixels"]

_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"

# Explicit types whose length has four bytes.
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")

# GDCM never comes back from some others.
_TYPES = frozenset((
    *_LONG, b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT",
    b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
))  # fmt: skip

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SYNTAX, _PIXELS = 0x00020010, 0x7FE00010
_SAMPLES, _COLOURS, _FRAMES, _ROWS, _COLUMNS, _BITS = (
    0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100,
)  # fmt: skip
_USED = (_SYNTAX, _SAMPLES, _COLOURS, _FRAMES, _ROWS, _COLUMNS, _BITS)

# What the numbers of a pixel mean; what GDCM does not know it turns from light to dark.
_KNOWN_COLOURS = (
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT",
    "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422",
)  # fmt: skip

# Sequences within sequences; real files have a handful.
_DEEPEST = 32
_MOST_FRAMES = 1 << 20

# Bytes that one byte of a file that is compressed as a whole may stand for.
_MOST_DEFLATED = 64

# Compressed pixels of these begin and end with markers of their own.
_JPEG = "1.2.840.10008.1.2.4."
_JPEG_2000 = tuple(f"{_JPEG}{number}" for number in (90, 91, 92, 93, 201, 202, 203))
_MARKED = tuple(f"{_JPEG}{number}" for number in (50, 51, 57, 70, 80, 81))


class _NoPixelsError(InputError):
    """A DICOM file that is no image."""


@dataclass
class _Walk:
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
        end = self.place + struct.calcsize("=" + form)
        if end > len(self.data):
            raise damaged(self.name)
        out = struct.unpack_from(self.order + form, self.data, self.place)
        self.place = end
        return out

    def skip(self, length: int) -> None:
        if self.place + length > len(self.data):
            raise damaged(self.name)
        self.place += length

    def skip_sequence(self, depth: int = 0) -> None:
        """Step over items up to the end of a sequence of undefined length."""
        if depth > _DEEPEST:
            raise damaged(self.name)
        while True:
            tag, length = self.element()
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                raise damaged(self.name)
            if length != _UNDEFINED:
                self.skip(length)
                continue
            while True:
                tag, length = self.element()
                if tag == _ITEM_END:
                    break
                if length == _UNDEFINED:
                    self.skip_sequence(depth + 1)
                else:
                    self.skip(length)


def check_dicom(path: Path, name: str) -> tuple[tuple[int, int, int], int]:
    """Refuse a DICOM file whose pixel data are not as many as its header says.

    Parameters
    ----------
    path : Path
        A regular file.
    name : str
        What the user calls it.

    Returns
    -------
    size : tuple of int
        (columns, rows, frames).
    value_bytes : int
        Of a voxel, all its channels together.

    Raises
    ------
    InputError
        If it is truncated, too long, damaged, or does not fit into memory.
    """
    with _opened(path, name) as data:
        return _check(data, name)


def holds_pixels(path: Path, name: str) -> bool:
    """Say whether a DICOM file has pixel data; others are reports, plans or directories.

    Parameters
    ----------
    path : Path
        A regular file.
    name : str
        What the user calls it.

    Raises
    ------
    InputError
        If its elements are damaged.
    """
    with _opened(path, name) as data:
        try:
            _walk_to_pixels(_begin(data, name))
        except _NoPixelsError:
            return False
    return True


@contextmanager
def _opened(path: Path, name: str) -> Iterator[memoryview]:
    with path.open("rb") as file:
        if path.stat().st_size < 8:
            raise damaged(name)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            data = memoryview(whole)
            try:
                yield data
            finally:
                data.release()


def _check(data: memoryview, name: str) -> tuple[tuple[int, int, int], int]:
    walk = _begin(data, name)
    length = _walk_to_pixels(walk)
    syntax = _text(walk.values.get(_SYNTAX, b""))
    rows, columns, bits = (_number(walk, tag) for tag in (_ROWS, _COLUMNS, _BITS))
    samples = _number(walk, _SAMPLES, 1)
    frames_text = _text(walk.values.get(_FRAMES, b"")) or "1"
    if not frames_text.isdecimal() or not 1 <= int(frames_text) <= _MOST_FRAMES:
        raise damaged(name)
    frames = int(frames_text)
    colours = _text(walk.values.get(_COLOURS, b"MONOCHROME2"))
    if colours not in _KNOWN_COLOURS:
        raise damaged(name)
    if min(rows, columns, samples) < 1 or bits not in (1, 8, 12, 16, 32, 64):
        raise damaged(name)
    size, value_bytes = (columns, rows, frames), samples * max(1, bits // 8)
    check_reading(name, size, 2 * value_bytes)
    if length == _UNDEFINED:
        if not syntax.startswith("1.2.840.10008.1.2.") or syntax in (_BIG_ENDIAN, _DEFLATED):
            raise damaged(name)
        _check_fragments(walk, syntax, size)
        _walk_to_end(walk)
        return size, value_bytes
    needed = (rows * columns * samples * frames * bits + 7) // 8
    # Values have an even length; some writers pad them to four bytes.
    if not needed <= length <= -(-needed // 4) * 4:
        raise wrong_length(name, needed, length)
    walk.skip(length)
    _walk_to_end(walk)
    return size, value_bytes


def _walk_to_end(walk: _Walk) -> None:
    """Step over what follows the pixels: GDCM waits without end for the end of some bytes."""
    last = _PIXELS
    while walk.place < len(walk.data):
        tag, length = walk.element()
        if tag <= last:
            raise damaged(walk.name)
        last = tag
        if length == _UNDEFINED:
            walk.skip_sequence()
        else:
            walk.skip(length)


def _begin(data: memoryview, name: str) -> _Walk:
    """Read the file's own group of elements, which says how the others are written."""
    if bytes(data[128:132]) != b"DICM":
        # An old file without it: implicit, or explicit where two letters follow the first tag.
        explicit = bytes(data[4:6]).isalpha() and bytes(data[4:6]).isupper()
        return _Walk(data, name, 0, explicit, "<")
    walk = _Walk(data, name, 132, True, "<")
    while bytes(walk.data[walk.place : walk.place + 2]) == b"\x02\0":
        tag, length = walk.element()
        start = walk.place
        walk.skip(length)
        if tag == _SYNTAX:
            walk.values[tag] = bytes(walk.data[start : walk.place])
    syntax = _text(walk.values.get(_SYNTAX, b""))
    walk.explicit = syntax != _IMPLICIT
    walk.order = ">" if syntax == _BIG_ENDIAN else "<"
    if syntax == _DEFLATED:
        walk.data, walk.place = memoryview(_inflated(walk)), 0
    return walk


def _inflated(walk: _Walk) -> bytes:
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


def _walk_to_pixels(walk: _Walk) -> int:
    """Step over the elements up to the pixel data; return its length."""
    last = 0
    while True:
        if walk.place >= len(walk.data):
            raise _NoPixelsError(
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
        if length == _UNDEFINED:
            walk.skip_sequence()
            continue
        start = walk.place
        walk.skip(length)
        if tag in _USED:
            walk.values[tag] = bytes(walk.data[start : walk.place])


def _number(walk: _Walk, tag: int, default: int | None = None) -> int:
    value = walk.values.get(tag, b"")
    if not value and default is not None:
        return default
    if len(value) != 2:
        raise damaged(walk.name)
    return int(struct.unpack(walk.order + "H", value)[0])


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0")


def _check_fragments(walk: _Walk, syntax: str, size: tuple[int, int, int]) -> None:
    """Follow the pieces of compressed pixels to the end of their sequence."""
    columns, rows, frames = size
    pieces: list[tuple[int, int]] = []
    while True:
        tag, length = walk.element()
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or length == _UNDEFINED:
            raise damaged(walk.name)
        pieces.append((walk.place, walk.place + length))
        walk.skip(length)
    # The first piece is a table of places, which may be empty.
    if len(pieces) - 1 < frames:
        raise wrong_length(walk.name, frames, max(0, len(pieces) - 1))
    if syntax not in (*_MARKED, *_JPEG_2000):
        return
    if frames == 1:
        pieces[1:] = [(pieces[1][0], pieces[-1][1])]
    if len(pieces) - 1 != frames:
        return
    for start, end in pieces[1:]:
        image = bytes(walk.data[start:end])
        sized = _size_of_jpeg_2000(image) if syntax in _JPEG_2000 else _size_of_jpeg(image)
        if sized != (columns, rows) or not image.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise damaged(walk.name)


def _size_of_jpeg(image: bytes) -> tuple[int, int] | None:
    """Read columns and rows from the header of a JPEG or JPEG-LS image."""
    place = 2
    while image[:2] == b"\xff\xd8" and place + 9 <= len(image) and image[place] == 0xFF:
        marker, length = image[place + 1], int.from_bytes(image[place + 2 : place + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", image, place + 5)
            return columns, rows
        if length < 2 or marker == 0xDA:
            break
        place += 2 + length
    return None


def _size_of_jpeg_2000(image: bytes) -> tuple[int, int] | None:
    """Read columns and rows from the header of a JPEG 2000 codestream."""
    if image[:4] != b"\xff\x4f\xff\x51" or len(image) < 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", image, 8)
    return right - left, bottom - top
