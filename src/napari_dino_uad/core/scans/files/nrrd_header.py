"""Headers of NRRD files (.nrrd, .nhdr), checked before the file is decoded.

The format is described at https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import LONGEST_HEADER
from napari_dino_uad.core.scans.files.nrrd_grid import NrrdGrid
from napari_dino_uad.core.scans.files.stored_voxels import DICOM_TAGS, StoredVoxels
from napari_dino_uad.core.scans.files.text_header import (
    bad_header,
    file_pattern,
    files_beside,
    numbers,
    read_sizes,
)

__all__ = ["diffusion_weights", "read_nrrd_header"]

_NAMES_OF_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPES = {name: code for code, names in _NAMES_OF_TYPES.items() for name in names.split(", ")}

_ENCODINGS = {
    "raw": "raw",
    "txt": "text",
    "text": "text",
    "ascii": "text",
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bzip2",
    "bzip2": "bzip2",
}

# What the new header keeps as it is, and what says nothing that is used.
# Ends of the axes alone give no spacing: they may lie at the edges of voxels or in their middle.
_SPACED = ("space directions", "spacings")
_GEOMETRY = ("space", "space dimension", "spacings", "axis mins", "axis maxs", "centers")
_UNUSED = (
    "block size", "content", "labels", "max", "measurement frame", "min", "number", "old max",
    "old min", "sample units", "thicknesses",
)  # fmt: skip
_SAME = {
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "blocksize": "block size",
    "byteskip": "byte skip",
    "centerings": "centers",
    "datafile": "data file",
    "lineskip": "line skip",
    "oldmax": "old max",
    "oldmin": "old min",
    "sampleunits": "sample units",
}
_OTHERS = (
    "byte skip", "data file", "dimension", "encoding", "endian", "kinds", "line skip", "sizes",
    "space directions", "space origin", "space units", "type", "units",
)  # fmt: skip
_KNOWN = {*_GEOMETRY, *_UNUSED, *_OTHERS}

# Kinds of axes that lie in space, and those that count volumes; along the others the values of one
# voxel lie.
_SPATIAL = ("domain", "space", "none", "???")
_COUNTING = ("time", "list")

_BLANK_LINE = re.compile(rb"\n\r?\n")

# Keys of diffusion scans: the first says that it is one, the others have b-values and directions.
_DIFFUSION = ("modality", "DWMRI")


def read_nrrd_header(path: Path) -> StoredVoxels:
    """Read and check the header of an NRRD file.

    Parameters
    ----------
    path : Path
        A regular file.

    Returns
    -------
    StoredVoxels
        Position and type of the voxels, which are not read.

    Raises
    ------
    InputError
        If the header is damaged, not supported, or names files elsewhere.
    """
    name = path.name
    fields, tags, end = _fields(path)
    for key in ("dimension", "sizes", "type", "encoding"):
        if key not in fields:
            raise bad_header(name, f"no {key!r}")
    dimensions = ("dimension", fields["dimension"])
    sizes = read_sizes(name, dimensions, ("sizes", fields["sizes"]), most=5)
    count = len(sizes)
    code = _TYPES.get(fields["type"].lower())
    encoding = _ENCODINGS.get(fields["encoding"].lower())
    if code is None or encoding is None:
        raise bad_header(name, f"the type {fields['type']!r} encoded as {fields['encoding']!r}")
    channel_axis, volume_axis = _other_axes(name, fields, count, tags)
    files: tuple[Path, ...] = (path,)
    if "data file" in fields:
        files = _data_files(path, fields["data file"], sizes, end)
        end = 0
    (lines,) = numbers(name, "line skip", fields.get("line skip", "0"), 1, int)
    (skipped,) = numbers(name, "byte skip", fields.get("byte skip", "0"), 1, int)
    if lines < 0 or skipped < -1 or (skipped == -1 and encoding != "raw"):
        raise bad_header(name, f"{lines} lines and {skipped} bytes to skip")
    if lines and "data file" not in fields:
        raise bad_header(name, f"{lines} lines to skip")
    packed = encoding in ("gzip", "bzip2")
    return StoredVoxels(
        name=name,
        dtype=np.dtype(code).newbyteorder(_order(name, fields, code, encoding)),
        sizes=tuple(sizes),
        channel_axis=channel_axis,
        files=files,
        encoding=encoding,
        offset=end if packed else -1 if skipped < 0 else end + skipped,
        lines=lines,
        skip_unpacked=skipped if packed else 0,
        header=NrrdGrid(name, fields, sizes, (channel_axis, volume_axis)).text(),
        suffix=".nrrd",
        volume_axis=volume_axis,
        spacing_known=any(key in fields for key in _SPACED),
        tags=tags,
    )


def diffusion_weights(path: Path) -> list[float]:
    """Return the b-values of a diffusion scan, one for each volume; nothing of another scan.

    The header has the largest, and directions whose squared length is the share of it.

    Raises
    ------
    InputError
        If the header is damaged.
    """
    _, tags, _ = _fields(path)
    key = "DWMRI_b-value"
    if key not in tags:
        return []
    (largest,) = numbers(path.name, key, tags[key], 1)
    gradients = sorted(one for one in tags if one.startswith("DWMRI_gradient_"))
    squares = [
        sum(part * part for part in numbers(path.name, one, tags[one], 3)) for one in gradients
    ]
    most = max(squares, default=0.0)
    return [largest * square / most if most else 0.0 for square in squares]


def _fields(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the fields of a header, its DICOM tags and the position of its end."""
    fields: dict[str, str] = {}
    tags: dict[str, str] = {}
    name = path.name
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    # Voxels are not split into lines.
    blank = _BLANK_LINE.search(head)
    magic, *lines = (head[: blank.end()] if blank else head).split(b"\n")
    if not re.fullmatch(rb"NRRD000[1-5]\r?", magic):
        raise InputError(
            f"{name} cannot be read as an image; expected NRRD0001 to NRRD0005 as its first line; "
            "copy or export the file again."
        )
    end = len(magic) + 1
    for line in lines:
        end += len(line) + 1
        text = line.decode("latin-1").rstrip("\r")
        if not text:
            # The voxels follow an empty line.
            if end <= len(head):
                return fields, tags, end
            break
        if text[0] == "#":
            continue
        key, sign, value = text.partition(":")
        if not sign:
            raise bad_header(name, f"the line {text!r}")
        if value.startswith("="):
            if key in DICOM_TAGS or key.startswith(_DIFFUSION):
                tags[key] = value[1:]
            continue
        key = _SAME.get(key.strip().lower(), key.strip().lower())
        if key not in _KNOWN or key in fields:
            raise bad_header(name, f"the line {text!r}")
        fields[key] = value.strip()
        if key == "data file" and fields[key].upper().split()[:1] == ["LIST"]:
            return fields, tags, end
    if len(head) == LONGEST_HEADER:
        raise bad_header(name, f"more than {LONGEST_HEADER} bytes")
    if "data file" not in fields:
        raise bad_header(name, "no end")
    return fields, tags, len(head)


