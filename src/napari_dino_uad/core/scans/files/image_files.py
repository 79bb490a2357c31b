"""Read and write one image file, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_grid, check_one_volume
from napari_dino_uad.core.scans.dicom.pixels import check_dicom
from napari_dino_uad.core.scans.files.colours import grey_or_colour
from napari_dino_uad.core.scans.files.image_format import image_format, regular_file, unreadable
from napari_dino_uad.core.scans.files.jpeg_file import read_jpeg
from napari_dino_uad.core.scans.files.metaimage_header import read_metaimage_header
from napari_dino_uad.core.scans.files.nifti_file import count_nifti_volumes, read_nifti
from napari_dino_uad.core.scans.files.nifti_forms import NiftiForms, write_forms
from napari_dino_uad.core.scans.files.nrrd_header import read_nrrd_header
from napari_dino_uad.core.scans.files.png_file import check_png
from napari_dino_uad.core.scans.files.stored_image import StoredImage, choose_volume, grey_values
from napari_dino_uad.core.scans.files.tiff_volume import count_tiff_volumes, read_tiff
from napari_dino_uad.core.scans.formats import WRITABLE_SUFFIXES
from napari_dino_uad.core.storage.atomic import staged, writing

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "as_grey",
    "count_volumes",
    "read_image",
    "save_image",
    "write_image",
]

# Threads for compressing a file; more are not faster.
_COMPRESSING = 4

_CHUNK = 1 << 20

# Cosine of two axes that SimpleITK does not take as being at right angles.
_LEANING = 1e-5

# A disk with less room left is full, whatever the size of an image.
_FULL_BYTES = 1_000_000


def read_image(path: Path, volume: int | None = None) -> StoredImage:
    """Read an image of one value per voxel, or a picture in colour.

    Parameters
    ----------
    path : Path
        An existing file.
    volume : int, optional
        Which volume of a file of several, counted from 1; the first if not given.

    Raises
    ------
    InputError
        If it is no image, empty, truncated, damaged, a volume in colour, or has no such volume.
    """
    decoder = image_format(regular_file(path))
    try:
        if decoder == "NiftiImageIO":
            return read_nifti(path, volume)
        if decoder == "TIFFImageIO":
            return read_tiff(path, volume)
        if decoder == "MetaImageIO":
            return read_metaimage_header(path).read(volume)
        if decoder == "NrrdImageIO":
            return read_nrrd_header(path).read(volume)
        choose_volume(path.name, 1, volume)
        return _decoded(path, decoder)
    except RuntimeError as error:
        raise unreadable(path) from error
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read: {error.strerror}; check the file and the disk."
        ) from error


def count_volumes(path: Path) -> int:
    """Return how many volumes an image file has, as its header says; no voxel is read.

    Raises
    ------
    InputError
        If it is no image, or its header is damaged.
    """
    decoder = image_format(regular_file(path))
    counters: dict[str, Callable[[Path], int]] = {
        "NiftiImageIO": count_nifti_volumes,
        "TIFFImageIO": count_tiff_volumes,
        "MetaImageIO": lambda one: read_metaimage_header(one).volumes,
        "NrrdImageIO": lambda one: read_nrrd_header(one).volumes,
    }
    return counters[decoder](path) if decoder in counters else 1


def _grey_of_transparent(path: Path) -> NDArray[np.uint8] | None:
    """Return the grey values of a picture with transparency, which SimpleITK cannot read.

    Raises
    ------
    InputError
        If they have 16 bits, which Pillow cannot read either.
    """
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as picture:
        if picture.mode != "LA" and (picture.mode != "L" or "transparency" not in picture.info):
            return None
        with path.open("rb") as file:
            depth = file.read(25)[24]
        if depth > 8:
            raise InputError(
                f"{path.name} is grey with transparency, in {depth} bits, which cannot be read; "
                "save it without transparency."
            )
        return np.asarray(picture.convert("LA"))[..., 0]


def _decoded(path: Path, decoder: str) -> StoredImage:
    """Let a library decode a PNG, JPEG or DICOM file that was checked."""
    import SimpleITK as sitk

    if decoder == "JPEGImageIO":
        return replace(_picture(path.name, *read_jpeg(path)), lossy="JPEG")
    if decoder == "PNGImageIO":
        check_png(path, path.name)
        if (grey := _grey_of_transparent(path)) is not None:
            return _picture(path.name, grey, (f"The transparency of {path.name} is ignored",))
        picture = _reader(path, decoder).Execute()
        check_grid(path.name, picture.GetSpacing(), picture.GetOrigin(), known=False)
        made = _picture(path.name, sitk.GetArrayFromImage(picture))
        # Of unknown size, but pixels that are not square are known.
        return replace(made, spacing=(*picture.GetSpacing(), 1.0))
    check_dicom(path, path.name)
    reader = _reader(path, decoder)
    reader.ReadImageInformation()
    check_one_volume(path.name, reader.GetSize())
    check_grid(path.name, reader.GetSpacing()[:3], reader.GetOrigin()[:3])
    image = as_grey(reader.Execute(), path.name)
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    values = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 2:
        # SimpleITK needs milliseconds to give a picture its third axis.
        check_grid(path.name, image.GetSpacing(), image.GetOrigin())
        return StoredImage(
            values=values[np.newaxis],
            spacing=(*image.GetSpacing(), 1.0),
            origin=(*image.GetOrigin(), 0.0),
            dimension=2,
        )
    return StoredImage(
        values=values,
        spacing=image.GetSpacing(),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
    )


def _reader(path: Path, decoder: str) -> sitk.ImageFileReader:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO(decoder)
    reader.SetFileName(str(path))
    return reader


def _picture(name: str, values: NDArray[Any], notices: tuple[str, ...] = ()) -> StoredImage:
    """Return a single picture, (rows, cols) or (rows, cols, channels), of unknown spacing."""
    colour = None
    if values.ndim == 3:
        values, colour, more = grey_or_colour(values, name)
        notices = (*notices, *more)
    return StoredImage(
        values=values[np.newaxis],
        dimension=2,
        spacing_known=False,
        notices=notices,
        colour=None if colour is None else colour[np.newaxis],
    )


def as_grey(image: sitk.Image, name: str) -> sitk.Image:
    """Return one channel of a grey image that was stored in colour; refuse real colour.

    Raises
    ------
    InputError
        If the image is in colour, complex, or has a vector in every voxel.
    """
    import SimpleITK as sitk

    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(
            f"{name} holds complex numbers, but grey values are expected; save the magnitude."
        )
    if image.GetNumberOfComponentsPerPixel() == 1:
        return image
    grey_values(sitk.GetArrayViewFromImage(image), name)
    return sitk.VectorIndexSelectionCast(image, 0)


def write_image(path: Path, image: sitk.Image, forms: NiftiForms | None = None) -> None:
    """Write an image, whole or not at all; the two files of an .mhd together.

    Parameters
    ----------
    path : Path
        Ends in one of `WRITABLE_SUFFIXES`. An existing file is replaced.
    image : SimpleITK.Image
        The image.
    forms : NiftiForms, optional
        The geometry for the header of a NIfTI file, if not the image's own.

    Raises
    ------
    InputError
        If the ending is wrong or the file cannot be written.
    """
    name = _written_name(path)
    with writing(path), staged(path.parent, last=path.name) as partial:
        save_image(partial / name, image, forms)
        (partial / name).replace(partial / path.name)


def save_image(path: Path, image: sitk.Image, forms: NiftiForms | None = None) -> None:
    """Write an image straight to its place, inside a folder of `staged`.

    Parameters
    ----------
    path : Path
        File to write; its ending is in lower case, as SimpleITK requires.
    image : SimpleITK.Image
        The image.
    forms : NiftiForms, optional
        As in `write_image`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import SimpleITK as sitk

    plain = path.with_suffix("") if path.name.endswith(".nii.gz") else path
    try:
        if plain.suffix == ".nii":
            _save_nifti(plain, image, forms)
        else:
            sitk.WriteImage(image, str(plain), useCompression=plain.suffix != ".mhd")
    except RuntimeError as error:
        raise _failure(path.parent) from error
    if plain != path:
        _compress(plain, path)
        plain.unlink()


