"""Pictures of cases: the worst slice with the outlines of lesions and findings."""

from __future__ import annotations

import html
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError, sentence
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.report.pictures import draw_outline, png_uri, slice_picture
from napari_dino_uad.core.slices.planes import plane_axis, to_plane
from napari_dino_uad.core.storage.atomic import staged, writing

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.folder import EvaluationFolder, OpenedCase

__all__ = ["LESION", "MARKED", "CasePicture", "case_picture", "contact_sheet", "worst_cases"]

#: Colours of the outlines of lesions and findings: apart for colour-blind eyes, on grey.
LESION, MARKED = (0, 200, 255), (255, 150, 0)

_EDGE = 260
_COLUMNS = 5
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


def worst_cases(folder: EvaluationFolder, count: int = 20) -> list[str]:
    """Choose the worst cases: by their largest failure, then by average precision.

    Parameters
    ----------
    folder : EvaluationFolder
    count : int
        Largest number of cases.
    """
    order = [one.case for one in folder.failures]
    ranked = sorted(
        (row for row in folder.rows if row["average_precision"] is not None),
        key=lambda row: row["average_precision"],
    )
    return list(dict.fromkeys([*order, *(row["case"] for row in ranked)]))[:count]


def case_picture(
    folder: EvaluationFolder, opened: OpenedCase, edge: int = _EDGE
) -> NDArray[np.uint8]:
    """Draw the slice of a case's largest failure, or of most lesion, with both outlines.

    Parameters
    ----------
    folder : EvaluationFolder
    opened : OpenedCase
    edge : int
        Longer edge in pixels.

    Returns
    -------
    ndarray of uint8, (rows, cols, 3)
    """
    plane = folder.metrics["model"]["preprocessing"]["plane"]
    failure = folder.largest_failure(opened.name)
    if failure is not None:
        number = failure.voxel[plane_axis(plane)]
    else:
        number = int(to_plane(opened.mask, plane).sum(axis=(1, 2)).argmax())
    truth, found = (to_plane(array, plane)[number] for array in (opened.mask, opened.findings > 0))
    picture = slice_picture(opened.volume, plane, number, edge)
    draw_outline(picture, truth, LESION)
    draw_outline(picture, found, MARKED)
    return picture.astype(np.uint8)


def contact_sheet(
    folder: EvaluationFolder, path: Path, *, count: int = 20, scans: Path | None = None
) -> Generator[Progress, None, list[str]]:
    """Write the worst cases as one picture.

    Parameters
    ----------
    folder : EvaluationFolder
    path : Path
        A PNG or SVG file to write.
    count : int
        Largest number of cases.
    scans : Path, optional
        As in `EvaluationFolder.open`.

    Yields
    ------
    Progress
        Before every case.

    Returns
    -------
    list of str
        The cases, the worst first.

    Raises
    ------
    InputError
        If the name ends otherwise, no case has a map, or the file cannot be written.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"A contact sheet is a .png or .svg file, got {path.name}; rename it.")
    names = worst_cases(folder, count)
    pictures = []
    for number, name in enumerate(names):
        yield Progress("Drawing cases", number, len(names), name)
        pictures.append(_drawn(folder, name, scans))
    if not any(one.picture.size for one in pictures):
        reason = pictures[0].lines[-1] if pictures else "the evaluation has no failure."
        raise InputError(f"No case can be drawn: {reason}")
    with writing(path), staged(path.parent) as partial:
        if path.suffix.lower() == ".svg":
            (partial / path.name).write_text(_svg(pictures), encoding="utf-8")
        else:
            _png(pictures).save(partial / path.name, "PNG")
    return names


def _drawn(folder: EvaluationFolder, name: str, scans: Path | None) -> CasePicture:
    row = folder.row(name)
    lines = [name]
    if row["average_precision"] is not None:
        dice = row[f"dice_at_fpr_{folder.metrics['lesions']['rate']:g}"]
        lines.append(f"AP {row['average_precision']:.2f}, Dice {dice:.2f}")
    failure = folder.largest_failure(name)
    lines.append("no failure" if failure is None else failure.text())
    try:
        return CasePicture(name, tuple(lines), case_picture(folder, folder.open(name, scans)))
    except OF_ONE_SCAN as error:
        return CasePicture(name, (name, sentence(error)), np.zeros((0, 0, 3), np.uint8))


def _places(pictures: list[CasePicture]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Return the corner (x, y) of each picture, and the size of the sheet."""
    columns = min(_COLUMNS, len(pictures))
    across, down = _EDGE + _GAP, _EDGE + _TEXT + _GAP
    rows = -(-len(pictures) // columns)
    corners = [
        (_GAP + number % columns * across, _GAP + _TEXT + number // columns * down)
        for number in range(len(pictures))
    ]
    return corners, (_GAP + columns * across, _GAP + _TEXT + rows * down)


_LEGEND = (("lesion", LESION), ("marked", MARKED))


def _png(pictures: list[CasePicture]) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    corners, size = _places(pictures)
    sheet = Image.new("RGB", size, (16, 16, 16))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for number, (name, colour) in enumerate(_LEGEND):
        draw.text((_GAP + 90 * number, _GAP), f"- {name}", fill=colour, font=font)
    for one, (x, y) in zip(pictures, corners, strict=True):
        if one.picture.size:
            sheet.paste(Image.fromarray(one.picture), (x, y))
        for line, text in enumerate((one.case, "; ".join(one.lines[1:]))):
            draw.text((x, y + _EDGE + 4 + 14 * line), _cut(text), fill=(230, 230, 230), font=font)
    return sheet


def _svg(pictures: list[CasePicture]) -> str:
    corners, (width, height) = _places(pictures)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#101010"/>',
    ]
    for number, (name, colour) in enumerate(_LEGEND):
        fill = "#{:02x}{:02x}{:02x}".format(*colour)
        parts.append(f'<text x="{_GAP + 90 * number}" y="{_GAP + 12}" fill="{fill}">{name}</text>')
    for one, (x, y) in zip(pictures, corners, strict=True):
        if one.picture.size:
            rows, cols = one.picture.shape[:2]
            parts.append(
                f'<image x="{x}" y="{y}" width="{cols}" height="{rows}" '
                f'href="{png_uri(one.picture)}"/>'
            )
        for line, text in enumerate((one.case, "; ".join(one.lines[1:]))):
            parts.append(
                f'<text x="{x}" y="{y + _EDGE + 15 + 15 * line}" fill="#e6e6e6">'
                f"{html.escape(_cut(text))}</text>"
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _cut(text: str, most: int = 42) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
