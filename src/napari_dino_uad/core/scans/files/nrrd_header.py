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
from napari_dino_uad.core.scans.files.stored_voxels import DICOM_TAGS, StoredVoxels
from napari_dino_uad.core.scans.files.text_header import (
    bad_header,
    file_pattern,
    files_beside,
    numbers,
    read_sizes,
)

__all__ = ["read_nrrd_header"]

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

# Fields that the new header keeps, and fields that are ignored.
_GEOMETRY = ("space", "space dimension", "spacings", "axis mins", "axis maxs", "centers")
_UNUSED = (
    "block size", "content", "labels", "max", "measurement frame", "min", "number", "old max",
    "old min", "sample units", "space units", "thicknesses", "units",
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
    "space directions", "space origin", "type",
)  # fmt: skip
_KNOWN = {*_GEOMETRY, *_UNUSED, *_OTHERS}

# Kinds of axes in space or time; along other axes are the values of one voxel.
_SPATIAL = ("domain", "space", "time", "none", "???")

_WORDS = re.compile(r"[A-Za-z0-9 .?_-]*")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_VECTOR = re.compile(r"none|\(([^()]*)\)")


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
    channel_axis = _channel_axis(name, fields, count)
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
        header=_new_header(name, fields, sizes, channel_axis),
        suffix=".nrrd",
        tags=tags,
    )


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
            if key in DICOM_TAGS:
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


def _channel_axis(name: str, fields: dict[str, str], count: int) -> int | None:
    """Return the axis of the values of one voxel, if there is one."""
    kinds = fields.get("kinds", "").split() or ["domain"] * count
    found = [axis for axis, kind in enumerate(kinds) if kind.lower() not in _SPATIAL]
    if len(kinds) != count or len(found) > 1 or not 2 <= count - len(found) <= 4:
        raise bad_header(name, f"{count} axes of the kinds {' '.join(kinds)!r}")
    if found and kinds[found[0]].lower() == "complex":
        raise InputError(
            f"{name} holds complex numbers, but grey values are expected; save the magnitude."
        )
    return found[0] if found else None


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


def _new_header(
    name: str, fields: dict[str, str], sizes: list[int], channel_axis: int | None
) -> str:
    """Return a header of the same grid, for voxels that SimpleITK does not read."""
    given = [axis != channel_axis for axis in range(len(sizes))]
    lines = [
        "NRRD0005",
        "type: uchar",
        f"dimension: {len(sizes)}",
        f"sizes: {' '.join(map(str, sizes))}",
        "encoding: raw",
    ]
    if "kinds" in fields:
        lines.append(f"kinds: {_words(name, 'kinds', fields['kinds'])}")
    for key in ("space", "space dimension"):
        if key in fields:
            lines.append(f"{key}: {_words(name, key, fields[key])}")
    for key in ("spacings", "axis mins", "axis maxs"):
        if key in fields:
            values = [_number(name, key, word) for word in fields[key].split()]
            _check_axes(name, key, fields[key], [value != "nan" for value in values], given)
            lines.append(f"{key}: {' '.join(values)}")
    if "centers" in fields:
        lines.append(f"centers: {_words(name, 'centers', fields['centers'])}")
    if "space directions" in fields:
        vectors = _vectors(name, "space directions", fields["space directions"], len(sizes))
        present = [vector != "none" for vector in vectors]
        _check_axes(name, "space directions", fields["space directions"], present, given)
        lines.append(f"space directions: {' '.join(vectors)}")
    if "space origin" in fields:
        (origin,) = _vectors(name, "space origin", fields["space origin"], 1)
        lines.append(f"space origin: {origin}")
    return "\n".join([*lines, "", ""])


def _words(name: str, key: str, text: str) -> str:
    if not _WORDS.fullmatch(text):
        raise bad_header(name, f"{key!r}: {text!r}")
    return text


def _number(name: str, key: str, word: str) -> str:
    """Check a number of one axis; NaN stands for none."""
    return "nan" if word.lower() == "nan" else repr(numbers(name, key, word, 1)[0])


def _check_axes(name: str, key: str, text: str, present: list[bool], given: list[bool]) -> None:
    """Refuse a field without a value for an axis in space, which would count as 1 mm."""
    if len(present) != len(given) or not all(
        here for here, needed in zip(present, given, strict=True) if needed
    ):
        raise bad_header(name, f"{key!r}: {text!r}")


def _vectors(name: str, key: str, text: str, count: int) -> list[str]:
    """Check vectors such as (1,0,0); an axis that is not in space has none."""
    out: list[str] = []
    rest = text.strip()
    while rest and len(out) <= count:
        found = _VECTOR.match(rest)
        if found is None:
            raise bad_header(name, f"{key!r}: {text!r}")
        rest = rest[found.end() :].lstrip()
        if found[0] == "none":
            out.append("none")
            continue
        parts = found[1].split(",")
        values = numbers(name, key, " ".join(parts), len(parts))
        if not 2 <= len(values) <= 4:
            raise bad_header(name, f"{key!r}: {text!r}")
        out.append(f"({','.join(map(repr, values))})")
    if len(out) != count:
        raise bad_header(name, f"{key!r}: {text!r}")
    return out
