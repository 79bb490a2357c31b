"""From an anomaly map and a threshold to ranked findings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.calibration import Calibration
    from napari_dino_uad.core.volume import Volume

__all__ = ["Finding", "find_findings", "write_findings_csv"]

# Labels are uint8, because napari redraws that type many times faster than any other.
_MOST_FINDINGS = 255


@dataclass(frozen=True)
class Finding:
    """One connected region above the threshold.

    Attributes
    ----------
    label : int
        Its value in the labels; 1 is the largest.
    volume_ml : float
        Volume in millilitres.
    peak_score, mean_score : float
        Highest and mean anomaly score.
    p_value : float
        False-positive rate on healthy tissue of the peak score.
    centroid_ras_mm : tuple of float
        Centroid in mm to the right, front and head.
    centroid_voxel : tuple of float
        Centroid in voxels of the canonical grid (S, P, L).
    first_slice, last_slice : int
        Extent along the axis feet to head, counted from 0.
    """

    label: int
    volume_ml: float
    peak_score: float
    mean_score: float
    p_value: float
    centroid_ras_mm: tuple[float, float, float]
    centroid_voxel: tuple[float, float, float]
    first_slice: int
    last_slice: int


def find_findings(
    scores: NDArray[np.float32],
    volume: Volume,
    threshold: float,
    calibration: Calibration,
    *,
    foreground: NDArray[np.bool_] | None = None,
    minimum_volume_ml: float = 0.1,
) -> tuple[NDArray[np.uint8], list[Finding]]:
    """Find the connected regions above a threshold and rank them.

    Parameters
    ----------
    scores : ndarray of float32, (S, P, L)
        Anomaly scores on the volume's canonical grid.
    volume : Volume
        The scan.
    threshold : float
        Score above which a voxel is abnormal.
    calibration : Calibration
        Turns scores into p-values.
    foreground : ndarray of bool, (S, P, L), optional
        Tissue; nothing is found outside it.
    minimum_volume_ml : float
        Smaller regions are dropped.

    Returns
    -------
    labels : ndarray of uint8, (S, P, L)
    findings : list of Finding
        Largest first; at most 255.
    """
    import SimpleITK as sitk

    if minimum_volume_ml < 0:
        raise InputError(f"A minimum size is 0 ml or more, but {minimum_volume_ml} came.")
    above = scores > threshold
    if foreground is not None:
        above &= foreground
    components = sitk.ConnectedComponent(sitk.GetImageFromArray(above.astype(np.uint8)), True)
    minimum_voxels = max(1, int(np.ceil(minimum_volume_ml / volume.voxel_volume_ml - 1e-9)))
    ordered = sitk.RelabelComponent(components, minimum_voxels, True)
    ranked = sitk.GetArrayFromImage(ordered)
    ranked[ranked > _MOST_FINDINGS] = 0
    labels = ranked.astype(np.uint8)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(ordered)
    intensity = sitk.LabelIntensityStatisticsImageFilter()
    intensity.Execute(ordered, sitk.GetImageFromArray(scores))
    findings = []
    for label in shape.GetLabels()[:_MOST_FINDINGS]:
        # The image was made without geometry, so physical points are voxel indices, x first.
        centroid = tuple(float(value) for value in reversed(shape.GetCentroid(label)))
        _, _, first, _, _, extent = shape.GetBoundingBox(label)
        peak = float(intensity.GetMaximum(label))
        findings.append(
            Finding(
                label=int(label),
                volume_ml=shape.GetNumberOfPixels(label) * volume.voxel_volume_ml,
                peak_score=peak,
                mean_score=float(intensity.GetMean(label)),
                p_value=float(calibration.false_positive_rate(peak)),
                centroid_ras_mm=volume.to_ras_mm(centroid),
                centroid_voxel=(centroid[0], centroid[1], centroid[2]),
                first_slice=int(first),
                last_slice=int(first + extent - 1),
            )
        )
    return labels, findings


def write_findings_csv(path: Path, findings: Sequence[Finding]) -> None:
    """Write findings as CSV, under a temporary name first.

    Parameters
    ----------
    path : Path
        The file.
    findings : sequence of Finding
        One row each.
    """
    temporary = path.with_name(f".{path.name}.partial")
    names = [
        "label", "volume_ml", "peak_score", "mean_score", "p_value",
        "right_mm", "anterior_mm", "superior_mm", "first_slice", "last_slice",
    ]  # fmt: skip
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for finding in findings:
            row = asdict(finding)
            right, anterior, superior = finding.centroid_ras_mm
            row |= {"right_mm": right, "anterior_mm": anterior, "superior_mm": superior}
            writer.writerow(
                {
                    name: f"{row[name]:.6g}" if isinstance(row[name], float) else row[name]
                    for name in names
                }
            )
    temporary.replace(path)
