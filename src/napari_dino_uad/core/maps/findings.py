"""Ranked findings from an anomaly map and a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.slices.crop import tight_box
from napari_dino_uad.core.storage.atomic import csv_text

if TYPE_CHECKING:
    from napari_dino_uad.core.calibration import Calibration
    from napari_dino_uad.core.scans.volume import Volume

__all__ = [
    "MOST_FINDINGS",
    "Finding",
    "SizeUnit",
    "count_edits",
    "describe_labels",
    "edit_findings",
    "find_findings",
    "find_regions",
    "size_unit",
    "worst_voxel",
    "write_findings_csv",
]

# Labels are uint8 because napari redraws that type many times faster than any other.
MOST_FINDINGS = 255


@dataclass(frozen=True)
class SizeUnit:
    """Unit for the size of a finding.

    Attributes
    ----------
    name : str
        Name shown to users.
    voxel : float
        Size of one voxel.
    smallest : float
        Default minimum size of a finding.
    decimals : int
        Decimals to show.
    """

    name: str
    voxel: float
    smallest: float
    decimals: int

    @classmethod
    def of(cls, spacing_mm: Sequence[float], is_2d: bool, spacing_known: bool) -> SizeUnit:
        """Choose the unit: ml, mm² for a single slice, or pixels and voxels without spacing.

        Parameters
        ----------
        spacing_mm, is_2d, spacing_known
            As in `Volume`.
        """
        if not spacing_known:
            return cls("pixels" if is_2d else "voxels", 1.0, 100.0, 0)
        if is_2d:
            return cls("mm²", float(np.prod(spacing_mm[1:])), 10.0, 0)
        return cls("ml", float(np.prod(spacing_mm)) / 1000, 1.0, 2)

    def text(self, voxels: int) -> str:
        """Format a number of voxels as a size."""
        return f"{voxels * self.voxel:.{self.decimals}f} {self.name}"


def size_unit(volume: Volume) -> SizeUnit:
    """Return the unit for sizes in a scan."""
    return SizeUnit.of(volume.spacing_mm, volume.is_2d, volume.spacing_known)


@dataclass(frozen=True)
class Finding:
    """A connected region above the threshold.

    Attributes
    ----------
    label : int
        Value of the region in the labels; 1 is the largest. A region that a reader corrects keeps
        its number.
    voxels : int
        Number of voxels; pixels for a single slice.
    volume_ml : float or None
        Volume in millilitres; None for a single slice or an unknown spacing.
    area_mm2 : float or None
        Area in mm²; only for a single slice with known spacing.
    peak_score, mean_score : float
        Highest and mean anomaly score.
    p_value : float
        False-positive rate of the peak score on healthy tissue.
    centroid_ras_mm : tuple of float or None
        Centroid in mm to the right, front and head; None if the spacing is unknown.
    centroid_voxel : tuple of float
        Centroid in voxels of the canonical grid (S, P, L).
    first_slice, last_slice : int
        Extent along the feet-to-head axis, counted from 0.
    """

    label: int
    voxels: int
    volume_ml: float | None
    area_mm2: float | None
    peak_score: float
    mean_score: float
    p_value: float
    centroid_ras_mm: tuple[float, float, float] | None
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
    minimum_size: float | None = None,
    core: float | None = None,
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
        Converts scores to p-values.
    foreground : ndarray of bool, (S, P, L), optional
        Tissue; findings are restricted to it.
    minimum_size : float, optional
        Drop smaller regions; in the unit of the scan's `size_unit`, default its own `smallest`.
    core : float, optional
        The minimum size counts above this score, such as `Calibration.core_threshold`: a lesion
        rises above the threshold, healthy tissue mostly lies just above it. The region reaches as
        far as the threshold, as in J. Canny, "A Computational Approach to Edge Detection", IEEE
        TPAMI 8 (1986). The threshold if not given.

    Returns
    -------
    labels : ndarray of uint8, (S, P, L)
    findings : list of Finding
        Largest first; at most 255.

    Raises
    ------
    InputError
        If the minimum size is below 0.
    """
    labels = find_regions(
        scores, volume, threshold, foreground=foreground, minimum_size=minimum_size, core=core
    )
    return labels, describe_labels(labels, scores, volume, calibration)


def find_regions(
    scores: NDArray[np.float32],
    volume: Volume,
    threshold: float,
    *,
    foreground: NDArray[np.bool_] | None = None,
    minimum_size: float | None = None,
    core: float | None = None,
) -> NDArray[np.uint8]:
    """Label the regions of `find_findings` without measuring them.

    Raises
    ------
    InputError
        If the minimum size is below 0.
    """
    unit = size_unit(volume)
    minimum = unit.smallest if minimum_size is None else minimum_size
    if minimum < 0:
        raise InputError(
            f"The minimum size must be 0 {unit.name} or more, got {minimum}; raise it."
        )
    above = scores > threshold
    if foreground is not None:
        above &= foreground
    counted = None if core is None or core <= threshold else scores > core
    return _connected(above, max(1, int(np.ceil(minimum / unit.voxel - 1e-9))), counted)