def _save_nifti(path: Path, image: sitk.Image, forms: NiftiForms | None) -> None:
    """Write an uncompressed NIfTI file, with the geometry of a header or of axes that lean."""
    import SimpleITK as sitk

    direction = image.GetDirection()
    axes = np.reshape(direction, (3, 3)) if image.GetDimension() == 3 else np.eye(3)
    if forms is None and np.abs(axes.T @ axes - np.eye(3)).max() > _LEANING:
        forms = NiftiForms.of_geometry(image.GetSpacing(), image.GetOrigin(), direction)
    if forms is not None:
        # SimpleITK would write axes that lean, but could not read them.
        image.SetDirection(np.eye(image.GetDimension()).ravel().tolist())
    try:
        sitk.WriteImage(image, str(path))
    finally:
        image.SetDirection(direction)
    # SimpleITK does not report a file that is cut off by a full disk.
    if path.stat().st_size < _voxel_bytes(image):
        raise _failure(path.parent)
    if forms is not None:
        write_forms(path, forms)


def _failure(folder: Path) -> OSError:
    """Return why a file could not be written, by the free space: SimpleITK gives no reason."""
    full = shutil.disk_usage(folder).free < _FULL_BYTES
    number = errno.ENOSPC if full else errno.EIO
    return OSError(number, os.strerror(number))


def _voxel_bytes(image: sitk.Image) -> int:
    """Return what the voxels of an image take uncompressed, its header aside."""
    numbers = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
    return int(numbers * image.GetSizeOfPixelComponent())


def _written_name(path: Path) -> str:
    """Return a file's name with its ending in small letters, as SimpleITK writes it."""
    suffix = next((end for end in WRITABLE_SUFFIXES if path.name.lower().endswith(end)), None)
    if suffix is None:
        raise InputError(
            f"{path.name} has an unknown ending; expected one of {', '.join(WRITABLE_SUFFIXES)}."
        )
    return path.name[: -len(suffix)] + suffix


def _compress(plain: Path, packed: Path) -> None:
    """Compress a file with ISA-L: as small as zlib at its quickest, in an eighth of the time.

    The same image gives the same file: name and time are left out, and what it is cut into does
    not depend on the number of threads.
    """
    from isal import igzip_threaded

    threads = min(_COMPRESSING, os.cpu_count() or 1)
    with (
        plain.open("rb") as source,
        igzip_threaded.open(packed, "wb", compresslevel=1, threads=threads) as target,
    ):
        shutil.copyfileobj(source, target, _CHUNK)
