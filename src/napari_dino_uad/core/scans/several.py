"""The volumes of a file of four dimensions, by number and by what sets them apart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_dino_uad.core.scans.files.image_files import count_volumes
from napari_dino_uad.core.scans.files.image_format import is_folder
from napari_dino_uad.core.scans.files.nrrd_header import diffusion_weights
from napari_dino_uad.core.scans.formats import case_name

__all__ = ["list_volumes"]

# Lists in a JSON file beside a scan, with a text for each of their values.
_LISTS = {
    "DiffusionBValue": "b = {:.0f}",
    "bvals": "b = {:.0f}",
    "EchoTime": "echo time {:g} s",
    "FrameTimesStart": "from {:g} s",
}

# A file beside a scan that is larger is no list of some hundred numbers.
_LARGEST = 10_000_000


def list_volumes(path: Path | str) -> tuple[str, ...]:
    """Name the volumes of a file; no voxel is read.

    Parameters
    ----------
    path : path
        A file with an image.

    Returns
    -------
    tuple of str
        Such as "volume 1 of 32, b = 1000", where a `.bval` or `.json` file beside the scan, or
        an NRRD header, has b-values; a single one for a file of one volume, and for a folder.

    Raises
    ------
    InputError
        If the file is no image, or its header is damaged.
    """
    path = Path(path)
    count = 1 if is_folder(path) else count_volumes(path)
    texts = _of_bval(path, count) or _of_nrrd(path, count) or _of_json(path, count)
    return tuple(
        ", ".join([f"volume {number} of {count}", *texts[number - 1 : number]])
        for number in range(1, count + 1)
    )


def _beside(path: Path, ending: str) -> str:
    """Return the text of a file of the scan's name with another ending, or nothing."""
    file = path.parent / (case_name(path) + ending)
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return ""
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _of_bval(path: Path, count: int) -> list[str]:
    try:
        values = [float(word) for word in _beside(path, ".bval").split()] if count > 1 else []
    except ValueError:
        return []
    return _texts("b = {:.0f}", values, count)


def _of_nrrd(path: Path, count: int) -> list[str]:
    if count == 1 or path.suffix.lower() not in (".nrrd", ".nhdr"):
        return []
    return _texts("b = {:.0f}", diffusion_weights(path), count)


def _of_json(path: Path, count: int) -> list[str]:
    try:
        fields: Any = json.loads(_beside(path, ".json") or "{}") if count > 1 else {}
    except (ValueError, RecursionError):
        return []
    for key, text in _LISTS.items() if isinstance(fields, dict) else ():
        values = fields.get(key)
        if isinstance(values, list) and all(isinstance(one, int | float) for one in values):
            return _texts(text, values, count)
    return []


def _texts(text: str, values: Sequence[float], count: int) -> list[str]:
    """Write values, if there is one for every volume."""
    if len(values) != count or not all(math.isfinite(value) for value in values):
        return []
    return [text.format(value) for value in values]
