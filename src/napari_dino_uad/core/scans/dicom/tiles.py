"""Slices tiled into one picture: mosaics of Siemens, grids of UIH."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.core.scans.dicom.elements import number, numbers, value
from napari_dino_uad.core.scans.dicom.headers import Header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Tiles", "csa_tags", "tiled_frames", "tiles_of"]

#: Rows and columns of each tile, as (first row, first column, rows, columns), and its position.
Tiles = list[tuple[tuple[int, int, int, int], tuple[float, ...]]]

_CSA = (0x00291010, 0x00291020)
_SIEMENS_COUNT = 0x0019100A
_UIH_COUNT = 0x00651050
_UIH_FRAMES = 0x00651051


def tiles_of(header: Header, dataset: Dataset) -> Tiles | str | None:
    """Find the slices in a tiled picture.

    Parameters
    ----------
    header : Header
    dataset : pydicom.Dataset
        As `read_header` gives them.

    Returns
    -------
    list, str or None
        A tile and a position for each slice; one sentence where the header does not place them;
        None where the picture is not tiled.
    """
    if "MOSAIC" in header.image_type:
        return _siemens(header, dataset)
    if (number(dataset, _UIH_COUNT) or 0) > 1 and header.frames == 1:
        return _uih(header, dataset)
    return None


def tiled_frames(header: Header, frame_type: str) -> str:
    """Return why a frame of an enhanced object cannot be read, where it is a mosaic; or nothing."""
    if "MOSAIC" not in (*header.image_type, *frame_type.split("\\")):
        return ""
    return _refusal(header, "Siemens mosaic", "position of each slice")


def _siemens(header: Header, dataset: Dataset) -> Tiles | str:
    tags: dict[str, list[str]] = {}
    for key in _CSA:
        found = value(dataset, key)
        if isinstance(found, bytes):
            tags = csa_tags(found) | tags
    count = int(_first(tags, "NumberOfImagesInMosaic") or number(dataset, _SIEMENS_COUNT) or 0)
    normal = np.array(_floats(tags.get("SliceNormalVector", [])))
    tiles = _grid(header, count)
    axes = np.array(numbers(dataset, "ImageOrientationPatient"))
    place, spacing = numbers(dataset, "ImagePositionPatient"), numbers(dataset, "PixelSpacing")
    step = number(dataset, "SpacingBetweenSlices") or number(dataset, "SliceThickness")
    if not tiles or normal.size != 3 or axes.size != 6 or len(place) != 3 or not step:
        return _refusal(header, "Siemens mosaic", "number of its slices or their normal")
    if len(spacing) != 2 or abs(normal @ np.cross(axes[:3], axes[3:])) < 0.99:
        return _refusal(header, "Siemens mosaic", "geometry of its slices")
    # The position is that of a picture of the mosaic's size around the centre of the slice.
    _, _, rows, cols = tiles[0]
    corner = (
        np.array(place)
        + axes[:3] * spacing[1] * (header.cols - cols) / 2
        + axes[3:] * spacing[0] * (header.rows - rows) / 2
    )
    return [
        (tile, tuple((corner + normal * abs(step) * index).tolist()))
        for index, tile in enumerate(tiles)
    ]


def _uih(header: Header, dataset: Dataset) -> Tiles | str:
    tiles = _grid(header, int(number(dataset, _UIH_COUNT) or 0))
    items = value(dataset, _UIH_FRAMES)
    places = [numbers(item, "ImagePositionPatient") for item in _items(items)]
    if not tiles or len(places) != len(tiles) or any(len(place) != 3 for place in places):
        return _refusal(header, "UIH grid", "positions of its slices")
    return list(zip(tiles, places, strict=True))


def _items(found: Any) -> list[Any]:
    return list(found) if found is not None and not isinstance(found, (bytes, str)) else []


def _refusal(header: Header, kind: str, what: str) -> str:
    return (
        f"{Path(header.file).name} is a {kind} (slices tiled into one picture), but its header "
        f"lacks the {what}; export it as single slices or as an enhanced object."
    )


def _grid(header: Header, count: int) -> list[tuple[int, int, int, int]]:
    """Cut a picture into the smallest square of tiles that holds the slices."""
    side = math.ceil(math.sqrt(count)) if 0 < count < 10_000 else 0
    if side == 0 or header.rows % side or header.cols % side:
        return []
    rows, cols = header.rows // side, header.cols // side
    return [(index // side * rows, index % side * cols, rows, cols) for index in range(count)]


def _first(tags: dict[str, list[str]], name: str) -> float:
    values = _floats(tags.get(name, []))
    return values[0] if values else 0.0


def _floats(texts: list[str]) -> list[float]:
    try:
        return [float(one) for one in texts if one]
    except ValueError:
        return []


def csa_tags(data: bytes) -> dict[str, list[str]]:
    """Read the private header of Siemens, in both of its versions.

    Parameters
    ----------
    data : bytes
        Of element (0029,1010) or (0029,1020).

    Returns
    -------
    dict of str to list of str
        The values of each tag; what was read until then where the header is damaged.
    """
    out: dict[str, list[str]] = {}
    second = data[:4] == b"SV10"
    start = 8 if second else 0
    extra = None
    try:
        count = struct.unpack_from("<I", data, start)[0]
        at = start + 8
        for _ in range(min(count, 1000)):
            name, _, _, _, items, _ = struct.unpack_from("<64si4siii", data, at)
            at += 84
            extra = items if extra is None else extra
            values = []
            for _ in range(min(items, 1_000)):
                first, length, _, _ = struct.unpack_from("<4i", data, at)
                at += 16
                length = length if second else first - extra
                if length < 0 or at + length > len(data):
                    break
                values.append(_text(data[at : at + length]))
                at += (length + 3) // 4 * 4
            out[_text(name)] = values
    except struct.error:
        return out
    return out


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("latin-1").strip()
