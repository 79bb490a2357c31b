"""Kinds of files, each made by code, and the page of the docs on what happens to them.

`scripts/formats_page.py` writes the page, and a test fails where it is out of date. A kind is a row
of `CASES`: add one there, and run the script.
"""

from __future__ import annotations

import bz2
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image
from pydicom.dataset import Dataset

from dicom_files import (
    SEGMENTATION,
    dataset,
    enhanced,
    frame_groups,
    item,
    noise,
    save,
    write_slices,
)
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.reading import series_in
from napari_dino_uad.core.scans.several import list_volumes
from napari_dino_uad.core.scans.volume import read_volume
from scan_files import random_image

__all__ = ["CASES", "FormatCase", "page"]

CINE, XA = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("3.1", "12.1"))

_AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])

_HEAD = """# What opens

What happens to each kind of file, as this version reads it. Where several volumes are in one file,
`--volume N` (in `fit`, `detect` and `evaluate`), `read_volume(path, volume=N)` or a list in napari
chooses one; of DICOM, which names volumes by UID, `--series UID` of `detect`. A notice is shown by
napari when the scan opens, printed once by the command line, and written into `CASE.json`.

This page is made by `python scripts/formats_page.py` from the list in `tests/format_cases.py`: it
makes a small file of every kind and reads it.
"""


@dataclass(frozen=True)
class FormatCase:
    """One row of the page.

    Attributes
    ----------
    format, kind : str
        What it is, in words.
    make : callable
        Takes an empty folder and returns the path of a file or folder that it wrote there.
    """

    format: str
    kind: str
    make: Callable[[Path], Path]


def _values(shape: tuple[int, ...] = (6, 5, 4), dtype: object = np.float32) -> np.ndarray:
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(dtype)


def _nifti(
    array: np.ndarray | None = None,
    *,
    sform: np.ndarray | None = _AFFINE,
    qform: np.ndarray | None = None,
    codes: tuple[int, int] = (1, 1),
    unit: str = "mm",
    suffix: str = ".nii.gz",
    kind: type = nibabel.Nifti1Image,
    patches: tuple[tuple[int, bytes], ...] = (),
) -> Callable[[Path], Path]:
    """Write a NIfTI file, with bytes of its header replaced."""

    def make(folder: Path) -> Path:
        image = kind(_values() if array is None else array, np.eye(4))
        image.set_sform(sform, codes[1])
        image.set_qform(sform if qform is None else qform, codes[0])
        image.header.set_xyzt_units(unit)
        path = folder / f"scan{'.nii' if patches else suffix}"
        nibabel.save(image, path)
        with path.open("r+b") as file:
            for place, content in patches:
                file.seek(place)
                file.write(content)
        return path

    return make


def _sheared(amount: float, noise: float = 0.0) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 1] = amount
    affine[:3, :3] += noise * np.random.default_rng(0).standard_normal((3, 3))
    return affine


def _leaning() -> np.ndarray:
    affine = _AFFINE.copy()
    affine[1, 2] = 1.0
    return affine


def _moved(by: float) -> np.ndarray:
    affine = _AFFINE.copy()
    affine[0, 3] = by
    return affine


def _with_nan() -> np.ndarray:
    array = _values()
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    return array


def _vector() -> np.ndarray:
    return np.arange(18, dtype=np.uint8).reshape(1, 2, 3, 1, 3)


def _with_b_values(folder: Path) -> Path:
    (folder / "scan.bval").write_text("0 1000 2000")
    return _nifti(_values((6, 5, 4, 3)))(folder)


def _sitk(suffix: str, volumes: int = 1) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"scan{suffix}"
        image = random_image(dtype=np.int16)
        sitk.WriteImage(image if volumes == 1 else sitk.JoinSeries([image] * volumes), str(path))
        return path

    return make


def _nrrd(*lines: str, encoding: str = "raw", shape: tuple[int, ...] = (4, 5, 6)):
    def make(folder: Path) -> Path:
        array = _values(shape)
        head = [
            "NRRD0005",
            "type: float",
            f"dimension: {array.ndim}",
            f"sizes: {' '.join(map(str, array.shape[::-1]))}",
            f"encoding: {encoding}",
            "endian: little",
            *lines,
        ]
        body = array.astype("<f4").tobytes()
        path = folder / "scan.nrrd"
        packed = bz2.compress(body) if encoding == "bz2" else body
        path.write_bytes("\n".join([*head, "", ""]).encode() + packed)
        return path

    return make


