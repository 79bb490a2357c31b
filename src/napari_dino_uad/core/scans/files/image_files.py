"""Read and write one image file, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_grid, check_one_volume
from napari_dino_uad.core.scans.dicom.pixels import check_dicom
from napari_dino_uad.core.scans.files.image_format import image_format, regular_file, unreadable
from napari_dino_uad.core.scans.files.integrity import damaged, wrong_length
from napari_dino_uad.core.scans.files.metaimage_header import read_metaimage_header
from napari_dino_uad.core.scans.files.nifti_header import check_nifti_length, read_nifti_header
from napari_dino_uad.core.scans.files.nifti_tilt import read_tilted, write_tilted
from napari_dino_uad.core.scans.files.nrrd_header import read_nrrd_header
from napari_dino_uad.core.scans.files.png_file import check_png
from napari_dino_uad.core.scans.files.tiff_file import check_tiff
from napari_dino_uad.core.scans.formats import IMAGE_SUFFIXES, WRITABLE_SUFFIXES
from napari_dino_uad.core.scans.straight import is_sheared
from napari_dino_uad.core.storage.atomic import staged, writing

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "as_grey",
    "read_image",
    "save_image",
    "write_image",
]

# Threads for compressing a file; more are not faster.
_COMPRESSING = 4

_CHUNK = 1 << 20

# A disk with less free space counts as full.
_FULL_BYTES = 1_000_000


def read_image(path: Path) -> sitk.Image:
    """Read an image of one value per voxel.

    Parameters
    ----------
    path : Path
        An existing file.

    Raises
    ------
    InputError
        If it is not an image, or is empty, truncated, damaged or in colour.
    """
    decoder = image_format(regular_file(path))
    try:
        if decoder == "MetaImageIO":
            image = read_metaimage_header(path).read()
        elif decoder == "NrrdImageIO":
            image = read_nrrd_header(path).read()
        else:
            image = _decoded(path, decoder)
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise InputError(
                f"{path.name} has axes that are not at right angles, as its header says; resample "
                "it to a regular grid first."
            ) from error
        raise unreadable(path) from error
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read ({error.strerror}); check the file and the disk."
        ) from error
    return as_grey(image, path.name)


def _decoded(path: Path, decoder: str) -> sitk.Image:
    """Decode a checked file with SimpleITK."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO(decoder)
    with _unpacked(path, decoder) as plain:
        if decoder == "PNGImageIO":
            check_png(plain, path.name)
        elif decoder == "TIFFImageIO":
            check_tiff(plain, path.name)
        elif decoder == "NiftiImageIO":
            check_nifti_length(plain, path.name)
        else:
            check_dicom(plain, path.name)
        reader.SetFileName(str(plain))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            if "orthonormal" in str(error) and (image := read_tilted(plain)) is not None:
                return image
            raise
        check_one_volume(path.name, reader.GetSize())
        known = path.suffix.lower() not in IMAGE_SUFFIXES
        check_grid(path.name, reader.GetSpacing()[:3], reader.GetOrigin()[:3], known=known)
        return reader.Execute()


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
    count = image.GetNumberOfComponentsPerPixel()
    if count == 1:
        return image
    values = sitk.GetArrayViewFromImage(image)
    # Grey has two channels with opacity; colour has three, or four with opacity.
    grey = values.dtype == np.uint8 and count <= 4
    colours = [values[..., channel] for channel in range(1 if count == 2 else 3)] if grey else []
    if not grey or not all(np.array_equal(colours[0], colour) for colour in colours[1:]):
        raise InputError(
            f"{name} has {count} values in every voxel (a colour image or a vector field), but "
            "one grey value is expected; convert it to greyscale first."
        )
    return sitk.VectorIndexSelectionCast(image, 0)


def write_image(path: Path, image: sitk.Image) -> None:
    """Write an image, whole or not at all; the two files of an .mhd together.

    Parameters
    ----------
    path : Path
        Ends in one of `WRITABLE_SUFFIXES`. An existing file is replaced.
    image : SimpleITK.Image
        The image.

    Raises
    ------
    InputError
        If the ending is wrong or the file cannot be written.
    """
    name = _written_name(path)
    with writing(path), staged(path.parent, last=path.name) as partial:
        save_image(partial / name, image)
        (partial / name).replace(partial / path.name)


def save_image(path: Path, image: sitk.Image) -> None:
    """Write an image directly, inside a folder of `staged`.

    Parameters
    ----------
    path : Path
        File to write; its ending is in lower case, as SimpleITK requires.
    image : SimpleITK.Image
        The image.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import SimpleITK as sitk

    plain = path.with_suffix("") if path.name.endswith(".nii.gz") else path
    try:
        if (
            plain.suffix == ".nii"
            and image.GetDimension() == 3
            and is_sheared(image.GetDirection())
        ):
            write_tilted(image, plain)
        else:
            compressed = plain.suffix not in (".nii", ".mhd")
            sitk.WriteImage(image, str(plain), useCompression=compressed)
    except RuntimeError as error:
        raise _failure(path.parent) from error
    # SimpleITK does not report a .nii that is cut off by a full disk.
    if plain.suffix == ".nii" and plain.stat().st_size < _voxel_bytes(image):
        raise _failure(path.parent)
    if plain != path:
        _compress(plain, path)
        plain.unlink()


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


@contextmanager
def _unpacked(path: Path, decoder: str) -> Iterator[Path]:
    """Give a file that SimpleITK need not decompress.

    It does so three times slower than ISA-L, and fills what is missing from a truncated file with
    zeros in silence.

    Raises
    ------
    InputError
        If a compressed NIfTI file is damaged, or there is no room to unpack it.
    """
    if decoder != "NiftiImageIO" or (path.suffix.lower() == ".nii" and not _is_gzip(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="napari-dino-uad-") as folder:
        plain = Path(folder) / "image.nii"
        _unpack(path, plain)
        yield plain


def _unpack(path: Path, plain: Path) -> None:
    """Unpack a NIfTI file as far as its header says; only a damaged one is longer."""
    from isal import igzip, igzip_lib

    try:
        opened = igzip.open(path, "rb") if _is_gzip(path) else path.open("rb")
        with plain.open("wb") as target, opened as source:
            header = read_nifti_header(source, path.name)
            source.seek(0)
            expected = header.start + header.body
            left = expected
            while left and (chunk := source.read(min(_CHUNK, left))):
                target.write(chunk)
                left -= len(chunk)
            # The checksum is looked at behind the last byte.
            if left or source.read(1):
                raise wrong_length(path.name, expected, expected - left if left else expected + 1)
    except (EOFError, igzip.BadGzipFile, igzip_lib.IsalError) as error:  # type: ignore[misc]  # its stub is no class
        raise damaged(path.name) from error
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be unpacked in {plain.parent} ({error.strerror}); free some space "
            "there, or name another folder in the environment variable TMPDIR."
        ) from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
