"""PNG files, checked before libpng decodes them.

libpng checks the image itself, but only warns about other damaged chunks, and it first allocates
memory for the size in the header.
"""

from __future__ import annotations

import struct
from pathlib import Path

from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.files.integrity import damaged

__all__ = ["PNG_MAGIC", "check_png"]

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

# Channels by colour type, and their allowed bits. A palette becomes colours.
_CHANNELS = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def check_png(path: Path, name: str) -> None:
    """Refuse a PNG file with incomplete chunks or an impossible size.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Name of the file, for messages.

    Raises
    ------
    InputError
        If a chunk is damaged or missing, or the image does not fit into memory.
    """
    from isal import isal_zlib

    data = path.read_bytes()
    start = len(PNG_MAGIC)
    kinds: list[bytes] = []
    while start < len(data) and kinds[-1:] != [b"IEND"]:
        if start + 12 > len(data):
            raise damaged(name)
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if end + 4 > len(data):
            raise damaged(name)
        checksum = isal_zlib.crc32(memoryview(data)[start + 4 : end])
        if checksum != struct.unpack_from(">I", data, end)[0]:
            raise damaged(name)
        if kind == b"IHDR":
            _check_header(data[start + 8 : end], name)
        kinds.append(kind)
        start = end + 4
    if kinds[:1] != [b"IHDR"] or kinds[-1:] != [b"IEND"] or b"IDAT" not in kinds:
        raise damaged(name)


def _check_header(header: bytes, name: str) -> None:
    if len(header) != 13:
        raise damaged(name)
    columns, rows, bits, colour = struct.unpack_from(">IIBB", header)
    if bits not in _BITS.get(colour, ()):
        raise damaged(name)
    check_reading(name, (columns, rows), _CHANNELS[colour] * max(1, bits // 8))
