"""Fields of text headers, those of MetaImage and NRRD files: numbers and data files, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import LARGEST_EDGE
from napari_dino_uad.core.scans.files.stored_image import MM_OF_UNITS

__all__ = ["bad_header", "file_pattern", "files_beside", "mm_of_unit", "numbers", "read_sizes"]

# What programs write for a unit that they do not know.
_NO_UNIT = ("", "?", "???", "none", "unknown")

_PATTERN = re.compile(r"[^%]*%0?\d{0,2}d[^%]*")

# Slices in files of their own; more than the edge of any scan in such files.
_MOST_FILES = 100_000


def bad_header(name: str, what: str) -> InputError:
    """Return the error to raise for a header that cannot be right.

    Parameters
    ----------
    name : str
        Of the file.
    what : str
        What the header has.
    """
    return InputError(
        f"{name} has {what[:80]} in its header, which is damaged or not supported; export the scan "
        "again, as NIfTI if it can be."
    )


def mm_of_unit(name: str, unit: str) -> float:
    """Return the millimetres of a unit of length.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    unit : str
        As the header gives it.

    Raises
    ------
    InputError
        If it is none that is known.
    """
    text = unit.strip().lower()
    if text in _NO_UNIT:
        return 1.0
    if text not in MM_OF_UNITS:
        raise InputError(
            f"{name} has lengths in {unit[:40]!r}, but mm, um, nm, cm or m are expected; correct "
            "the header or export the scan again."
        )
    return MM_OF_UNITS[text]


def numbers(name: str, key: str, text: str, count: int, kind: type = float) -> list[Any]:
    """Read `count` finite numbers of a header.

    Raises
    ------
    InputError
        If they are not that.
    """
    words = text.split()
    try:
        # Python would read digits of other alphabets, and 1_000.
        if "_" in text or not text.isascii():
            raise ValueError
        values = [kind(word) for word in words]
    except ValueError:
        raise bad_header(name, f"{key!r}: {text!r}") from None
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise bad_header(name, f"{key!r}: {text!r} instead of {count} numbers")
    return values


def file_pattern(name: str, pattern: str, first: int, last: int, step: int) -> list[str]:
    """List the names of numbered data files.

    Parameters
    ----------
    name : str
        Of the header's file.
    pattern : str
        With one number in the way of C, such as ``slice%03d.raw``.
    first, last, step : int
        The numbers.

    Raises
    ------
    InputError
        If the pattern is another, or stands for no or too many files.
    """
    if not _PATTERN.fullmatch(pattern):
        raise bad_header(name, f"the data file pattern {pattern!r}")
    if step == 0 or first < 0 or last < 0 or not 1 <= (last - first) // step + 1 <= _MOST_FILES:
        raise bad_header(name, f"data files {first} to {last} in steps of {step}")
    return [pattern % number for number in range(first, last + (1 if step > 0 else -1), step)]


def files_beside(header: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Find the data files of a header.

    Parameters
    ----------
    header : Path
        The header's file.
    names : sequence of str
        As the header gives them, relative to its folder.

    Raises
    ------
    InputError
        If one lies elsewhere, is missing, or is no regular file.
    """
    out = []
    for name in names:
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        if (
            not name
            or "\0" in name
            or posix.is_absolute()
            or windows.drive
            or windows.root
            or ".." in (*posix.parts, *windows.parts)
        ):
            raise InputError(
                f"{header.name} has its voxels in {name[:80]!r}, but a file in the header's own "
                "folder is expected; put the two together and correct the header."
            )
        file = header.parent / name
        try:
            regular = file.is_file()
        except OSError:
            # Such as a name that is too long.
            regular = False
        if not regular:
            raise InputError(
                f"{header.name} cannot be read as an image: it is expected with its data file "
                f"beside it, but {name[:80]!r} is missing or no regular file; copy both."
            )
        out.append(file)
    return tuple(out)


def read_sizes(
    name: str, dimensions: tuple[str, str], sizes: tuple[str, str], most: int
) -> list[int]:
    """Read the number of axes of a header and the voxels along each.

    Parameters
    ----------
    name : str
        Name of the file.
    dimensions, sizes : tuple of (str, str)
        Key and text of both fields.
    most : int
        Largest number of axes, with those of channels and time.

    Raises
    ------
    InputError
        If the number of axes is not 2 to `most`, or a size is impossible.
    """
    (count,) = numbers(name, *dimensions, 1, int)
    if not 2 <= count <= most:
        raise InputError(
            f"{name} has {count} dimensions in its header, but 2 or 3 are expected; save one "
            "volume of it to its own file."
        )
    found: list[int] = numbers(name, *sizes, count, int)
    if not all(1 <= size <= LARGEST_EDGE for size in found):
        raise bad_header(name, f"the size {' x '.join(map(str, found))}")
    return found
