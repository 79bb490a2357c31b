"""Cases drawn at random: the scan, the lesion and the map, side by side on one sheet."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import OF_ONE_SCAN, sentence
from napari_dino_uad.core.evaluation.pictures import LEGEND, LESION, MARKED
from napari_dino_uad.core.evaluation.sheets import CasePicture, check_sheet, write_sheet
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.report.pictures import draw_outline, heat_picture, slice_picture
from napari_dino_uad.core.slices.planes import to_plane

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.folder import EvaluationFolder
    from napari_dino_uad.core.slices.planes import Plane

__all__ = ["sample_grid"]

_EDGE, _BETWEEN, _COLUMNS = 220, 4, 2
_WIDTH = 3 * _EDGE + 2 * _BETWEEN


class _Sample(NamedTuple):
    """A slice of a case: its anatomy as drawn, and arrays in the pixels of the slice."""

    number: int
    anatomy: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    marked: NDArray[np.bool_]
    scores: NDArray[np.float32]
    tissue: NDArray[np.bool_]


def sample_grid(
    folder: EvaluationFolder,
    path: Path,
    *,
    count: int = 20,
    seed: int = 0,
    scans: Path | None = None,
) -> Generator[Progress, None, list[str]]:
    """Draw cases chosen at random, with the same heat scale for all.

    Parameters
    ----------
    folder : EvaluationFolder
    path : Path
        A PNG or SVG file to write.
    count : int
        Largest number of cases.
    seed : int
        Chooses the cases.
    scans : Path, optional
        As in `EvaluationFolder.open`.

    Yields
    ------
    Progress
        Before every case.

    Returns
    -------
    list of str
        The cases, in the order of the evaluation.

    Raises
    ------
    InputError
        If the name ends otherwise, no case has a map, or the file cannot be written.
    """
    check_sheet(path)
    all_names = [row["case"] for row in folder.rows]
    chosen = np.random.default_rng(seed).permutation(len(all_names))[:count]
    names = [all_names[number] for number in sorted(chosen.tolist())]
    plane: Plane = folder.metrics["model"]["preprocessing"]["plane"]
    samples: dict[str, _Sample] = {}
    why_not: dict[str, str] = {}
    for number, name in enumerate(names):
        yield Progress("Drawing random cases", number, len(names), name)
        try:
            samples[name] = _sample(folder, name, plane, scans)
        except OF_ONE_SCAN as error:
            why_not[name] = sentence(error)
    limits = _limits(folder, list(samples.values()))
    pictures = [
        CasePicture(name, (name, f"slice {samples[name].number}"), _drawn(samples[name], limits))
        if name in samples
        else CasePicture(name, (name, why_not[name]), np.zeros((0, 0, 3), np.uint8))
        for name in names
    ]
    write_sheet(path, pictures, LEGEND, columns=_COLUMNS, size=(_WIDTH, _EDGE))
    return names


def _sample(folder: EvaluationFolder, name: str, plane: Plane, scans: Path | None) -> _Sample:
    """Take the slice with most lesion, or with most tissue where there is none."""
    opened = folder.open(name, scans)
    shown = opened.mask if opened.mask.any() else opened.foreground
    number = int(to_plane(shown, plane).sum(axis=(1, 2)).argmax())
    arrays = (opened.mask, opened.findings > 0, opened.scores, opened.foreground)
    mask, marked, scores, tissue = (to_plane(array, plane)[number].copy() for array in arrays)
    anatomy = slice_picture(opened.volume, plane, number, _EDGE)
    return _Sample(number, anatomy, mask, marked, scores, tissue)


def _limits(folder: EvaluationFolder, samples: list[_Sample]) -> tuple[float, float]:
    """Return the scores between which heat is drawn: from the threshold of the findings up."""
    low = folder.thresholds[folder.metrics["lesions"]["rate"]]
    inside = [one.scores[one.tissue] for one in samples if one.tissue.any()]
    high = float(np.percentile(np.concatenate(inside), 99.9)) if inside else low
    return low, max(high, low + 1e-6)


def _drawn(sample: _Sample, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Draw the scan, the scan with both outlines, and the map, from left to right."""
    outlined = sample.anatomy.copy()
    draw_outline(outlined, sample.lesion, LESION)
    draw_outline(outlined, sample.marked, MARKED)
    heat = heat_picture(sample.anatomy, sample.scores, limits, sample.tissue)
    gap = np.full((len(heat), _BETWEEN, 3), 16.0)
    return np.concatenate([sample.anatomy, gap, outlined, gap, heat], axis=1).astype(np.uint8)
