"""The pixel data of a DICOM file: whether it is as long as the header says.

GDCM fills what is missing with whatever lay in memory. The elements of the file are walked here
as far as the pixels; their values are left to GDCM.
"""

from __future__ import annotations

import struct
from pathlib import Path

from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.dicom.walk import (
    BIG_ENDIAN,
    DEFLATED,
    ITEM,
    SEQUENCE_END,
    SYNTAX,
    UNDEFINED,
    Walk,
    begin,
    opened,
    text_of,
    walk_to_end,
    walk_to_pixels,
)
from napari_dino_uad.core.scans.files.integrity import damaged, wrong_length

__all__ = ["check_dicom"]

_SAMPLES, _COLOURS, _FRAMES, _ROWS, _COLUMNS, _BITS = (
    0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100,
)  # fmt: skip
_USED = (SYNTAX, _SAMPLES, _COLOURS, _FRAMES, _ROWS, _COLUMNS, _BITS)

# What the numbers of a pixel mean; what GDCM does not know it turns from light to dark.
_KNOWN_COLOURS = (
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT",
    "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422",
)  # fmt: skip

_MOST_FRAMES = 1 << 20

# Compressed pixels of these begin and end with markers of their own.
_JPEG = "1.2.840.10008.1.2.4."
_JPEG_2000 = tuple(f"{_JPEG}{number}" for number in (90, 91, 92, 93, 201, 202, 203))
_MARKED = tuple(f"{_JPEG}{number}" for number in (50, 51, 57, 70, 80, 81))

_RUN_LENGTHS = "1.2.840.10008.1.2.5"


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
    with opened(path, name) as data:
        return _check(data, name)


def _check(data: memoryview, name: str) -> tuple[tuple[int, int, int], int]:
    walk = begin(data, name)
    length = walk_to_pixels(walk, _USED)
    syntax = text_of(walk.values.get(SYNTAX, b""))
    rows, columns, bits = (_number(walk, tag) for tag in (_ROWS, _COLUMNS, _BITS))
    samples = _number(walk, _SAMPLES, 1)
    frames_text = text_of(walk.values.get(_FRAMES, b"")) or "1"
    if not frames_text.isdecimal() or not 1 <= int(frames_text) <= _MOST_FRAMES:
        raise damaged(name)
    frames = int(frames_text)
    colours = text_of(walk.values.get(_COLOURS, b"MONOCHROME2"))
    if colours not in _KNOWN_COLOURS:
        raise damaged(name)
    if min(rows, columns, samples) < 1 or bits not in (1, 8, 12, 16, 32, 64):
        raise damaged(name)
    size, value_bytes = (columns, rows, frames), samples * max(1, bits // 8)
    check_reading(name, size, 2 * value_bytes)
    if length == UNDEFINED:
        if not syntax.startswith("1.2.840.10008.1.2.") or syntax in (BIG_ENDIAN, DEFLATED):
            raise damaged(name)
        _check_fragments(walk, syntax, size, samples * -(-bits // 8))
        walk_to_end(walk)
        return size, value_bytes
    needed = (rows * columns * samples * frames * bits + 7) // 8
    # Values have an even length; some writers pad them to four bytes.
    if not needed <= length <= -(-needed // 4) * 4:
        raise wrong_length(name, needed, length)
    walk.skip(length)
    walk_to_end(walk)
    return size, value_bytes


def _number(walk: Walk, tag: int, default: int | None = None) -> int:
    value = walk.values.get(tag, b"")
    if not value and default is not None:
        return default
    if len(value) != 2:
        raise damaged(walk.name)
    return int(struct.unpack(walk.order + "H", value)[0])


def _check_fragments(walk: Walk, syntax: str, size: tuple[int, int, int], pixel_bytes: int) -> None:
    """Follow the pieces of compressed pixels to the end of their sequence."""
    columns, rows, frames = size
    pieces: list[tuple[int, int]] = []
    while True:
        tag, length = walk.element()
        if tag == SEQUENCE_END:
            break
        if tag != ITEM or length == UNDEFINED:
            raise damaged(walk.name)
        pieces.append((walk.place, walk.place + length))
        walk.skip(length)
    # The first piece is a table of places, which may be empty.
    if len(pieces) - 1 < frames:
        raise wrong_length(walk.name, frames, max(0, len(pieces) - 1))
    if syntax not in (*_MARKED, *_JPEG_2000, _RUN_LENGTHS):
        return
    if frames == 1:
        pieces[1:] = [(pieces[1][0], pieces[-1][1])]
    if len(pieces) - 1 != frames:
        return
    for start, end in pieces[1:]:
        image = bytes(walk.data[start:end])
        if syntax == _RUN_LENGTHS:
            if not _is_run_lengths(image, pixel_bytes, rows * columns):
                raise damaged(walk.name)
            continue
        sized = _size_of_jpeg_2000(image) if syntax in _JPEG_2000 else _size_of_jpeg(image)
        if sized != (columns, rows) or not image.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise damaged(walk.name)


def _is_run_lengths(image: bytes, planes: int, size: int) -> bool:
    """Return whether a frame of run lengths has its planes of bytes, each of one size.

    GDCM leaves what is missing as it lay in memory.
    """
    if len(image) < 64:
        return False
    count, *starts = struct.unpack_from("<16I", image)
    if count != planes or starts[0] != 64:
        return False
    ends = [*starts[1:count], len(image)]
    return all(
        start < end <= len(image) and _run_length(image, start, end, size) == size
        for start, end in zip(starts[:count], ends, strict=True)
    )


def _run_length(image: bytes, place: int, end: int, most: int) -> int:
    """Return how many bytes runs unpack to, up to a number; none where the last one is cut off."""
    length = 0
    while length < most and place < end:
        code = image[place]
        if code < 128:
            length += code + 1
            place += code + 2
        elif code > 128:
            length += 257 - code
            place += 2
        else:
            place += 1
    return length if place <= end else 0


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
