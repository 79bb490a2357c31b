"""Files that a later run relies on: JSON with its own checksum, and records of other files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from napari_dino_uad.core.storage.atomic import write_json
from napari_dino_uad.core.storage.strict_json import read_json

__all__ = [
    "are_as_recorded",
    "read_object",
    "read_sealed",
    "record_files",
    "sealed",
    "write_sealed",
]

# Our own largest files have a few megabytes.
_LARGEST_BYTES = 64_000_000
_SEAL = "xxh3_128"
_CHUNK = 1 << 20


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if the file is missing or anything else.

    Parameters
    ----------
    path : Path
        A file, which need not exist.
    """
    try:
        found = read_json(path, _LARGEST_BYTES)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with their checksum, as `read_sealed` expects them."""
    return {**values, _SEAL: _seal(values)}


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values as JSON with their checksum.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_json(path, sealed(values))


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Read a file of `write_sealed`; None if it is missing, damaged or was edited."""
    found = read_object(path)
    if found is None or found.pop(_SEAL, None) != _seal(found):
        return None
    return found


def _seal(values: Mapping[str, Any]) -> str:
    # A file returns what JSON makes of the values: lists for tuples, texts for keys.
    text = json.dumps(json.loads(json.dumps(values)), sort_keys=True)
    return xxh3_128(text.encode()).hexdigest()


def record_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Record the state of files, so that `are_as_recorded` can detect changes later.

    Parameters
    ----------
    paths : iterable of Path
        Existing files of different names.

    Returns
    -------
    dict
        By name: size in bytes, time of change in nanoseconds and XXH3 with 128 bits.
    """
    records = {}
    for path in paths:
        status = path.stat()
        records[path.name] = {
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "xxh3_128": _checksum(path),
        }
    return records


def are_as_recorded(folder: Path, records: Any, names: Iterable[str]) -> bool:
    """Return whether files are still as they were recorded.

    A file with the recorded size and time of change is trusted without being read: reading the
    maps of a thousand scans takes minutes. A file of another time, such as a copy, is read and
    compared by its checksum.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    records : object
        From `record_files`; anything else, as from an edited file, counts as changed.
    names : iterable of str
        Files that must be there.
    """
    for name in names:
        record = records.get(name) if isinstance(records, dict) else None
        path = folder / name
        if not isinstance(record, dict) or not path.is_file():
            return False
        try:
            status = path.stat()
            if status.st_size != record.get("bytes"):
                return False
            if status.st_mtime_ns == record.get("modified_ns"):
                continue
            if _checksum(path) != record.get("xxh3_128"):
                return False
        except OSError:
            return False
    return True


def _checksum(path: Path) -> str:
    digest = xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
