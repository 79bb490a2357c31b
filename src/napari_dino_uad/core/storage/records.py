"""Files that a later run believes: JSON with a checksum of itself, and what is known of others."""

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

# Of our own files the largest have some megabytes.
_LARGEST_BYTES = 64_000_000
_SEAL = "xxh3_128"
_CHUNK = 1 << 20


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is none, whatever is there instead.

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
    """Return plain values with a checksum of them all, as `read_sealed` expects it."""
    return {**values, _SEAL: _seal(values)}


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values as JSON with a checksum of them all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_json(path, sealed(values))


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Read what `write_sealed` wrote; None if it is missing, damaged or was edited."""
    found = read_object(path)
    if found is None or found.pop(_SEAL, None) != _seal(found):
        return None
    return found


def _seal(values: Mapping[str, Any]) -> str:
    # What comes back from a file is what json makes of it: lists for tuples, texts for keys.
    text = json.dumps(json.loads(json.dumps(values)), sort_keys=True)
    return xxh3_128(text.encode()).hexdigest()


def record_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Record what files are, so that `are_as_recorded` can tell later whether they still are.

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
    """Say whether files are still as they were recorded.

    A file that has the size and the time of change of its record is believed without being read:
    to read the maps of a thousand scans again takes minutes. One of another time, such as a copy,
    is read and compared by its checksum.

    Parameters
    ----------
    folder : Path
        Where they lie.
    records : object
        From `record_files`, or whatever a file holds in its place.
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
