"""One row for each finding, as tables, layers and reports show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.maps.findings import Finding, size_unit
from napari_dino_uad.core.maps.places import place_mm

if TYPE_CHECKING:
    from napari_dino_uad.core.maps.places import TissueFrame
    from napari_dino_uad.core.maps.review import Decision, Judgement

__all__ = ["FindingRow", "accepted_rows", "finding_rows", "row_columns"]

# Units of the sizes in a single picture.
_FLAT = ("mm²", "pixels")


@dataclass(frozen=True)
class FindingRow:
    """A finding with its place in words and the reader's decision.

    Attributes
    ----------
    finding : Finding
    size : float
        In `unit`.
    unit : str
        "ml", "mm²", "pixels" or "voxels".
    side : str
        The place in words; empty where the scan has no orientation.
    centre : str
        The centre in mm, as in `place_mm`; empty if the spacing is unknown.
    decision : {"open", "accepted", "rejected"}
    note : str
    """

    finding: Finding
    size: float
    unit: str
    side: str
    centre: str
    decision: Decision = "open"
    note: str = ""

    @property
    def label(self) -> int:
        """Number of the finding."""
        return self.finding.label

    @property
    def slices(self) -> str:
        """First and last slice; empty in a single picture."""
        if self.unit in _FLAT:
            return ""
        first, last = self.finding.first_slice, self.finding.last_slice
        return str(first) if first == last else f"{first}-{last}"


def finding_rows(
    findings: Sequence[Finding],
    frame: TissueFrame,
    judgements: Mapping[int, Judgement] | None = None,
) -> list[FindingRow]:
    """Return a row for each finding.

    Parameters
    ----------
    findings : sequence of Finding
    frame : TissueFrame
        Of the scan, for the places in words.
    judgements : mapping of int to Judgement, optional
        By label, from `Review.of`.
    """
    unit = size_unit(frame.volume)
    rows = []
    for finding in findings:
        judged = (judgements or {}).get(finding.label)
        rows.append(
            FindingRow(
                finding,
                finding.voxels * unit.voxel,
                unit.name,
                frame.side(finding.centroid_voxel),
                place_mm(frame.volume, finding.centroid_voxel),
                "open" if judged is None else judged.decision,
                "" if judged is None else judged.note,
            )
        )
    return rows


def accepted_rows(rows: Sequence[FindingRow]) -> list[FindingRow]:
    """Return the rows of accepted findings."""
    return [row for row in rows if row.decision == "accepted"]


def row_columns(rows: Sequence[FindingRow]) -> dict[str, list[Any]]:
    """Return the columns of a table of rows, such as the features of a labels layer.

    Places in mm are NaN where the spacing is unknown.
    """
    unknown = (float("nan"),) * 3
    places = [row.finding.centroid_ras_mm or unknown for row in rows]
    unit = rows[0].unit if rows else "ml"
    return {
        "index": [row.label for row in rows],
        unit: [row.size for row in rows],
        "peak": [row.finding.peak_score for row in rows],
        "mean": [row.finding.mean_score for row in rows],
        "p": [row.finding.p_value for row in rows],
        "first slice": [row.finding.first_slice for row in rows],
        "last slice": [row.finding.last_slice for row in rows],
        "side": [row.side for row in rows],
        "R": [place[0] for place in places],
        "A": [place[1] for place in places],
        "S": [place[2] for place in places],
        "decision": [row.decision for row in rows],
        "note": [row.note for row in rows],
    }
