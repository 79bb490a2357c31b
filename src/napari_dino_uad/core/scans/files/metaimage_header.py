"""Headers of MetaImage files (.mha, .mhd), checked before the file is decoded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import LONGEST_HEADER
from napari_dino_uad.core.scans.files.stored_voxels import DICOM_TAGS, StoredVoxels
from napari_dino_uad.core.scans.files.text_header import (
    bad_header,
    file_pattern,
    files_beside,
    mm_of_unit,
    numbers,
    read_sizes,
)

__all__ = ["read_metaimage_header"]

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    # Of four bytes in this format, on every system.
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

_LINE = re.compile(rb"\s*([A-Za-z0-9_|.-]+(?: [A-Za-z0-9_|.-]+)*)\s*[=:]\s*(.*?)\s*")

# Synonymous keys; SimpleITK writes the first.
_SAME = (
    ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
    ("TransformMatrix", "Rotation", "Orientation"),
    ("Offset", "Position", "Origin"),
)

_KNOWN = (
    *(key for same in _SAME for key in same),
    "AcquisitionDate", "AnatomicalOrientation", "BinaryData", "CenterOfRotation", "Color",
    "Comment", "CompressedData", "CompressedDataSize", "DimSize", "DistanceUnits",
    "ElementDataFile", "ElementMax", "ElementMin", "ElementNBits", "ElementNumberOfChannels",
    "ElementSize", "ElementSpacing", "ElementToIntensityFunctionOffset",
    "ElementToIntensityFunctionSlope", "ElementType", "HeaderSize", "HeaderSizePerSlice", "ID",
    "Modality", "NDims", "Name", "ObjectSubType", "ObjectType", "ParentID", "SequenceID",
)  # fmt: skip

_FREE_TEXT = ("Comment", "Name")

# Without one of these SimpleITK takes a default; a header with a damaged key would get it too.
_HAVE_DEFAULTS = ("BinaryDataByteOrderMSB", "TransformMatrix", "Offset", "ElementSpacing")

_MOST_CHANNELS = 1024


def read_metaimage_header(path: Path) -> StoredVoxels:
    """Read and check the header of a MetaImage file.

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
    fields, end = _fields(path)
    if fields.get("ObjectType", "Image").lower() != "image":
        raise bad_header(name, f"the object {fields['ObjectType']!r}")
    dimensions = ("NDims", _need(name, fields, "NDims"))
    sizes = read_sizes(name, dimensions, ("DimSize", _need(name, fields, "DimSize")), most=4)
    (channels,) = numbers(name, "channels", fields.get("ElementNumberOfChannels", "1"), 1, int)
    if not 1 <= channels <= _MOST_CHANNELS:
        raise bad_header(name, f"{channels} channels")
    for key, usual in (
        ("ElementToIntensityFunctionSlope", 1),
        ("ElementToIntensityFunctionOffset", 0),
    ):
        if key in fields and numbers(name, key, fields[key], 1) != [usual]:
            raise bad_header(name, f"{key} = {fields[key]}")
    kind = _need(name, fields, "ElementType").upper()
    if kind not in _TYPES:
        raise bad_header(name, f"the type {kind!r}")
    packed = _flag(name, fields, "CompressedData")
    binary = _flag(name, fields, "BinaryData", default=True)
    if packed and not binary:
        raise bad_header(name, "text that is compressed")
    files, offset = _data_files(path, fields, sizes, end)
    if packed and len(files) > 1:
        raise bad_header(name, "several compressed data files")
    (length,) = numbers(name, "CompressedDataSize", fields.get("CompressedDataSize", "0"), 1, int)
    big = _flag(name, fields, "BinaryDataByteOrderMSB")
    return StoredVoxels(
        name=name,
        dtype=np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<"),
        sizes=(channels, *sizes) if channels > 1 else tuple(sizes),
        channel_axis=0 if channels > 1 else None,
        volume_axis=None if len(sizes) < 4 else 4 if channels > 1 else 3,
        files=files,
        encoding="zlib" if packed else "raw" if binary else "text",
        offset=offset,
        packed_bytes=length if packed and length > 0 else None,
        header=_new_header(name, fields, sizes),
        spacing_known="ElementSpacing" in fields or "ElementSize" in fields,
        suffix=".mha",
        tags={key: fields[key] for key in DICOM_TAGS if key in fields},
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header and the position of its end."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while (line := file.readline(LONGEST_HEADER)).endswith(b"\n") or line:
            if file.tell() > LONGEST_HEADER:
                break
            if not line.strip():
                continue
            found = _LINE.fullmatch(line)
            if found is None:
                break
            key, value = (part.decode("latin-1") for part in found.groups())
            key = next((same[0] for same in _SAME if key in same), key)
            if fields.setdefault(key, value) != value:
                raise bad_header(path.name, f"{key!r} twice")
            if "=" in value and key in _KNOWN and key not in _FREE_TEXT:
                # Two lines whose line break was damaged.
                raise bad_header(path.name, f"the line {line.decode('latin-1')!r}")
            if key == "ElementDataFile":
                _refuse_damaged_keys(path.name, fields)
                return fields, file.tell()
    raise InputError(
        f"{path.name} cannot be read as an image; expected a MetaImage header that ends with "
        "ElementDataFile; copy or export the file again."
    )


def _refuse_damaged_keys(name: str, fields: dict[str, str]) -> None:
    """Refuse a key that may be a known one, damaged: that one would count as not there.

    Other programs add keys of their own to headers that are complete otherwise.
    """
    lacking = [key for key in _HAVE_DEFAULTS if key not in fields]
    if "ElementSize" in fields and "ElementSpacing" in lacking:
        lacking.remove("ElementSpacing")
    for key in fields:
        if key in _KNOWN or key in DICOM_TAGS:
            continue
        if get_close_matches(key, _KNOWN, 1, 0.8) and "|" not in key:
            raise bad_header(name, f"the key {key!r}")
        if lacking:
            raise bad_header(name, f"the key {key!r} and no {lacking[0]}")


def _need(name: str, fields: dict[str, str], key: str) -> str:
    if not fields.get(key):
        raise bad_header(name, f"no {key}")
    return fields[key]


def _flag(name: str, fields: dict[str, str], key: str, default: bool = False) -> bool:
    text = fields.get(key, str(default)).lower()
    if text not in ("true", "t", "1", "false", "f", "0"):
        raise bad_header(name, f"{key} = {text}")
    return text in ("true", "t", "1")


def _data_files(
    path: Path, fields: dict[str, str], sizes: list[int], end: int
) -> tuple[tuple[Path, ...], int]:
    """Return the data files and the position of the first voxel in them."""
    name, value = path.name, fields["ElementDataFile"]
    (skipped,) = numbers(name, "HeaderSize", fields.get("HeaderSize", "0"), 1, int)
    if skipped < -1:
        raise bad_header(name, f"HeaderSize = {skipped}")
    words = value.split()
    if value.upper() == "LOCAL":
        if skipped > 0:
            raise bad_header(name, f"HeaderSize = {skipped}")
        return (path,), end
    if words and words[0].upper() == "LIST":
        return _listed(path, words, sizes, end), skipped
    if "%" in value:
        if len(words) not in (3, 4):
            raise bad_header(name, f"the data file {value!r}")
        first, last, step = numbers(name, "data files", " ".join([*words[1:], "1"][:3]), 3, int)
        names = file_pattern(name, words[0], first, last, step)
        return _matching(path, names, sizes), skipped
    return files_beside(path, [value]), skipped


def _listed(path: Path, words: list[str], sizes: list[int], end: int) -> tuple[Path, ...]:
    """Read the list of data files that follows the header."""
    if len(words) > 2 or (
        len(words) == 2 and words[1] not in (str(len(sizes) - 1), f"{len(sizes) - 1}D")
    ):
        raise bad_header(path.name, f"the data files {' '.join(words)!r}")
    with path.open("rb") as file:
        file.seek(end)
        text = file.read(LONGEST_HEADER + 1)
    if len(text) > LONGEST_HEADER:
        raise bad_header(path.name, "a list of data files that is too long")
    names = [line.strip() for line in text.decode("latin-1").splitlines() if line.strip()]
    return _matching(path, names, sizes)


def _matching(path: Path, names: list[str], sizes: list[int]) -> tuple[Path, ...]:
    if len(names) != sizes[-1]:
        raise bad_header(path.name, f"{len(names)} data files for {sizes[-1]} slices")
    return files_beside(path, names)


def _new_header(name: str, fields: dict[str, str], sizes: list[int]) -> str:
    """Write a header of the grid of one volume in mm, of bytes that SimpleITK does not read."""
    count, kept = len(sizes), min(len(sizes), 3)
    unit = mm_of_unit(name, fields.get("DistanceUnits", "mm"))
    spacing = fields.get("ElementSpacing", fields.get("ElementSize", " ".join(["1"] * count)))
    origin = fields.get("Offset", " ".join(["0"] * count))
    axes = fields.get("TransformMatrix", " ".join(map(str, np.eye(count, dtype=int).ravel())))
    matrix = np.reshape(numbers(name, "TransformMatrix", axes, count * count), (count, count))
    lines = {
        "ObjectType": "Image",
        "NDims": kept,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": _plain(matrix[:kept, :kept].ravel().tolist()),
        "Offset": _plain([unit * one for one in numbers(name, "Offset", origin, count)[:kept]]),
        "ElementSpacing": _plain(
            [unit * one for one in numbers(name, "ElementSpacing", spacing, count)[:kept]]
        ),
        "DimSize": _plain(sizes[:kept]),
        "ElementNumberOfChannels": 1,
        "ElementType": "MET_UCHAR",
        "ElementDataFile": "LOCAL",
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def _plain(values: Sequence[float]) -> str:
    return " ".join(map(repr, values))
