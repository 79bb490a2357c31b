"""A segmentation of the findings and a parametric map of the scores, written with highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.dicom_export.source import Source, on_frames, read_source
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.core.storage.atomic import staged, writing

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.finding_rows import FindingRow

__all__ = ["DicomPaths", "write_dicom_map", "write_dicom_segmentation"]

_MAKER = "napari-dino-uad"
# Colours of the segments, in turn, as RGB in [0, 1].
_COLOURS = ((0.0, 0.9, 1.0), (0.35, 1.0, 0.35), (0.35, 0.55, 1.0), (1.0, 1.0, 0.4), (0.8, 0.5, 1.0))
# Most characters of a text in DICOM of one line, and of several.
_LINE, _TEXT = 64, 1024
_TITLES = {"open": "", "accepted": ", accepted", "rejected": ", rejected"}


class DicomPaths(NamedTuple):
    """The DICOM files of a case."""

    segmentation: Path
    parametric_map: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> DicomPaths:
        """Return the paths in a folder."""
        return cls(folder / f"{name}_findings.dcm", folder / f"{name}_anomaly.dcm")


def write_dicom_segmentation(
    path: Path,
    anomaly: AnomalyMap,
    labels: NDArray[np.uint8],
    rows: Sequence[FindingRow],
    *,
    edited: bool = False,
) -> None:
    """Write findings as a DICOM segmentation on the frames of the scan's own series.

    Parameters
    ----------
    path : Path
        File to write.
    anomaly : AnomalyMap
        The map of a scan that was read from a DICOM series.
    labels : ndarray of uint8, (S, P, L)
        Voxels of the findings.
    rows : sequence of FindingRow
        The findings to write; each becomes a segment, whose name says the decision.
    edited : bool
        Whether a reader corrected the findings.

    Raises
    ------
    InputError
        If there is no finding, highdicom is missing, or the series cannot be referred to.
    """
    if not rows:
        raise InputError("A DICOM segmentation needs at least one finding; there is none.")
    source = read_source(anomaly.volume)
    import highdicom as hd

    numbers = np.zeros(256, dtype=np.uint8)
    numbers[[row.label for row in rows]] = np.arange(1, len(rows) + 1)
    pixels = on_frames(numbers[labels], anomaly.volume, source.frames)
    kept = np.isin(np.arange(1, len(rows) + 1), pixels)
    # Half a voxel may vanish on the way back to tilted slices.
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[1 : len(rows) + 1] = np.cumsum(kept) * kept
    rows = [row for row, there in zip(rows, kept, strict=True) if there]
    segments = [
        _segment(number, row, anomaly, edited=edited) for number, row in enumerate(rows, start=1)
    ]
    _write(
        path,
        source,
        hd.seg.Segmentation,
        numbers[pixels],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        content_label="FINDINGS",
        content_description=f"Findings. {RESEARCH_USE}",
        series_description="Findings (research)",
        series_number=_series_number(source, 1),
    )


def _segment(number: int, row: FindingRow, anomaly: AnomalyMap, *, edited: bool) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    kinds = hd.seg.SegmentAlgorithmTypeValues
    algorithm = hd.AlgorithmIdentificationSequence(
        name=_MAKER,
        family=codes.DCM.ArtificialIntelligence,
        version=version("napari-dino-uad"),
        parameters={"model": anomaly.model.summary()[:_LINE]},
    )
    name = f"Finding {row.label}"
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name + _TITLES[row.decision],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=kinds.SEMIAUTOMATIC if edited else kinds.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=generate_uid(),
        tracking_id=name,
        display_color=hd.color.CIELabColor.from_rgb(
            *(round(255 * one) for one in _COLOURS[(row.label - 1) % len(_COLOURS)])
        ),
    )
    segment.SegmentDescription = _described(row)[:_TEXT]
    return segment


def _described(row: FindingRow) -> str:
    parts = [f"{row.size:.4g} {row.unit}", f"peak {row.finding.peak_score:.4g}", row.side]
    text = ", ".join(part for part in parts if part)
    return f"{text}; decision: {row.decision}" + (f"; note: {row.note}" if row.note else "")


def write_dicom_map(path: Path, anomaly: AnomalyMap) -> None:
    """Write the anomaly scores as a DICOM parametric map on the frames of the scan's own series.

    Parameters
    ----------
    path : Path
        File to write.
    anomaly : AnomalyMap
        The map of a scan that was read from a DICOM series.

    Raises
    ------
    InputError
        If highdicom is missing, or the series cannot be referred to.
    """
    source = read_source(anomaly.volume)
    import highdicom as hd
    from pydicom.sr.codedict import codes

    pixels = on_frames(anomaly.scores, anomaly.volume, source.frames)
    low, high = float(pixels.min()), float(pixels.max())
    window = (anomaly.model.calibration.threshold(0.1), anomaly.model.calibration.threshold(1e-4))
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="SCORE",
        lut_explanation="Anomaly score",
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
    )
    _write(
        path,
        source,
        hd.pm.ParametricMap,
        pixels,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            hd.VOILUTTransformation(
                window_center=sum(window) / 2, window_width=max(window[1] - window[0], 1e-3)
            )
        ],
        content_label="ANOMALY",
        content_description=f"Anomaly score. {RESEARCH_USE}",
        series_description="Anomaly score (research)",
        series_number=_series_number(source, 2),
    )


def _series_number(source: Source, added: int) -> int:
    """Return a number for a new series, beside that of the scan."""
    first = source.images[0].get("SeriesNumber")
    # The standard allows 12 characters.
    return (int(first) if first is not None else 0) % 1_000_000 * 100 + added


def _write(path: Path, source: Source, kind: Any, pixels: NDArray[Any], **keywords: Any) -> None:
    """Make an object of highdicom and write it, whole or not at all."""
    from pydicom.uid import generate_uid

    try:
        made = kind(
            source.images,
            pixels,
            series_instance_uid=generate_uid(),
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer=_MAKER,
            manufacturer_model_name=_MAKER,
            software_versions=version("napari-dino-uad"),
            device_serial_number="0",
            **source.planes(),
            **keywords,
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise InputError(
            f"DICOM results cannot refer to this series: {reason}; export NIfTI instead."
        ) from error
    if "real_world_value_mappings" in keywords and "Laterality" not in made:
        # A parametric map must have it, though empty; a segmentation must not.
        made.Laterality = ""
    with writing(path), staged(path.parent) as partial:
        made.save_as(partial / path.name, enforce_file_format=True)
