"""Elements of DICOM headers as text and numbers, whatever is wrong with them."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

__all__ = ["broken", "first_item", "number", "numbers", "quiet_pydicom", "text", "value"]

# What pydicom raises on damaged files, beside errors of its own.
_BROKEN = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    LookupError,
    # A damaged length asks for gigabytes.
    MemoryError,
    struct.error,
)


def broken() -> tuple[type[Exception], ...]:
    """Return the errors that pydicom raises on damaged files. Imports pydicom."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*_BROKEN, BytesLengthException, InvalidDicomError)


# Kinds of elements that are text of ASCII letters, one value or several.
_TEXT = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "LO", "SH")


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from checking values and warning of them, while headers are read."""
    from pydicom import config

    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def value(dataset: Any, key: str | int) -> Any:
    """Return the value of an element, None where it is absent, empty or damaged."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(key) if isinstance(key, str) else key
    if tag is None or not dataset:
        return None
    try:
        return None if dataset.get_item(tag) is None else dataset[tag].value
    except broken():
        return None


def text(dataset: Any, key: str | int) -> str:
    """Return the value of an element as text, several values with a backslash between them."""
    return _printable(_text(dataset, key))


def _printable(text: str) -> str:
    """Replace control characters, which a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _text(dataset: Any, key: str | int) -> str:
    raw = _raw(dataset, key)
    if raw is not None:
        return raw
    found = value(dataset, key)
    if found is None:
        return ""
    if isinstance(found, bytes):
        return found.decode("ascii", "replace").strip(" \0")
    if (
        hasattr(found, "__iter__")
        and not isinstance(found, str)
        and not hasattr(found, "original_string")
    ):
        return "\\".join(str(part).strip(" \0") for part in found)
    return str(found).encode("utf-8", "replace").decode("utf-8").strip(" \0")


def _raw(dataset: Any, key: str | int) -> str | None:
    """Return plain text as it stands in the file: pydicom's conversion takes ten times as long."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement

    tag = tag_for_keyword(key) if isinstance(key, str) else key
    if tag is None or not hasattr(dataset, "get_item"):
        return None
    element = dataset.get_item(tag)
    if element is None:
        return ""
    if not isinstance(element, RawDataElement) or element.value is None:
        return None
    try:
        kind = element.VR or dictionary_VR(tag)
    except KeyError:
        return None
    if kind in _TEXT and element.value.isascii():
        parts = element.value.decode("ascii").split("\\")
        return "\\".join(part.strip(" \0") for part in parts)
    if kind == "US" and len(element.value) == 2:
        order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
        return str(int.from_bytes(element.value, order))
    return None


def numbers(dataset: Any, key: str | int) -> tuple[float, ...]:
    """Return the values of an element as finite numbers; empty where one of them is none."""
    try:
        out = tuple(float(part) for part in text(dataset, key).split("\\"))
    except ValueError:
        return ()
    return out if all(abs(one) < float("inf") for one in out) else ()


def number(dataset: Any, key: str | int) -> float | None:
    """Return the first value of an element as a number, None where it is none."""
    found = numbers(dataset, key)
    return found[0] if found else None


def first_item(dataset: Any, key: str | int) -> Any:
    """Return the first item of a sequence, None where there is none."""
    items = value(dataset, key)
    try:
        return items[0] if items else None
    except broken():
        return None
