"""One volume of a TIFF file: a picture, a stack of pages, or a hyperstack of ImageJ or OME."""

from __future__ import annotations

import logging
import lzma
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.colours import grey_or_colour
from napari_dino_uad.core.scans.files.integrity import damaged
from napari_dino_uad.core.scans.files.stored_image import (
    MM_OF_UNITS,
    StoredImage,
    choose_volume,
    grey_values,
)
from napari_dino_uad.core.scans.files.tiff_file import check_tiff

if TYPE_CHECKING:
    import tifffile

__all__ = ["count_tiff_volumes", "read_tiff"]

# Axes by the letters of tifffile: slices, those that a plain stack of pages has among them.
_SLICES, _VOLUMES, _SAMPLES = "ZIQ", "T", "S"

# Values of the tag of colours.
_WHITE_IS_0, _PALETTE = 0, 3

# Values of the tag of compression: JPEG as it was, as it is, and with loss (DNG).
_JPEG = (6, 7, 34892)

# Units of a microscope or scanner; inches and centimetres are a printer's.
_TRUSTED = ("mm", "millimeter", "millimetre", "um", "µm", "μm", "micron", "microns", "nm")

# What tifffile raises where pages are damaged.
_DAMAGED = (
    ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    zlib.error, struct.error, lzma.LZMAError, EOFError,
)  # fmt: skip


def count_tiff_volumes(path: Path) -> int:
    """Return how many volumes a TIFF file has, as its metadata say.

    Raises
    ------
    InputError
        If the file is damaged, or no scan.
    """
    check_tiff(path, path.name)
    with _series(path) as series:
        return _sizes(series, path.name)[0]


def read_tiff(path: Path, volume: int | None = None) -> StoredImage:
    """Read one volume of a TIFF file.

    Parameters
    ----------
    path : Path
        The file.
    volume : int, optional
        Which one, counted from 1; the first if not given.

    Raises
    ------
    InputError
        If the file is damaged, in colour, has channels or other axes that no scan has, or has no
        such volume.
    """
    name = path.name
    check_tiff(path, name)
    with _series(path) as series:
        count, slices = _sizes(series, name)
        index, notices = choose_volume(name, count, volume)
        values, colour, more = _grey(_pixels(series, path, index), series, name, slices)
        spacing, edges = _spacing(series, slices), _resolution(series)
        turn = _turn(series)
        lossy = "JPEG" if series.keyframe.compression in _JPEG else ""
    if values.size != slices * math.prod(_page_size(series)):
        raise damaged(name)
    values = values.reshape(slices, *_page_size(series))
    if colour is not None:
        colour = colour.reshape(1, *_page_size(series), 3)
    size = spacing or (*edges, min(edges))
    if turn is not None:
        values, colour = turn(values), None if colour is None else turn(colour)
        if values.shape[1:] != _page_size(series):
            size = (size[1], size[0], size[2])
        more = (*more, f"{name} is shown upright, as its header says; masks must be upright too.")
    return StoredImage(
        values=values,
        spacing=size,
        dimension=2 if slices == 1 else 3,
        spacing_known=spacing is not None,
        notices=(*notices, *more),
        colour=colour,
        lossy=lossy,
    )


def _turn(series: tifffile.TiffPageSeries) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """Return what brings pages (slices, rows, cols, ...) upright, None if they are."""
    found = series.keyframe.tags.get("Orientation")
    rows, cols = 1, 2
    turns: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
        2: lambda pages: np.flip(pages, cols),
        3: lambda pages: np.flip(pages, (rows, cols)),
        4: lambda pages: np.flip(pages, rows),
        5: lambda pages: pages.swapaxes(rows, cols),
        6: lambda pages: np.rot90(pages, -1, (rows, cols)),
        7: lambda pages: np.flip(pages.swapaxes(rows, cols), (rows, cols)),
        8: lambda pages: np.rot90(pages, 1, (rows, cols)),
    }
    return turns.get(int(found.value)) if found is not None else None