def edit_findings(
    automatic: NDArray[np.uint8],
    edits: NDArray[np.int8],
    scores: NDArray[np.float32],
    volume: Volume,
    calibration: Calibration,
    known: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], list[Finding]]:
    """Apply a reader's corrections to findings, which keep their numbers.

    Parameters
    ----------
    automatic : ndarray of uint8, (S, P, L)
        Labels from `find_findings`.
    edits : ndarray of int8, (S, P, L)
        1 where a voxel is added, -1 where it is removed, 0 where it stays as found.
    scores, volume, calibration
        As in `find_findings`.
    known : ndarray of uint8, (S, P, L), optional
        Labels from before the last correction, at the same threshold.

    Returns
    -------
    labels : ndarray of uint8, (S, P, L)
        Connected regions of any size: a reader may mark a lesion smaller than those looked for.
        Each has the number of the region in `known` that it shares most with, else that of the
        region in `automatic`. Of two regions that share with the same one, the larger part keeps
        the number; what remains is numbered after the highest number so far, the largest first.
    findings : list of Finding
        Largest first; at most 255.
    """
    labels = _connected(((automatic > 0) | (edits > 0)) & (edits >= 0), 1)
    before = [automatic] if known is None else [known, automatic]
    labels = _renumbered(labels, before)
    findings = describe_labels(labels, scores, volume, calibration)
    return labels, sorted(findings, key=lambda finding: -finding.voxels)


