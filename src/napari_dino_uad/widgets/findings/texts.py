"""The texts of the Findings dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dino_uad.core.maps.findings import size_unit

if TYPE_CHECKING:
    from napari_dino_uad.core.maps.finding_rows import FindingRow
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["describe_place", "describe_review", "why_no_edit"]

_HELD = "This scan is not of the kind the model knows; press Show anyway in Detect."
_NOTHING = "No findings yet: press Detect in the Detect dock, or open a saved review."


def describe_review(detection: Detection | None) -> str:
    """Summarise findings and decisions."""
    if detection is None:
        return _NOTHING
    if detection.anomaly is None or detection.found is None:
        return "Findings come when the map is finished."
    if detection.held:
        return _HELD
    rows = detection.rows
    if not rows:
        return "No finding above the threshold."
    unit = size_unit(detection.anomaly.volume)

    def total(*decisions: str) -> str:
        chosen = [row.finding.voxels for row in rows if row.decision in decisions]
        return unit.text(sum(chosen)) if chosen else ""

    count = {row.decision: 0 for row in rows}
    for row in rows:
        count[row.decision] += 1
    plural = "s" if len(rows) > 1 else ""
    parts = [f"<b>{len(rows)} finding{plural}, {total('open', 'accepted', 'rejected')}</b>"]
    if accepted := total("accepted"):
        parts.append(f"{count['accepted']} accepted, {accepted}")
    if rejected := total("rejected"):
        parts.append(f"{count['rejected']} rejected, {rejected}")
    return "; ".join(parts) + "."


def why_no_edit(detection: Detection | None) -> str:
    """Return why findings cannot be edited; empty if they can."""
    if detection is None or detection.found is None:
        return "No findings yet."
    if detection.held:
        return _HELD
    if detection.layers.findings is None:
        return "The findings layer was deleted; move the threshold to draw it again."
    return ""


def describe_place(row: FindingRow) -> str:
    """Describe where a finding lies."""
    centre = row.centre
    parts = [part for part in (row.side, f"centre {centre}" if centre else "") if part]
    return f"Finding {row.label}" + (f": {', '.join(parts)}" if parts else "")
