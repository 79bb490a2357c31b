"""The report as one HTML page that holds everything it needs."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.maps.domain_shift import differences, measure_shift
from napari_dino_uad.core.maps.findings import size_unit, worst_voxel
from napari_dino_uad.core.report.pictures import finding_picture, png_uri
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.core.storage.atomic import write_text

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.finding_rows import FindingRow
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["CaseFacts", "render_report", "write_report"]

_PICTURES = 3
# Findings in the table, and characters of a note, that fit on the page.
_ROWS, _NOTE = 10, 200
# Width of a picture: three fit between the margins of a sheet of A4 at 96 dots per inch.
_WIDTH = 204
_NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class CaseFacts:
    """What a report says of a case beside its findings.

    Attributes
    ----------
    rate : float
        The threshold, as a false-positive rate on healthy tissue.
    minimum_size : float or None
        In the scan's `size_unit`; None for its default.
    without_scalp : bool
        Whether the scalp is left out too.
    tissue_only : bool
    added, removed : int
        Voxels corrected by hand.
    model_name : str
        Empty if the model has none.
    scan_name : str
        Empty by default: file names often hold names of patients.
    """

    rate: float
    minimum_size: float | None = None
    tissue_only: bool = True
    without_scalp: bool = False
    added: int = 0
    removed: int = 0
    model_name: str = ""
    scan_name: str = ""


def write_report(
    path: Path,
    anomaly: AnomalyMap,
    labels: NDArray[np.uint8],
    rows: Sequence[FindingRow],
    facts: CaseFacts,
) -> None:
    """Write the report on a scan as one HTML file.

    Parameters
    ----------
    path : Path
        File to write.
    anomaly, labels, rows, facts
        As in `render_report`.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_text(path, render_report(anomaly, labels, rows, facts))


def render_report(
    anomaly: AnomalyMap,
    labels: NDArray[np.uint8],
    rows: Sequence[FindingRow],
    facts: CaseFacts,
    *,
    printed: bool = False,
) -> str:
    """Return the report on a scan as one HTML page, without names of patients or folders.

    Parameters
    ----------
    anomaly : AnomalyMap
    labels : ndarray of uint8, (S, P, L)
        Voxels of the findings.
    rows : sequence of FindingRow
        The findings, largest first. The three with the highest peaks are pictured, rejected ones
        last.
    facts : CaseFacts
    printed : bool
        Whether it has no margins, because it goes onto paper with margins of its own.
    """
    from jinja2 import Environment, FileSystemLoader

    threshold = anomaly.model.calibration.threshold(facts.rate)
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return templates.get_template("report.html").render(
        summary=_summary(rows, anomaly.volume),
        warning=_warning(anomaly, facts),
        notices=anomaly.volume.notices,
        facts=_facts(anomaly, facts, threshold),
        rows=[_cells(row) for row in rows[:_ROWS]],
        unit=size_unit(anomaly.volume).name,
        sides=_sides(anomaly),
        width=_WIDTH,
        printed=printed,
        left=max(0, len(rows) - _ROWS),
        pictures=[
            _picture(anomaly, labels, row, threshold, facts)
            for row in sorted(rows, key=_interest)[:_PICTURES]
        ],
        research_use=RESEARCH_USE,
        made=f"napari-dino-uad {version('napari-dino-uad')}, {datetime.date.today().isoformat()}",
    )


def _sides(anomaly: AnomalyMap) -> str:
    """Return which side of the patient lies on the left of the pictures, where that is known."""
    if anomaly.volume.is_2d or not anomaly.volume.spacing_known:
        return ""
    left = "front" if anomaly.planes[0].plane == "sagittal" else "right"
    return f"Patient's {left} on the left. "


def _warning(anomaly: AnomalyMap, facts: CaseFacts) -> str:
    """Return why the model may not fit the scan, and what differs; empty if it fits."""
    warning = measure_shift(anomaly.level, anomaly.model.levels).warning
    if not warning:
        return ""
    model = anomaly.model
    differs = differences(
        anomaly.volume, anomaly.scan, anomaly.tissue_frame, model.preprocessing, facts.model_name
    )
    return f"{warning} {differs.text}".strip()


def _interest(row: FindingRow) -> tuple[bool, float]:
    return row.decision == "rejected", -row.finding.peak_score


