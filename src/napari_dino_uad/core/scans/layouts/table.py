"""Tables of scans: a CSV or TSV file with a row for each scan."""

from __future__ import annotations

import os
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.cases import Case
from napari_dino_uad.core.storage.tables import TableFile, read_table

__all__ = ["is_table", "table_cases"]

_SUFFIXES = (".csv", ".tsv")
# The second names are those of the published split of VisA.
_SCAN, _LABEL = ("scan", "image"), ("healthy", "label")
_YES = frozenset(("yes", "true", "1", "healthy", "normal", "good"))
_NO = frozenset(("no", "false", "0", "ill", "abnormal", "anomaly", "bad", ""))


def is_table(path: Path) -> bool:
    """Return whether a path has the name of a table."""
    return path.suffix.lower() in _SUFFIXES


def table_cases(path: Path, rows: str | None = None) -> list[Case]:
    """List the scans of a table.

    Parameters
    ----------
    path : Path
        A table with a column ``scan`` or ``image`` of paths, relative to the table's folder or
        absolute. The columns ``mask``, of paths, and ``healthy`` or ``label``, of yes or no, are
        optional; others serve to choose rows.
    rows : str, optional
        Which rows: ``split=train``, or several conditions with commas between them.

    Raises
    ------
    InputError
        If the table cannot be read, has no such column or rows, or names a scan or mask that is
        not there, or one scan twice.
    """
    table = read_table(path, "table of scans")
    scan_column = _column(table, _SCAN)
    label_column = _column(table, _LABEL)
    if scan_column is None:
        raise InputError(
            f"A table of scans needs a column scan with their paths; {path} has "
            f"{', '.join(table.columns) or 'none'}."
        )
    conditions = _conditions(path, table, rows)
    cases = []
    for number, row in enumerate(table.rows, 2):
        if any(row[name] != value for name, value in conditions):
            continue
        line = f"Line {number} of {path}"
        scan = _path(row[scan_column], path.parent, f"{line}, column {scan_column}")
        if scan is None:
            raise InputError(f"{line} has no scan; fill in its path or delete the line.")
        mask = _path(row.get("mask", ""), path.parent, f"{line}, column mask")
        healthy = label_column is not None and _healthy(row[label_column], label_column, line)
        if healthy and mask is not None:
            raise InputError(
                f"{line} says that {scan.name} is healthy, but has a mask; delete one of them."
            )
        cases.append(Case(scan, mask, healthy))
    if not cases:
        asked = f" with {rows}" if rows else ""
        raise InputError(f"The table {path} has no row{asked}; check the table and the pattern.")
    seen: set[Path] = set()
    for case in cases:
        assert isinstance(case.scan, Path)
        if case.scan in seen:
            raise InputError(f"{path} names the scan {case.scan} twice; leave one row of it.")
        seen.add(case.scan)
    return cases


def _column(table: TableFile, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _conditions(path: Path, table: TableFile, rows: str | None) -> list[tuple[str, str]]:
    conditions = []
    for part in rows.split(",") if rows else ():
        name, equals, value = (text.strip() for text in part.partition("="))
        if not equals or name not in table.columns:
            raise InputError(
                f"A pattern for the table {path.name} chooses rows by a column and its value, such "
                f"as split=train, got {part.strip()!r}; its columns are "
                f"{', '.join(table.columns)}."
            )
        conditions.append((name, value))
    return conditions


def _path(text: str, folder: Path, place: str) -> Path | None:
    """Return the path in a cell, or None if the cell is empty."""
    if not text:
        return None
    path = Path(os.path.normpath(folder / Path(text).expanduser()))
    if not path.exists():
        raise InputError(
            f"{place}: there is no {path}; paths are relative to the folder of the table."
        )
    return path


def _healthy(text: str, column: str, line: str) -> bool:
    word = text.casefold()
    if word not in _YES | _NO:
        raise InputError(f"{line}, column {column}: expected yes or no, got {text!r}; change it.")
    return word in _YES