@contextmanager
def _series(path: Path) -> Iterator[tifffile.TiffPageSeries]:
    """Open the one image of a file.

    Raises
    ------
    InputError
        If the file is damaged or holds several images.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(path) as file:
            found = [one for one in file.series if not one.keyframe.is_reduced]
            if len(found) != 1:
                raise InputError(
                    f"{path.name} holds {len(found)} images, but one scan is expected; save each "
                    "to its own file."
                )
            yield found[0]
    except InputError:
        raise
    except _DAMAGED as error:
        raise damaged(path.name) from error


def _sizes(series: tifffile.TiffPageSeries, name: str) -> tuple[int, int]:
    """Return the number of volumes and of slices.

    Raises
    ------
    InputError
        If there are other axes, so that it is no scan.
    """
    sizes = {"volumes": 1, "slices": 1}
    for axis, size in zip(series.axes, series.shape, strict=True):
        if axis in "YX" + _SAMPLES or size == 1:
            continue
        if axis == "C":
            raise InputError(
                f"{name} has {size} channels, but one grey value is expected; save the channel to "
                "look at to its own file."
            )
        kind = "volumes" if axis in _VOLUMES else "slices" if axis in _SLICES else ""
        if not kind or sizes[kind] > 1:
            raise InputError(
                f"{name} has the axes {series.axes} of {' x '.join(map(str, series.shape))}, but "
                "the slices of one scan are expected; save one volume to its own file."
            )
        sizes[kind] = size
    return sizes["volumes"], sizes["slices"]


def _page_size(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    """Return rows and columns."""
    page = series.keyframe
    return int(page.imagelength), int(page.imagewidth)


def _pixels(series: tifffile.TiffPageSeries, path: Path, index: int) -> NDArray[Any]:
    """Decode the pages of one volume, on the axes of the series but that of volumes."""
    place = series.axes.find(_VOLUMES)
    try:
        if place < 0:
            return series.asarray()
        inner = len([axis for axis in series.axes if axis in "YX" + _SAMPLES])
        leading = series.shape[: len(series.shape) - inner]
        if len(series.pages) == math.prod(leading):
            # Only the pages of the volume are decoded.
            numbers = np.arange(math.prod(leading)).reshape(leading).take(index, axis=place)
            pages = (series.pages[int(one)] for one in numbers.ravel())
            return np.stack([page.asarray() for page in pages if page is not None])
        return series.asarray().take(index, axis=place)
    except (ValueError, ImportError) as error:
        # Since Python 3.14 a module of its own decodes ZSTD.
        if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
            raise
        return _by_libtiff(series, path, index)


def _by_libtiff(series: tifffile.TiffPageSeries, path: Path, index: int) -> NDArray[Any]:
    """Let SimpleITK decode strips whose compression tifffile leaves to another package.

    Its decoder is right for strips of plain numbers alone.

    Raises
    ------
    InputError
        If the pages are tiles, half floats or of several channels.
    """
    page = series.keyframe
    packing = getattr(page.compression, "name", page.compression)
    if page.is_tiled or series.dtype.itemsize * 8 != page.bitspersample or series.dtype == "f2":
        raise InputError(
            f"{path.name} is compressed with {packing}, which is not supported here; "
            "install the package imagecodecs, or save it without compression."
        )
    import SimpleITK as sitk

    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="TIFFImageIO"))
    if values.size != math.prod(series.shape) or values.dtype != series.dtype.newbyteorder("="):
        raise damaged(path.name)
    values = values.reshape(series.shape)
    place = series.axes.find(_VOLUMES)
    return values if place < 0 else values.take(index, axis=place)


def _grey(
    values: NDArray[Any], series: tifffile.TiffPageSeries, name: str, slices: int
) -> tuple[NDArray[Any], NDArray[np.uint8] | None, tuple[str, ...]]:
    """Return one number per pixel, the colours of a single picture, and notices.

    Complex numbers and volumes in colour are refused.
    """
    page = series.keyframe
    if values.dtype.kind == "c":
        raise InputError(
            f"{name} holds complex numbers, but grey values are expected; save the magnitude."
        )
    if values.dtype.kind not in "biuf":
        raise damaged(name)
    if page.photometric == _PALETTE and page.colormap is not None:
        # Numbers of colours; grey where all colours are.
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)
        return _of_channels(np.moveaxis(colours[:, values], 0, -1), name, slices)
    if page.samplesperpixel == 1:
        if page.photometric == _WHITE_IS_0 and values.dtype.kind in "bu":
            values = np.asarray((1 << page.bitspersample) - 1 - values.astype(np.int64))
        return values, None, ()
    # Pages of separate planes have the samples in front.
    place = -1 if page.planarconfig == 1 else -3
    return _of_channels(np.moveaxis(values, place, -1), name, slices)


def _of_channels(
    values: NDArray[Any], name: str, slices: int
) -> tuple[NDArray[Any], NDArray[np.uint8] | None, tuple[str, ...]]:
    if slices == 1:
        return grey_or_colour(values, name)
    return grey_values(values, name), None, ()


def _spacing(series: tifffile.TiffPageSeries, slices: int) -> tuple[float, float, float] | None:
    """Return the size of a voxel x, y, z in mm where a microscope or scanner gave it, else None.

    The resolution in the tags alone is that of a printer.
    """
    file = series.keyframe.parent
    found = _ome_spacing(file.ome_metadata or "") if file.is_ome else None
    if file.is_imagej and found is None:
        found = _imagej_spacing(series, file.imagej_metadata or {})
    if found is None:
        return None
    across, down, along = found
    if slices == 1 and along is None:
        along = 1.0
    if along is None or not all(math.isfinite(one) and one > 0 for one in (across, down, along)):
        return None
    return across, down, along


def _resolution(series: tifffile.TiffPageSeries) -> tuple[float, float]:
    """Return the edges of a pixel x, y in the unit of the resolution tags; 1 without them."""
    edges = []
    for tag in ("XResolution", "YResolution"):
        found = series.keyframe.tags.get(tag)
        count, length = found.value if found is not None else (0, 0)
        edges.append(length / count if count else 0.0)
    return (edges[0], edges[1]) if min(edges) > 0 else (1.0, 1.0)


def _imagej_spacing(
    series: tifffile.TiffPageSeries, fields: dict[str, Any]
) -> tuple[float, float, float | None] | None:
    unit = str(fields.get("unit", "")).replace("\\u00B5", "µ").lower()
    if unit not in _TRUSTED:
        return None
    mm, edges = MM_OF_UNITS[unit], _resolution(series)
    along = fields.get("spacing")
    return mm * edges[0], mm * edges[1], None if along is None else mm * abs(float(along))


def _ome_spacing(text: str) -> tuple[float, float, float | None] | None:
    element = re.search(r"<(?:\w+:)?Pixels\s([^>]*)>", text)
    if element is None:
        return None
    values = dict(re.findall(r'(\w+)="([^"]*)"', element[1]))
    edges: list[float | None] = []
    for axis in "XYZ":
        size = values.get(f"PhysicalSize{axis}")
        unit = values.get(f"PhysicalSize{axis}Unit", "µm").lower()
        edges.append(float(size) * MM_OF_UNITS[unit] if size and unit in _TRUSTED else None)
    across, down, along = edges
    return None if across is None or down is None else (across, down, along)
