"""Small DICOM objects that tests write with pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, CT, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "2", "4.1"))
SEGMENTATION, PARAMETRIC_MAP, DOSE = (
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("66.4", "30", "481.2")
)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def dataset(pixels: np.ndarray, sop_class: str = MR, modality: str = "MR", **tags) -> Dataset:
    """An object of pixels (rows, cols) or (frames, rows, cols), and `tags` that are not None."""
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.SOPClassUID, out.SOPInstanceUID = sop_class, generate_uid()
    out.StudyInstanceUID, out.SeriesInstanceUID = generate_uid(), "1.2.3"
    out.Modality, out.SeriesDescription, out.StudyDate = modality, "scan", "20240102"
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.Rows, out.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        out.NumberOfFrames = len(pixels)
    bits = 8 * pixels.dtype.itemsize
    out.BitsAllocated = out.BitsStored = bits
    out.HighBit = bits - 1
    out.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.dtype.kind == "f":
        name = "FloatPixelData" if bits == 32 else "DoubleFloatPixelData"
        setattr(out, name, pixels.tobytes())
    else:
        out.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for key, value in tags.items():
        if value is not None:
            setattr(out, key, value)
    return out


def save(out: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, out, enforce_file_format=True)
    return path


def write_slices(
    folder: Path, pixels: np.ndarray, places: Sequence, axes=AXIAL, each=None, **tags
) -> Path:
    """A classic series: `each(dataset, index)` changes single slices."""
    for index, place in enumerate(places):
        place = (0, 0, place) if np.ndim(place) == 0 else place
        out = dataset(
            pixels[index],
            **{
                "InstanceNumber": index + 1,
                "PixelSpacing": [2, 1],
                "SliceThickness": 3,
                "ImageOrientationPatient": list(axes),
                "ImagePositionPatient": [round(float(one), 6) for one in place],
            }
            | tags,
        )
        if each is not None:
            each(out, index)
        save(out, folder / f"{index:03d}.dcm")
    return folder


def item(**tags) -> list[Dataset]:
    out = Dataset()
    for key, value in tags.items():
        setattr(out, key, value)
    return [out]


def frame_groups(
    places: Sequence, axes=AXIAL, stack="1", time=None, b=None, slope=None, segment=None
) -> Dataset:
    """The functional groups of one frame; `places` is a height or a position."""
    place = (0, 0, places) if np.ndim(places) == 0 else places
    out = Dataset()
    out.PlanePositionSequence = item(ImagePositionPatient=[float(one) for one in place])
    out.PlaneOrientationSequence = item(ImageOrientationPatient=list(axes))
    content = {"StackID": stack} if segment is None else {}
    if time is not None:
        content["TemporalPositionIndex"] = time
    out.FrameContentSequence = item(**content)
    if b is not None:
        out.MRDiffusionSequence = item(DiffusionBValue=float(b))
    if slope is not None:
        out.PixelValueTransformationSequence = item(
            RescaleSlope=slope[0], RescaleIntercept=slope[1], RescaleType="US"
        )
    if segment is not None:
        out.SegmentIdentificationSequence = item(ReferencedSegmentNumber=segment)
    return out


def enhanced(
    path: Path,
    pixels: np.ndarray,
    groups: Sequence[Dataset],
    sop_class=ENHANCED_MR,
    measures=None,
    **tags,
) -> Path:
    """An enhanced object with pixels of 2 x 1 mm, 3 mm apart, if `measures` say nothing else."""
    out = dataset(pixels, sop_class, **tags)
    shared = Dataset()
    usual = {"PixelSpacing": [2, 1], "SliceThickness": 3, "SpacingBetweenSlices": 3}
    shared.PixelMeasuresSequence = item(**(measures or usual))
    out.SharedFunctionalGroupsSequence = [shared]
    out.PerFrameFunctionalGroupsSequence = list(groups)
    return save(out, path)


def noise(*shape: int, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 500, shape).astype(np.uint16)
