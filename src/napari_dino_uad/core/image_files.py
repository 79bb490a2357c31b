"""One image file: read whole or not at all, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.formats import WRITABLE_SUFFIXES
from napari_dino_uad.core.integrity import check_length, damaged
from napari_dino_uad.core.nifti_tilt import read_tilted, write_tilted
from napari_dino_uad.core.straight import is_sheared

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "as_grey",
    "read_image",
    "write_image",
]

# Threads that compress a file; more are no faster.
_COMPRESSING = 4

_CHUNK = 1 << 20


def read_image(path: Path) -> sitk.Image:
    """Read an image of one value per voxel.

    Parameters
    ----------
    path : Path
        An existing file.

    Raises
    ------
    InputError
        If it is no image, empty, truncated, damaged, or in colour.
    """
    import SimpleITK as sitk

    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty; copy or export the file again.")
    reader = sitk.ImageFileReader()
    if path.suffix.lower() in (".mha", ".mhd"):
        # Of this format alone SimpleITK knows the ending in small letters only.
        reader.SetImageIO("MetaImageIO")
    try:
        with _unpacked(path) as plain:
            check_length(plain, path.name)
            reader.SetFileName(str(plain))
            image = _executed(reader, plain)
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise InputError(
                f"{path.name} has axes that are not at right angles, as its header says; resample "
                "it to a regular grid first."
            ) from error
        beside = (
            ", with its data file beside it" if path.suffix.lower() in (".mhd", ".nhdr") else ""
        )
        raise InputError(
            f"{path.name} cannot be read as an image; expected NIfTI, NRRD, MHA, DICOM, PNG or "
            f"TIFF, whole and undamaged{beside}."
        ) from error
    return as_grey(image, path.name)


def _executed(reader: sitk.ImageFileReader, plain: Path) -> sitk.Image:
    """Read an image, of a NIfTI file one of tilted slices too."""
    try:
        return reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error) and (image := read_tilted(plain)) is not None:
            return image
        raise


def as_grey(image: sitk.Image, name: str) -> sitk.Image:
    """Take one channel of a grey image that was stored in colour; refuse real colour.

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
    # Grey with opacity has two channels, colour three or, with opacity, four.
    grey = values.dtype == np.uint8 and count <= 4
    colours = [values[..., channel] for channel in range(1 if count == 2 else 3)] if grey else []
    if not grey or not all(np.array_equal(colours[0], colour) for colour in colours[1:]):
        raise InputError(
            f"{name} has {count} values in every voxel (a colour image or a vector field), but "
            "one grey value is expected; convert it to greyscale first."
        )
    return sitk.VectorIndexSelectionCast(image, 0)


def write_image(path: Path, image: sitk.Image) -> None:
    """Write an image under a temporary name, then rename it.

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
    import SimpleITK as sitk

    suffix = next((end for end in WRITABLE_SUFFIXES if path.name.lower().endswith(end)), None)
    if suffix is None:
        raise InputError(
            f"{path.name} has an unknown ending; expected one of {', '.join(WRITABLE_SUFFIXES)}."
        )
    # Its own folder keeps both files of an .mhd together; SimpleITK writes endings in small
    # letters only.
    name = path.name[: -len(suffix)] + suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
            target = Path(folder) / name
            if suffix == ".nii.gz":
                plain = target.with_suffix("")
                _write_nifti(image, plain)
                _compress(plain, target)
                plain.unlink()
            elif suffix == ".nii":
                _write_nifti(image, target)
            else:
                sitk.WriteImage(image, str(target), useCompression=suffix != ".mhd")
            for extra in Path(folder).iterdir():
                if extra != target:
                    extra.replace(path.parent / extra.name)
            target.replace(path)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{path} cannot be written; check that the folder is writable and the disk not full."
        ) from error


def _write_nifti(image: sitk.Image, path: Path) -> None:
    import SimpleITK as sitk

    if image.GetDimension() == 3 and is_sheared(image.GetDirection()):
        write_tilted(image, path)
    else:
        sitk.WriteImage(image, str(path))


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
def _unpacked(path: Path) -> Iterator[Path]:
    """Give a file that SimpleITK need not decompress.

    It does so three times slower than ISA-L, and fills what is missing from a truncated file with
    zeros in silence.

    Raises
    ------
    InputError
        If a compressed NIfTI file is damaged, or there is no room to unpack it.
    """
    from isal import igzip, igzip_lib

    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")) or not _is_gzip(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="napari-dino-uad-") as folder:
        plain = Path(folder) / "image.nii"
        try:
            with plain.open("wb") as target, igzip.open(path, "rb") as source:
                shutil.copyfileobj(source, target, _CHUNK)
        except (EOFError, igzip.BadGzipFile, igzip_lib.IsalError) as error:  # type: ignore[misc]  # its stub is no class
            raise damaged(path.name) from error
        except OSError as error:
            raise InputError(
                f"{path.name} cannot be unpacked in {folder} ({error.strerror}); free some space "
                "there, or name another folder in the environment variable TMPDIR."
            ) from error
        yield plain


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
