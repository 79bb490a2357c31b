"""Read tables that users write: CSV and TSV, as spreadsheets save them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from napari_dino_uad.core.errors import InputError

__all__ = ["TableFile", "read_table"]


class TableFile(NamedTuple):
    """The rows of a table.

    Attributes
    ----------
    columns : tuple of str
        Titles of the columns.
    rows : tuple of dict
        The texts of a row by column, without space around them; "" where a cell is empty.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def read_table(path: Path, what: str) -> TableFile:
    """Read a table.

    Parameters
    ----------
    path : Path
        Columns are separated by tabs in a .tsv file, otherwise by commas, or by semicolons where
        the first line has no comma.
    what : str
        What the table is, for messages: "table of scans".

    Raises
    ------
    InputError
        If the file cannot be read, or a row has more cells than there are titles.
    """
    try:
        text = path.read_text("utf-8-sig")
        lines = text.splitlines()
        first = lines[0] if lines else ""
        comma = ";" if ";" in first and "," not in first else ","
        reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else comma)
        rows = list(reader)
        columns = tuple((name or "").strip() for name in reader.fieldnames or ())
    except UnicodeDecodeError as error:
        raise InputError(
            f"Expected text in UTF-8, but the {what} {path} is in another encoding; in a "
            "spreadsheet, save it as CSV UTF-8."
        ) from error
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"The {what} {path} cannot be read: {reason}; check the path and the file."
        ) from error
    for number, row in enumerate(rows, 2):
        if None in row:
            raise InputError(
                f"The {what} {path} has more cells in line {number} than titles in the first line; "
                "put names that hold a comma in quotation marks."
            )
    cleaned = tuple(
        {(key or "").strip(): (value or "").strip() for key, value in row.items()} for row in rows
    )
    return TableFile(columns, cleaned)
