"""One image file: read whole or not at all, written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.formats import WRITABLE_SUFFIXES
from napari_dino_uad.core.integrity import check_contents, check_length

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "as_grey",
    "read_image",
    "write_image",
]


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
    check_length(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    if path.suffix.lower() in (".mha", ".mhd"):
        # Of this format alone SimpleITK knows the ending in small letters only.
        reader.SetImageIO("MetaImageIO")
    try:
        image = reader.Execute()
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
    check_contents(path, sitk.GetArrayViewFromImage(image))
    return as_grey(image, path.name)


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
                sitk.WriteImage(image, str(plain))
                _compress(plain, target)
                plain.unlink()
            else:
                sitk.WriteImage(image, str(target), useCompression=suffix not in (".nii", ".mhd"))
            for extra in Path(folder).iterdir():
                if extra != target:
                    extra.replace(path.parent / extra.name)
            target.replace(path)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{path} cannot be written; check that the folder is writable and the disk not full."
        ) from error


def _compress(plain: Path, packed: Path) -> None:
    """Compress a file with ISA-L: as small as zlib at its quickest, in an eighth of the time."""
    from isal.igzip import IGzipFile

    # Without a name and a time, so that the same image gives the same file.
    with (
        plain.open("rb") as source,
        packed.open("wb") as target,
        IGzipFile("", "wb", compresslevel=1, fileobj=target, mtime=0) as stream,
    ):
        shutil.copyfileobj(source, stream, 1 << 20)
