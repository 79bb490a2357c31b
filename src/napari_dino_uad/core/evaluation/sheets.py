"""Pictures of cases in rows on one sheet, as PNG or SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.report.pictures import png_uri
from napari_dino_uad.core.storage.atomic import staged, writing

__all__ = ["CasePicture", "check_sheet", "write_sheet"]

#: Names with the colours they are drawn in.
Legend = Sequence[tuple[str, tuple[int, int, int]]]

_GAP, _TEXT = 8, 34


@dataclass(frozen=True)
class CasePicture:
    """A slice of a case.

    Attributes
    ----------
    case : str
    lines : tuple of str
        What is written below.
    picture : ndarray of uint8, (rows, cols, 3)
        Without content if the case could not be opened; `lines` say why then.
    """

    case: str
    lines: tuple[str, ...]
    picture: NDArray[np.uint8]


def check_sheet(path: Path) -> None:
    """Refuse a file that is neither PNG nor SVG."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"A sheet is a .png or .svg file, got {path.name}; rename it.")


def write_sheet(
    path: Path,
    pictures: Sequence[CasePicture],
    legend: Legend,
    *,
    columns: int,
    size: tuple[int, int],
) -> None:
    """Write pictures as one.

    Parameters
    ----------
    path : Path
        A PNG or SVG file to write.
    pictures : sequence of CasePicture
    legend : sequence of (str, (red, green, blue))
        What stands above them.
    columns : int
        Largest number of pictures in a row.
    size : tuple of int
        Largest width and height of a picture in pixels.

    Raises
    ------
    InputError
        If the name ends otherwise, no case could be drawn, or the file cannot be written.
    """
    check_sheet(path)
    if not any(one.picture.size for one in pictures):
        reason = pictures[0].lines[-1] if pictures else "there is none."
        raise InputError(f"No case can be drawn: {reason}")
    layout = _Sheet(pictures, legend, columns, size)
    with writing(path), staged(path.parent) as partial:
        if path.suffix.lower() == ".svg":
            (partial / path.name).write_text(_svg(layout), encoding="utf-8")
        else:
            _png(layout).save(partial / path.name, "PNG")


@dataclass(frozen=True)
class _Sheet:
    """Pictures in rows; each cell has `size`, (width, height), and two lines of text below."""

    pictures: Sequence[CasePicture]
    legend: Legend
    columns: int
    size: tuple[int, int]

    def corner(self, number: int) -> tuple[int, int]:
        """Return the corner (x, y) of a picture."""
        columns = min(self.columns, len(self.pictures))
        across, down = self.size[0] + _GAP, self.size[1] + _TEXT + _GAP
        return _GAP + number % columns * across, _GAP + _TEXT + number // columns * down

    @property
    def whole(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        columns = min(self.columns, len(self.pictures))
        x, y = self.corner(columns * -(-len(self.pictures) // columns) - 1)
        return x + self.size[0] + _GAP, y + self.size[1] + _TEXT + _GAP


def _png(layout: _Sheet) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    sheet = Image.new("RGB", layout.whole, (16, 16, 16))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for number, (name, colour) in enumerate(layout.legend):
        draw.text((_GAP + 90 * number, _GAP), f"- {name}", fill=colour, font=font)
    for number, one in enumerate(layout.pictures):
        x, y = layout.corner(number)
        if one.picture.size:
            sheet.paste(Image.fromarray(one.picture), (x, y))
        for line, text in enumerate((one.case, "; ".join(one.lines[1:]))):
            draw.text(
                (x, y + layout.size[1] + 4 + 14 * line),
                _cut(text, layout.size[0]),
                fill=(230, 230, 230),
                font=font,
            )
    return sheet


def _svg(layout: _Sheet) -> str:
    width, height = layout.whole
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#101010"/>',
    ]
    for number, (name, colour) in enumerate(layout.legend):
        fill = "#{:02x}{:02x}{:02x}".format(*colour)
        parts.append(f'<text x="{_GAP + 90 * number}" y="{_GAP + 12}" fill="{fill}">{name}</text>')
    for number, one in enumerate(layout.pictures):
        x, y = layout.corner(number)
        if one.picture.size:
            rows, cols = one.picture.shape[:2]
            parts.append(
                f'<image x="{x}" y="{y}" width="{cols}" height="{rows}" '
                f'href="{png_uri(one.picture)}"/>'
            )
        for line, text in enumerate((one.case, "; ".join(one.lines[1:]))):
            parts.append(
                f'<text x="{x}" y="{y + layout.size[1] + 15 + 15 * line}" fill="#e6e6e6">'
                f"{html.escape(_cut(text, layout.size[0]))}</text>"
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _cut(text: str, width: int) -> str:
    """Shorten a line to what fits into a cell of some pixels."""
    most = width // 6
    return text if len(text) <= most else f"{text[: most - 3]}..."
