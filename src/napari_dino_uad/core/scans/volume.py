"""Read and write scans: NIfTI, NRRD, MHA, DICOM, PNG, JPEG and TIFF.

`geometry.py` defines `Volume`, `canonical.py` makes one, `dicom/` reads DICOM files and folders,
`search.py` finds scans. Their public names can also be imported from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_reading
from napari_dino_uad.core.scans.canonical import (
    volume_from_array,
    volume_from_stored,
    volume_of_tilted,
)
from napari_dino_uad.core.scans.dicom.reading import (
    Series,
    is_dicom,
    list_series,
    only_series,
    series_in,
    series_of_files,
    series_volume,
)
from napari_dino_uad.core.scans.file_order import to_file_grid
from napari_dino_uad.core.scans.files.image_files import count_volumes, read_image, write_image
from napari_dino_uad.core.scans.files.image_format import is_folder, regular_file
from napari_dino_uad.core.scans.files.stored_image import StoredImage, choose_volume
from napari_dino_uad.core.scans.formats import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    VOLUME_SUFFIXES,
    WRITABLE_SUFFIXES,
    case_name,
    natural_key,
    stack_files,
)
from napari_dino_uad.core.scans.geometry import FileGrid, Volume
from napari_dino_uad.core.scans.lossy import lossy_notice
from napari_dino_uad.core.scans.search import find_scans
from napari_dino_uad.core.scans.straight import is_sheared

__all__ = [
    "IMAGE_SUFFIXES",
    "VOLUME_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "FileGrid",
    "Series",
    "Volume",
    "case_name",
    "find_scans",
    "list_series",
    "read_series",
    "read_stack",
    "read_volume",
    "to_file_grid",
    "volume_from_array",
    "write_volume",
]


def read_volume(
    path: Path | str,
    series: str | None = None,
    *,
    volume: int | None = None,
    allow_constant: bool = False,
    labels: bool = False,
) -> Volume:
    """Read a scan.

    Parameters
    ----------
    path : path
        A NIfTI, NRRD, MHA, DICOM, PNG, JPEG or TIFF file, or a folder with a DICOM series or a
        stack of PNG, JPEG or TIFF slices.
    series : str, optional
        UID of the series to read from a folder or DICOM file that holds several.
    volume : int, optional
        Which volume to read from a file of four dimensions, counted from 1. Without it the first
        is read, and the notices say that there are others.
    allow_constant : bool
        Whether an image with a single value, such as an empty mask, is accepted.
    labels : bool
        Whether it is a mask: a file of several volumes is refused if none is chosen, NaN counts
        as background, and slices that do not lie straight are not interpolated.

    Returns
    -------
    Volume
        NaN and infinity became the lowest finite value of the scan. Where the spacing is not
        known, as in PNG files, slices are taken to lie one pixel apart. `notices` says what else
        the user should know.

    Raises
    ------
    InputError
        If there is no scan, it is damaged, a volume in colour, without contrast, or has no such
        volume.

    Examples
    --------
    >>> volume = read_volume("scan.nii.gz")
    >>> volume.shape, volume.spacing_mm
    ((28, 232, 200), (5.0, 1.0, 1.0))
    """
    path = Path(path)
    if is_folder(path):
        if volume not in (None, 1):
            raise InputError(
                f"Volume {volume}: expected a file of several volumes, got the folder "
                f"{path.name}; choose a file or leave out the volume."
            )
        return _read_folder(path, series, allow_constant, labels)
    regular_file(path)
    if is_dicom(path):
        choose_volume(path.name, 1, volume)
        return _read_dicom_file(path, series, allow_constant, labels)
    if series is not None:
        raise InputError(
            f"A series can be chosen from a folder or a DICOM file, got {path.name}; give the "
            "folder or leave out the series."
        )
    if labels and volume is None and (count := count_volumes(path)) > 1:
        raise InputError(
            f"{path.name} has {count} volumes, but a mask is one; save the one with the lesions to "
            "a file of its own."
        )
    return _volume_of(read_image(path, volume), case_name(path), path, allow_constant, labels)


def _volume_of(
    image: StoredImage, name: str, path: Path, allow_constant: bool, labels: bool = False
) -> Volume:
    """Make a volume of what a decoder handed on."""
    tilted = image.spacing_known and image.dimension == 3 and is_sheared(image.direction)
    make = volume_of_tilted if tilted else volume_from_stored
    made = make(
        image.values,
        image.spacing,
        image.origin,
        image.direction,
        name,
        path,
        modality=image.modality,
        window=image.window,
        allow_constant=allow_constant,
        labels=labels,
        **({} if tilted else _untilted(image)),
    )
    # Where the slices were turned round, the header's geometry is not that of the grid.
    same = np.allclose(made.grid.origin, image.origin) and np.allclose(
        made.grid.direction, image.direction, atol=1e-6
    )
    return replace(
        made,
        grid=replace(made.grid, forms=image.forms if same else None),
        notices=(*image.notices, *(() if labels else _loss(image, path.name)), *made.notices),
    )


def _loss(image: StoredImage, name: str) -> tuple[str, ...]:
    """Return the notice of a grey image that lost detail; cameras save colours so as a rule."""
    if not image.lossy or image.colour is not None:
        return ()
    return (lossy_notice(f"{name} is", image.lossy),)


def _untilted(image: StoredImage) -> dict[str, Any]:
    """Return what a decoder knows of an image whose axes are at right angles."""
    return {
        "colour": image.colour,
        "dimension": image.dimension,
        "spacing_known": image.spacing_known,
        "owned": True,
    }


def read_series(
    series: Series,
    path: Path,
    name: str | None = None,
    *,
    allow_constant: bool = False,
    labels: bool = False,
) -> Volume:
    """Read one DICOM series that `list_series` found.

    Parameters
    ----------
    series : Series
        The series.
    path : Path
        The folder it is in.
    name : str, optional
        Name of the case; default the folder's name.
    allow_constant, labels : bool
        As in `read_volume`.

    Raises
    ------
    InputError
        If it cannot be read, is in colour or without contrast.
    """
    return series_volume(
        series, name or case_name(path), path, allow_constant=allow_constant, labels=labels
    )


def read_stack(paths: Sequence[Path | str], *, allow_constant: bool = False) -> Volume:
    """Read the slices of one scan: a DICOM series, or PNG or TIFF images.

    Parameters
    ----------
    paths : sequence of path
        DICOM slices in any order, or images, which are sorted by the numbers in their names.
    allow_constant : bool
        As in `read_volume`.

    Raises
    ------
    InputError
        If a file is missing, or they are not a single stack of slices of one size.
    """
    files = [Path(path) for path in paths]
    for file in files:
        regular_file(file)
    if files and all(is_dicom(file) for file in files):
        found = series_of_files(files)
        return read_series(
            only_series(found, None, f"the {len(files)} files"),
            files[0].parent,
            allow_constant=allow_constant,
        )
    if not files or not all(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        raise InputError(
            "A stack needs DICOM, PNG or TIFF slices, got "
            f"{', '.join(file.name for file in files[:3]) or 'no file'}; open volumes one by one."
        )
    return _read_images(sorted(files, key=natural_key), files[0].parent, allow_constant)


def _read_dicom_file(path: Path, series: str | None, allow_constant: bool, labels: bool) -> Volume:
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty; copy or export the file again.")
    found = series_in(path)
    chosen = only_series(found, series, f"the file {path.name}")
    name = case_name(path) if len(found) == 1 else f"{case_name(path)} {chosen.label}"
    return read_series(chosen, path, name, allow_constant=allow_constant, labels=labels)


def _read_folder(folder: Path, series: str | None, allow_constant: bool, labels: bool) -> Volume:
    found = list_series(folder)
    if found:
        chosen = only_series(found, series, f"the folder {folder.name}")
        name = folder.name if len(found) == 1 else f"{folder.name} {chosen.label}"
        return read_series(chosen, folder, name, allow_constant=allow_constant, labels=labels)
    if series is not None:
        raise InputError(f"The folder {folder} holds no DICOM series; check the folder.")
    if stack := stack_files(folder):
        return _read_images(stack, folder, allow_constant)
    names = sorted(file.name for file in folder.iterdir() if file.name[0] != ".")
    scans = [
        name
        for name in names
        if name.lower().endswith(VOLUME_SUFFIXES) and not name.lower().endswith(DICOM_SUFFIXES)
    ]
    if not names:
        raise InputError(f"The folder {folder} is empty; choose one with slices, or a file.")
    if scans:
        raise InputError(
            f"The folder {folder.name} is not a single scan: it has {len(scans)} scan files, such "
            f"as {scans[0]}; choose one of them."
        )
    raise InputError(
        f"The folder {folder} holds no DICOM series and no PNG or TIFF slices; choose the folder "
        "with the slices, or a file."
    )


def _read_images(files: list[Path], folder: Path, allow_constant: bool) -> Volume:
    """Read a stack of 2D images, or the one volume where there is a single file."""
    if len(files) == 1:
        volume = read_volume(files[0], allow_constant=allow_constant)
        return replace(volume, name=folder.name, path=folder)
    spacing: tuple[float, ...] = ()
    slices = np.empty((0, 0, 0), dtype=np.float32)
    notices: list[str] = []
    lossy = ""
    for place, file in enumerate(files):
        image = read_image(file)
        pixels = image.values[0]
        if place == 0 and image.dimension == 2:
            spacing = image.spacing
            check_reading(folder.name, (*pixels.shape[::-1], len(files)), slices.itemsize)
            slices = np.empty((len(files), *pixels.shape), dtype=np.float32)
        if image.colour is not None:
            raise InputError(
                f"{file.name} is in colour, and pictures in colour are no slices of one scan; give "
                "a pattern, such as '*.png', so that each is a scan of its own, or one file."
            )
        if image.dimension != 2 or pixels.shape != slices.shape[1:]:
            raise InputError(
                f"The slices of a stack must be 2D images of one size, but {files[0].name} is "
                f"{_size(slices[0] if place else image.values)} and {file.name} is "
                f"{_size(image.values)}; move other images out of the folder."
            )
        slices[place] = pixels
        notices += image.notices
        lossy = lossy or image.lossy
    if len(notices) > 1:
        notices[1:] = [f"{folder.name} has more notices of its slices: {len(notices) - 1}."]
    stack = StoredImage(
        slices, spacing=spacing, spacing_known=False, notices=tuple(notices), lossy=lossy
    )
    return _volume_of(stack, folder.name, folder, allow_constant)


def _size(array: NDArray[Any]) -> str:
    edges = array.shape[1:] if array.ndim == 3 and len(array) == 1 else array.shape
    return " x ".join(str(edge) for edge in edges[::-1])


def write_volume(path: Path | str, array: NDArray[Any], like: Volume) -> None:
    """Write an array on the grid of a scan's file, whole or not at all.

    Parameters
    ----------
    path : path
        File to write; it ends in .nii, .nii.gz, .nrrd, .mha or .mhd. An existing one is replaced.
    array : ndarray, (S, P, L)
        On the canonical grid of `like`. The type is kept: labels of uint8 are written as uint8.
    like : Volume
        The scan it belongs to.

    Raises
    ------
    InputError
        If the ending or the shape is wrong, or the file cannot be written.

    Examples
    --------
    >>> volume = read_volume("scan.nii.gz")
    >>> write_volume("bright.nii.gz", (volume.array > 100).astype("uint8"), like=volume)
    >>> read_volume("bright.nii.gz").grid == volume.grid
    True
    """
    write_image(Path(path), to_file_grid(array, like), like.grid.forms)
