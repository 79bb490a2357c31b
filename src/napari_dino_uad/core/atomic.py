"""Writing a text file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["write_csv", "write_json", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, under a temporary name first."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table as CSV, under a temporary name first.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str
        Its columns.
    rows : iterable of mapping
        A value for each column; cells of None are empty.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
