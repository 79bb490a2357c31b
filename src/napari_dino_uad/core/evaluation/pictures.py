"""Pictures of cases: the worst slice with the outlines of lesions and findings."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError, sentence
from napari_dino_uad.core.evaluation.sheets import CasePicture, check_sheet, write_sheet
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.report.pictures import draw_outline, slice_picture
from napari_dino_uad.core.slices.planes import plane_axis, to_plane

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.folder import EvaluationFolder, OpenedCase

__all__ = ["LEGEND", "LESION", "MARKED", "case_picture", "contact_sheet", "worst_cases"]

#: Colours of the outlines of lesions and findings: apart for colour-blind eyes, on grey.
LESION, MARKED = (0, 200, 255), (255, 150, 0)

_EDGE = 260
_COLUMNS = 5
#: What the outlines are.
LEGEND = (("lesion", LESION), ("marked", MARKED))


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
    check_sheet(path)
    names = worst_cases(folder, count)
    pictures = []
    for number, name in enumerate(names):
        yield Progress("Drawing the worst cases", number, len(names), name)
        pictures.append(_drawn(folder, name, scans))
    if not names:
        raise InputError("No case can be drawn: the evaluation has no failure.")
    write_sheet(path, pictures, LEGEND, columns=_COLUMNS, size=(_EDGE, _EDGE))
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
