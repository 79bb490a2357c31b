"""Filters on the rows of an evaluation, written as short conditions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from napari_dino_uad.core.errors import InputError

__all__ = ["make_filter"]

_CONDITION = re.compile(r"^\s*([\w.]+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*$")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_WORDS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "missed": lambda row: row["lesions_met"] < row["lesions"],
    "false": lambda row: row["false_findings"] > 0,
    "lesion": lambda row: row["lesions"] > 0,
    "healthy": lambda row: row["lesions"] == 0,
}


def make_filter(text: str, columns: Sequence[str]) -> Callable[[Mapping[str, Any]], bool]:
    """Return a function that tells whether a row passes a filter.

    Parameters
    ----------
    text : str
        Parts separated by commas, all of which a row must pass: a condition such as
        ``average_precision < 0.3``, one of the words missed, false, lesion and healthy, or part of
        the case's name or note. Empty: all rows pass.
    columns : sequence of str
        Names that conditions may use.

    Raises
    ------
    InputError
        If a condition names an unknown column, or compares a text by size.
    """
    tests = [_test(part.strip(), columns) for part in text.split(",") if part.strip()]
    return lambda row: all(test(row) for test in tests)


def _test(part: str, columns: Sequence[str]) -> Callable[[Mapping[str, Any]], bool]:
    if part.lower() in _WORDS:
        return _WORDS[part.lower()]
    found = _CONDITION.match(part)
    if found is None:
        return lambda row: part.lower() in f"{row['case']} {row.get('note', '')}".lower()
    name, sign, value = found.groups()
    if name not in columns:
        raise InputError(f"There is no column {name}; there are {', '.join(columns)}.")
    compare = _COMPARE[sign]
    try:
        number = float(value)
    except ValueError as error:
        if sign not in ("=", "!="):
            raise InputError(f"{name} {sign} needs a number, got {value!r}.") from error
        return lambda row: compare(str(row[name]).lower(), value.lower())
    return lambda row: isinstance(row[name], int | float) and compare(row[name], number)