def _other_axes(
    name: str, fields: dict[str, str], count: int, tags: dict[str, str]
) -> tuple[int | None, int | None]:
    """Find the axis of the values of one voxel and the one that counts volumes."""
    kinds = [one.lower() for one in fields.get("kinds", "").split()] or ["domain"] * count
    if "complex" in kinds:
        raise InputError(
            f"{name} holds complex numbers, but grey values are expected; save the magnitude."
        )
    counting = [axis for axis, kind in enumerate(kinds) if kind in _COUNTING]
    spatial = [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL]
    channels = [axis for axis in range(len(kinds)) if axis not in (*counting, *spatial)]
    if tags.get("modality", "").strip() == "DWMRI" and not counting:
        # Older diffusion scans call their volumes a vector.
        counting, channels = channels, []
    if len(spatial) == 4 and not counting:
        # Of four axes of no other kind the slowest is time.
        counting = [spatial.pop()]
    if len(kinds) != count or len(channels) > 1 or len(counting) > 1 or not 2 <= len(spatial) <= 3:
        raise bad_header(name, f"{count} axes of the kinds {' '.join(kinds)!r}")
    return channels[0] if channels else None, counting[0] if counting else None


def _order(name: str, fields: dict[str, str], code: str, encoding: str) -> Literal["<", ">", "="]:
    """Return the byte order as numpy writes it."""
    order = fields.get("endian", "").lower()
    if order == "little":
        return "<"
    if order == "big":
        return ">"
    if (order or encoding != "text") and code[1] != "1":
        raise bad_header(name, f"the byte order {order!r}")
    return "="


def _data_files(path: Path, value: str, sizes: list[int], end: int) -> tuple[Path, ...]:
    words = value.split()
    name = path.name
    if words and words[0].upper() == "LIST":
        if len(words) > 1 and words[1:] != [str(len(sizes) - 1)]:
            raise bad_header(name, f"the data files {value!r}")
        with path.open("rb") as file:
            file.seek(end)
            text = file.read(LONGEST_HEADER + 1)
        if len(text) > LONGEST_HEADER:
            raise bad_header(name, "a list of data files that is too long")
        names = [line.strip() for line in text.decode("latin-1").splitlines() if line.strip()]
    elif "%" in value:
        if len(words) not in (4, 5) or (len(words) == 5 and words[4] != str(len(sizes) - 1)):
            raise bad_header(name, f"the data files {value!r}")
        names = file_pattern(
            name, words[0], *numbers(name, "data file", " ".join(words[1:4]), 3, int)
        )
    else:
        return files_beside(path, [value])
    if len(names) != sizes[-1]:
        raise bad_header(name, f"{len(names)} data files for {sizes[-1]} slices")
    return files_beside(path, names)