def _renumbered(
    labels: NDArray[np.uint8], before: Sequence[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Give regions, the largest first, the numbers they had; see `edit_findings`."""
    marked = labels > 0
    regions = labels[marked]
    count = int(regions.max(initial=0))
    numbers: dict[int, int] = {}
    for earlier in before:
        shared = np.zeros((count + 1, MOST_FINDINGS + 1), dtype=np.int64)
        np.add.at(shared, (regions, earlier[marked]), 1)
        shared[:, 0] = 0
        for region, number in sorted(
            zip(*(place.tolist() for place in shared.nonzero()), strict=True),
            key=lambda pair: -shared[pair],
        ):
            if region not in numbers and number not in numbers.values():
                numbers[region] = number
    highest = max((int(earlier.max(initial=0)) for earlier in before), default=0)
    free = [*range(highest + 1, MOST_FINDINGS + 1), *range(1, highest + 1)]
    unused = (number for number in free if number not in set(numbers.values()))
    table = np.zeros(MOST_FINDINGS + 1, dtype=np.uint8)
    for region in range(1, count + 1):
        table[region] = numbers[region] if region in numbers else next(unused)
    return table[labels]


def count_edits(automatic: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[int, int]:
    """Return how many voxels corrected labels have more and fewer than the automatic ones.

    Parameters
    ----------
    automatic, labels : ndarray of uint8, (S, P, L)
        Labels before and after the corrections.

    Returns
    -------
    tuple of (int, int)
        Voxels added and removed.
    """
    before, after = automatic > 0, labels > 0
    return int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))


def _connected(
    mask: NDArray[np.bool_], minimum_voxels: int, counted: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Label the connected regions of a mask, the largest first, without the smallest.

    The minimum is that of their voxels within `counted`, if it is given.
    """
    import SimpleITK as sitk

    labels = np.zeros(mask.shape, dtype=np.uint8)
    box = tight_box(mask)
    if not mask[box].size:
        return labels
    # Each step lets go of what came before it: of a large CT an image takes 0.2 to 0.6 GB.
    image = sitk.GetImageFromArray(mask[box].view(np.uint8))
    image = sitk.ConnectedComponent(image, True)
    regions = sitk.GetArrayViewFromImage(image)
    # Ranked here by slice, because SimpleITK's own filter makes another image of that size.
    sizes = _sizes(regions)
    enough = sizes if counted is None else _sizes(regions, counted[box])
    kept = np.flatnonzero(enough >= minimum_voxels)
    largest = kept[np.argsort(-sizes[kept], kind="stable")][:MOST_FINDINGS]
    rank = np.zeros(len(sizes), dtype=np.uint8)
    rank[largest] = np.arange(1, len(largest) + 1)
    for target, one in zip(labels[box], regions, strict=True):
        np.take(rank, one, out=target)
    return labels


def _sizes(
    regions: NDArray[np.integer], within: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Count the voxels of each region, slice by slice; none of the background."""
    sizes = np.zeros(int(regions.max()) + 1, dtype=np.int64)
    for number, one in enumerate(regions):
        chosen = one.ravel() if within is None else one[within[number]]
        sizes += np.bincount(chosen, minlength=len(sizes))
    sizes[0] = 0
    return sizes


def describe_labels(
    labels: NDArray[np.uint8],
    scores: NDArray[np.float32],
    volume: Volume,
    calibration: Calibration,
) -> list[Finding]:
    """Measure labelled regions.

    Parameters
    ----------
    labels : ndarray of uint8, (S, P, L)
        0 is background; any other value is one region.
    scores : ndarray of float32, (S, P, L)
        Anomaly scores on the same grid.
    volume : Volume
        The scan.
    calibration : Calibration
        Turns scores into p-values.

    Returns
    -------
    list of Finding
        One for each label, in their order.
    """
    import SimpleITK as sitk

    box = tight_box(labels > 0)
    if not labels[box].size:
        return []
    unit = size_unit(volume)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOff()
    shapes.Execute(sitk.GetImageFromArray(labels[box]))
    # Of the marked voxels alone: an image of all scores would be a second map.
    marked = labels[box] > 0
    values, regions = scores[box][marked], labels[box][marked]
    sums = np.bincount(regions, values)
    peaks = np.full(len(sums), -np.inf, dtype=np.float32)
    np.maximum.at(peaks, regions, values)
    findings = []
    for label in shapes.GetLabels():
        # The image has no geometry, so physical points are voxel indices, x first.
        centroid = tuple(
            float(value) + side.start
            for value, side in zip(reversed(shapes.GetCentroid(label)), box, strict=True)
        )
        _, _, first, _, _, extent = shapes.GetBoundingBox(label)
        first += box[0].start
        peak = float(peaks[label])
        voxels = int(shapes.GetNumberOfPixels(label))
        findings.append(
            Finding(
                label=int(label),
                voxels=voxels,
                volume_ml=voxels * unit.voxel if unit.name == "ml" else None,
                area_mm2=voxels * unit.voxel if unit.name == "mm²" else None,
                peak_score=peak,
                mean_score=float(sums[label] / voxels),
                p_value=float(calibration.false_positive_rate(peak)),
                centroid_ras_mm=volume.to_ras_mm(centroid) if volume.spacing_known else None,
                centroid_voxel=(centroid[0], centroid[1], centroid[2]),
                first_slice=int(first),
                last_slice=int(first + extent - 1),
            )
        )
    return findings


def worst_voxel(
    scores: NDArray[np.float32], labels: NDArray[np.uint8], finding: Finding, threshold: float
) -> tuple[int, int, int]:
    """Return the highest score in the worst slice of a finding.

    The worst slice is that with the largest sum of scores above the threshold.

    Parameters
    ----------
    scores : ndarray of float32, (S, P, L)
    labels : ndarray of uint8, (S, P, L)
        Voxels of the findings.
    finding : Finding
    threshold : float
        Score above which a voxel is abnormal.
    """
    sums = [
        np.maximum(values[where == finding.label] - threshold, 0).sum()
        for values, where in zip(
            scores[finding.first_slice : finding.last_slice + 1],
            labels[finding.first_slice : finding.last_slice + 1],
            strict=True,
        )
    ]
    number = finding.first_slice + int(np.argmax(sums))
    inside = np.where(labels[number] == finding.label, scores[number], -np.inf)
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return number, int(row), int(column)


def write_findings_csv(
    path: Path, findings: Sequence[Finding], more: Sequence[Mapping[str, str]] = ()
) -> None:
    """Write findings as CSV straight to a file, inside a folder of `staged`.

    Parameters
    ----------
    path : Path
        File to write.
    findings : sequence of Finding
        One row each; unknown values are left empty.
    more : sequence of mapping, optional
        Texts of further columns, for each finding.
    """
    names = [
        "label", "volume_ml", "area_mm2", "voxels", "peak_score", "mean_score", "p_value",
        "right_mm", "anterior_mm", "superior_mm", "centre_slice", "centre_row", "centre_column",
        "first_slice", "last_slice",
    ]  # fmt: skip
    rows = []
    for finding in findings:
        row = asdict(finding)
        places = {
            ("right_mm", "anterior_mm", "superior_mm"): finding.centroid_ras_mm,
            ("centre_slice", "centre_row", "centre_column"): finding.centroid_voxel,
        }
        for columns, place in places.items():
            row |= zip(columns, place or (None, None, None), strict=True)
        rows.append(
            {
                name: f"{row[name]:.6g}" if isinstance(row[name], float) else row[name]
                for name in names
            }
        )
    for row, texts in zip(rows, more, strict=False):
        row |= texts
    if more:
        names += list(more[0])
    path.write_text(csv_text(names, rows), encoding="utf-8")
