"""Lesions as connected regions: which are met by findings, and which findings are false."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LesionMatch", "label_lesions", "match_lesions", "region_shares", "summarise_lesions"]


@dataclass(frozen=True)
class LesionMatch:
    """Findings of a scan compared with its lesions.

    Attributes
    ----------
    met : tuple of bool
        For each lesion, in the order of its label, whether findings meet it.
    sizes : tuple of int
        Voxels of each lesion.
    false : tuple of int
        Labels of findings that meet no lesion.
    """

    met: tuple[bool, ...]
    sizes: tuple[int, ...]
    false: tuple[int, ...]

    @property
    def largest_met(self) -> bool | None:
        """Whether the largest lesion is met; None without a lesion."""
        return self.met[int(np.argmax(self.sizes))] if self.sizes else None

    def row(self) -> dict[str, Any]:
        """Return the columns of a table of cases."""
        return {
            "lesions": len(self.met),
            "lesions_met": sum(self.met),
            "largest_lesion_met": self.largest_met,
            "false_findings": len(self.false),
        }


def label_lesions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Label the lesions of a mask: regions connected by faces, edges or corners.

    Parameters
    ----------
    mask : ndarray of bool, (S, P, L)

    Returns
    -------
    labels : ndarray of int32, (S, P, L)
    count : int
    """
    from scipy.ndimage import label

    labels, count = label(mask, np.ones((3, 3, 3)), output=np.int32)
    return labels, int(count)


def match_lesions(
    lesions: NDArray[np.int32],
    findings: NDArray[np.integer],
    overlap: float = 0.0,
) -> LesionMatch:
    """Compare findings with lesions.

    Parameters
    ----------
    lesions : ndarray of int32, (S, P, L)
        From `label_lesions`.
    findings : ndarray of int, (S, P, L)
        Labels of the findings.
    overlap : float
        As in `EvaluationSettings.lesion_overlap`.
    """
    ill = lesions > 0
    marked = findings > 0
    both = ill & marked
    sizes = np.bincount(lesions[ill])[1:]
    covered = np.bincount(lesions[both], minlength=len(sizes) + 1)[1:]
    found_sizes = np.bincount(findings[marked])
    inside = np.bincount(findings[both], minlength=len(found_sizes))
    met = (covered > 0) & (covered >= overlap * sizes)
    false = (found_sizes > 0) & ((inside == 0) | (inside < overlap * found_sizes))
    return LesionMatch(
        tuple(met.tolist()), tuple(sizes.tolist()), tuple(np.flatnonzero(false).tolist())
    )


def region_shares(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return each lesion pixel's share in its region, and the number of regions of each slice.

    Regions are those of single slices, connected by sides or corners, as in the papers, whose data
    are 2D.

    Parameters
    ----------
    mask : ndarray of bool, (slices, rows, cols)

    Returns
    -------
    shares : ndarray of float32, (slices, rows, cols)
        1 / size of the region; 0 outside.
    counts : ndarray of int64, (slices,)
    """
    from scipy.ndimage import label

    shares = np.zeros(mask.shape, dtype=np.float32)
    counts = np.zeros(len(mask), dtype=np.int64)
    for number in np.flatnonzero(mask.any(axis=(1, 2))):
        regions, counts[number] = label(mask[number], np.ones((3, 3)))
        inside = regions > 0
        shares[number][inside] = 1 / np.bincount(regions[inside])[regions[inside]]
    return shares, counts


def summarise_lesions(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarise the columns of `LesionMatch.row` over cases."""
    lesions = sum(row["lesions"] for row in rows)
    met = [row["largest_lesion_met"] for row in rows if row["largest_lesion_met"] is not None]
    return {
        "lesions": lesions,
        "sensitivity": sum(row["lesions_met"] for row in rows) / lesions if lesions else None,
        "scans_with_lesion": len(met),
        "largest_met": sum(met),
        "false_findings_a_scan": float(np.mean([row["false_findings"] for row in rows])),
    }
