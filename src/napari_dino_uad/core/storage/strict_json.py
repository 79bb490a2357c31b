"""Strict JSON: refuse what Python's parser accepts but none of our programs writes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["parse_json", "read_json"]

#: Bytes a file of settings may have; ours have a few thousand.
_LARGEST_FILE = 4_000_000

# Digits of 2 ** 64, with a sign.
_LONGEST_INTEGER = 20


def parse_json(text: bytes | str) -> Any:
    """Parse JSON.

    Parameters
    ----------
    text : bytes or str
        Bytes must be UTF-8.

    Returns
    -------
    Any
        Plain values.

    Raises
    ------
    ValueError
        If it is not JSON, names a field twice, is nested too deeply, or holds NaN, an infinity
        or a number too large for 64 bits. The message is a clause such as "its text is not JSON".
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_constant,
        )
        # A lone surrogate is not valid text and cannot be written to any file.
        if "\\u" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise ValueError("its text is not in UTF-8") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError("its text is not JSON") from error
    return value


def read_json(path: Path, largest: int = _LARGEST_FILE) -> Any:
    """Read a regular file of JSON.

    Parameters
    ----------
    path : Path
        The file.
    largest : int
        Maximum size in bytes.

    Returns
    -------
    Any
        Plain values.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not a regular file, is too large, or `parse_json` refuses it.
    """
    # Reading a pipe could wait forever.
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        text = file.read(largest + 1)
    if len(text) > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    return parse_json(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {twice[:80]!r} twice")
    return out


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {text[:40]}, which is too large")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"it holds {text}, which is not a number")