def _summary(rows: Sequence[FindingRow], volume: Volume) -> str:
    if not rows:
        return "No finding above the threshold."
    unit = size_unit(volume)

    def told(chosen: Sequence[FindingRow]) -> str:
        return unit.text(sum(row.finding.voxels for row in chosen))

    text = f"{len(rows)} finding{'s' if len(rows) > 1 else ''}, {told(rows)}"
    parts = []
    for decision in ("accepted", "rejected", "open"):
        chosen = [row for row in rows if row.decision == decision]
        if chosen:
            words = "not reviewed" if decision == "open" else decision
            parts.append(f"{len(chosen)} {words} ({told(chosen)})")
    return f"{text}: {', '.join(parts)}."


def _facts(anomaly: AnomalyMap, facts: CaseFacts, threshold: float) -> list[tuple[str, str]]:
    volume, model = anomaly.volume, anomaly.model
    size = " x ".join(str(n) for n in volume.shape[::-1])
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing_mm[::-1])
    if volume.is_2d:
        size, kind = " x ".join(str(n) for n in volume.shape[:0:-1]), "pixels"
    else:
        kind = "voxels"
    scan = f"{size} {kind}" + (f" of {spacing} mm" if volume.spacing_known else "")
    scan = ", ".join(part for part in (facts.scan_name, volume.modality, scan) if part)
    unit = size_unit(volume)
    smallest = unit.smallest if facts.minimum_size is None else facts.minimum_size
    searched = f"{'tissue only' if facts.tissue_only else 'background too'}, "
    if facts.without_scalp and facts.tissue_only:
        searched += "no scalp found, " if anomaly.scalp is None else "without the scalp, "
    searched += f"findings of {smallest:g} {unit.name} or more"
    named = (
        facts.model_name,
        model.normative.method,
        model.backbone_key,
        model.lesions_text,
        f"smoothing {model.maps.smoothing_mm:g} mm",
    )
    cohort = model.cohort
    told = f"{cohort.get('scans', 0)} scans, {cohort.get('slices', 0)} slices, "
    told += model.images_text
    if date := cohort.get("date", ""):
        told += f", fitted {date}"
    out = [
        ("Scan", scan),
        ("Model", ", ".join(part for part in named if part)),
        ("Healthy cohort", told),
        (
            "Threshold",
            f"{100 * facts.rate:.2g} % false alarms in healthy tissue (score {threshold:.3g})",
        ),
        ("Searched", searched),
    ]
    if remark := measure_shift(anomaly.level, model.levels).remark:
        out.append(("Kind of scan", remark))
    if facts.added or facts.removed:
        out.append(("Edited by hand", f"{facts.added} voxels added, {facts.removed} removed"))
    return out


def _cells(row: FindingRow) -> dict[str, Any]:
    finding = row.finding
    note = row.note if len(row.note) <= _NOTE else f"{row.note[:_NOTE]}…"
    return {
        "number": row.label,
        "size": f"{row.size:.2f}" if row.unit == "ml" else f"{row.size:.0f}",
        "peak": f"{finding.peak_score:.2f}",
        "mean": f"{finding.mean_score:.2f}",
        "p": f"{finding.p_value:.1g}",
        "slices": row.slices,
        "side": row.side,
        "place": row.centre.removesuffix(" mm").replace(" ", _NBSP),
        "decision": f"not{_NBSP}reviewed" if row.decision == "open" else row.decision,
        "rejected": row.decision == "rejected",
        "note": note,
    }


def _picture(
    anomaly: AnomalyMap,
    labels: NDArray[np.uint8],
    row: FindingRow,
    threshold: float,
    facts: CaseFacts,
) -> dict[str, str]:
    voxel = worst_voxel(anomaly.scores, labels, row.finding, threshold)
    tissue = anomaly.tissue(without_scalp=facts.without_scalp) if facts.tissue_only else None
    picture, number = finding_picture(anomaly, labels, row.label, voxel, threshold, tissue)
    rejected = ", rejected" if row.decision == "rejected" else ""
    caption = f"Finding {row.label}{rejected}"
    if not anomaly.volume.is_2d:
        caption += f", {anomaly.planes[0].plane} slice {number}"
    return {"uri": png_uri(picture), "caption": caption, "height": str(_shown_height(picture))}


def _shown_height(picture: NDArray[np.uint8]) -> int:
    """Return the height at which three pictures stand side by side."""
    return round(_WIDTH * picture.shape[0] / picture.shape[1])