def _mha(*lines: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        head = ["ObjectType = Image", "NDims = 3", *lines, "DimSize = 6 5 4"]
        head += ["ElementType = MET_FLOAT", "ElementDataFile = LOCAL", ""]
        path = folder / "scan.mha"
        path.write_bytes("\n".join(head).encode() + _values((4, 5, 6)).astype("<f4").tobytes())
        return path

    return make


def _tiff(array: np.ndarray, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "scan.tif"
        tifffile.imwrite(path, array, **options)
        return path

    return make


def _jpeg(*shape: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        values = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(values).save(folder / "picture.jpg")
        return folder / "picture.jpg"

    return make


def _png(*shape: int, count: int = 0) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for number in range(max(1, count)):
            array = np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8)
            image = sitk.GetImageFromArray(array, isVector=len(shape) == 3)
            sitk.WriteImage(image, str(folder / f"slice{number}.png"))
        return folder if count else folder / "slice0.png"

    return make


def _cut(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(path.read_bytes()[:-40])
        return path

    return made


def _slices(places: list[object], **tags: object) -> Callable[[Path], Path]:
    """Write a classic series; tags that are None are left out."""

    def make(folder: Path) -> Path:
        return write_slices(folder / "series", noise(len(places), 5, 6), places, **tags)

    return make


def _copied(folder: Path) -> Path:
    series = _slices([0, 3, 6, 9])(folder)
    (series / "copy.dcm").write_bytes((series / "001.dcm").read_bytes())
    return series


def _enhanced(times: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        groups = [
            frame_groups(3 * place, time=time + 1) for time in range(times) for place in range(4)
        ]
        return enhanced(folder / "scan.dcm", noise(4 * times, 5, 6), groups)

    return make


def _with_table(folder: Path) -> Path:
    def each(out: Dataset, index: int) -> None:
        out.ModalityLUTSequence = item(
            LUTDescriptor=[4, 0, 16],
            LUTData=bytes((0, 0, 9, 0, 20, 0, 90, 0)),
            ModalityLUTType="US",
        )

    return write_slices(folder, noise(4, 4, 6), [0, 3, 6, 9], each=each)


def _frames(sop_class: str, modality: str, **tags: object) -> Callable[[Path], Path]:
    """Write frames that nothing places."""

    def make(folder: Path) -> Path:
        return save(dataset(noise(9, 4, 6), sop_class, modality, **tags), folder / "frames.dcm")

    return make


def _mosaic(folder: Path) -> Path:
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    return save(dataset(noise(1, 8, 12)[0], ImageType=kind), folder / "mosaic.dcm")


def _segmentation(folder: Path) -> Path:
    groups = [frame_groups(3 * place, segment=1) for place in range(2)]
    return enhanced(
        folder / "scan.dcm",
        (noise(2, 4, 4) > 250).astype(np.uint8),
        groups,
        SEGMENTATION,
        SegmentationType="FRACTIONAL",
        MaximumFractionalValue=1,
        SegmentSequence=item(SegmentNumber=1, SegmentLabel="liver"),
    )


_STACK = {"photometric": "minisblack"}
_IMAGEJ = {"axes": "ZYX", "unit": "micron", "spacing": 2.0}

#: Every kind, in the order of the page.
CASES = (
    FormatCase("NIfTI", "version 1, compressed or not", _nifti()),
    FormatCase("NIfTI", "version 2", _nifti(kind=nibabel.Nifti2Image)),
    FormatCase("NIfTI", "sform and qform that differ", _nifti(qform=_moved(10.0))),
    FormatCase("NIfTI", "neither sform nor qform", _nifti(codes=(0, 0))),
    FormatCase("NIfTI", "in metres or micrometres", _nifti(unit="micron")),
    FormatCase(
        "NIfTI",
        "axes off a right angle by rounding",
        _nifti(sform=_sheared(0, 2e-4), codes=(0, 1)),
    ),
    FormatCase("NIfTI", "sheared axes", _nifti(sform=_sheared(0.3), codes=(0, 1))),
    FormatCase("NIfTI", "slices that lean (gantry tilt)", _nifti(sform=_leaning(), codes=(0, 1))),
    FormatCase("NIfTI", "NaN or infinity", _nifti(_with_nan())),
    FormatCase(
        "NIfTI",
        "slope of 0 with an intercept",
        _nifti(_values(dtype=np.int16), patches=((112, struct.pack("<2f", 0, 100)),)),
    ),
    FormatCase(
        "NIfTI",
        "voxel size of 0",
        _nifti(codes=(1, 0), patches=((80, struct.pack("<3f", 0, 0, 0)),)),
    ),
    FormatCase("NIfTI", "several volumes (fMRI, dynamic)", _nifti(_values((6, 5, 4, 3)))),
    FormatCase("NIfTI", "several volumes with b-values beside it (DWI)", _with_b_values),
    FormatCase("NIfTI", "a vector in every voxel", _nifti(_vector())),
    FormatCase("NIfTI", "complex numbers", _nifti(_values().astype(np.complex64))),
    FormatCase("NIfTI", "truncated", _cut(_nifti())),
    FormatCase("NRRD", "raw or compressed", _sitk(".nrrd")),
    FormatCase("NRRD", "compressed with bzip2", _nrrd("spacings: 1 2 3", encoding="bz2")),
    FormatCase(
        "NRRD",
        "in micrometres",
        _nrrd(
            "space: left-posterior-superior",
            'space units: "um" "um" "um"',
            "space directions: (500,0,0) (0,500,0) (0,0,900)",
        ),
    ),
    FormatCase("NRRD", "in other units", _nrrd("spacings: 1 2 3", 'units: "foot" "foot" "foot"')),
    FormatCase("NRRD", "no spacing", _nrrd()),
    FormatCase(
        "NRRD",
        "several volumes",
        _nrrd("kinds: domain domain domain list", "spacings: 1 2 3 nan", shape=(3, 4, 5, 6)),
    ),
    FormatCase(
        "NRRD",
        "a vector in every voxel",
        _nrrd("kinds: vector domain domain domain", "spacings: nan 1 2 3", shape=(4, 5, 6, 3)),
    ),
    FormatCase("MetaImage", "raw or compressed", _sitk(".mha")),
    FormatCase(
        "MetaImage",
        "in micrometres",
        _mha("ElementSpacing = 500 500 900", "DistanceUnits = um"),
    ),
    FormatCase("MetaImage", "no spacing", _mha()),
    FormatCase("MetaImage", "several volumes", _sitk(".mha", 3)),
    FormatCase("TIFF", "one page or a stack of pages", _tiff(_values((4, 40, 50)), **_STACK)),
    FormatCase(
        "TIFF",
        "tiles of 16 bits",
        _tiff(_values((40, 50), np.uint16), tile=(16, 16), **_STACK),
    ),
    FormatCase("TIFF", "half floats", _tiff(_values((40, 50), np.float16), **_STACK)),
    FormatCase(
        "TIFF",
        "stack of ImageJ with its spacing",
        _tiff(_values((4, 40, 50)), imagej=True, resolution=(2, 2), metadata=_IMAGEJ),
    ),
    FormatCase(
        "TIFF",
        "hyperstack of several times",
        _tiff(_values((3, 4, 40, 50)), imagej=True, metadata={"axes": "TZYX"}),
    ),
    FormatCase(
        "TIFF",
        "channels",
        _tiff(_values((4, 3, 40, 50)), imagej=True, metadata={"axes": "ZCYX"}),
    ),
    FormatCase("TIFF", "colour", _tiff(_values((40, 50, 3), np.uint8), photometric="rgb")),
    FormatCase("PNG", "grey", _png(40, 50)),
    FormatCase("PNG", "colour", _png(40, 50, 3)),
    FormatCase("JPEG", "grey", _jpeg(40, 50)),
    FormatCase("JPEG", "colour", _jpeg(40, 50, 3)),
    FormatCase("PNG or TIFF", "folder of colours", _png(40, 50, 3, count=3)),
    FormatCase("PNG or TIFF", "folder of slices of one size", _png(40, 50, count=3)),
    FormatCase("DICOM", "series of slices", _slices([0, 3, 6, 9])),
    FormatCase("DICOM", "one slice copied twice", _copied),
    FormatCase("DICOM", "slices missing", _slices([0, 3, 9, 12])),
    FormatCase("DICOM", "slices unevenly spaced", _slices([0, 3, 7, 11.5, 14])),
    FormatCase("DICOM", "tilted gantry", _slices([(0, 1.2 * one, 3 * one) for one in range(4)])),
    FormatCase("DICOM", "compressed with loss", _slices([0, 3, 6], LossyImageCompression="01")),
    FormatCase("DICOM", "no pixel spacing", _slices([0, 3, 6], PixelSpacing=None)),
    FormatCase("DICOM", "enhanced, one volume", _enhanced(1)),
    FormatCase("DICOM", "enhanced, several volumes", _enhanced(2)),
    FormatCase("DICOM", "segmentation", _segmentation),
    FormatCase("DICOM", "table of values (modality LUT)", _with_table),
    FormatCase("DICOM", "cine", _frames(CINE, "US", FrameTime="33")),
    FormatCase("DICOM", "X-ray run", _frames(XA, "XA", FrameTime="33")),
    FormatCase("DICOM", "mosaic without the places of its slices", _mosaic),
)


def _outcome(path: Path) -> str:
    """Read a file and say what happens."""
    try:
        volume = read_volume(path)
    except InputError as error:
        series = series_in(path) if path.suffix == ".dcm" else []
        if len(series) > 1:
            return f"offered: {series[0].label} to {series[-1].label} (`--series UID`)"
        return f"refused: {error}"
    size = " x ".join(f"{edge:.4g}" for edge in volume.spacing_mm)
    told = f"opens, voxels of {size} mm" if volume.spacing_known else "opens, in pixels"
    volumes = list_volumes(path)
    if len(volumes) > 1:
        told = f"offered: {volumes[0]} to {volumes[-1]}"
    return "; ".join([told, *(f"notice: {one}" for one in volume.notices)])


def page(folder: Path) -> str:
    """Make and read a file of every kind, and return the text of the page.

    Parameters
    ----------
    folder : Path
        Where the files go; empty.
    """
    lines = [_HEAD, "| format | kind | what happens |", "| --- | --- | --- |"]
    for number, case in enumerate(CASES):
        place = folder / f"case{number}"
        place.mkdir()
        told = _outcome(case.make(place)).replace(str(place), "FOLDER")
        lines.append(f"| {case.format} | {case.kind} | {re.sub(r'[|]', ' ', told)} |")
    return "\n".join([*lines, ""])
