"""The texts of the Detect panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_dino_uad.core.maps.findings import MOST_FINDINGS, size_unit
from napari_dino_uad.core.maps.places import place_mm
from napari_dino_uad.widgets.layers import scan_shape
from napari_dino_uad.widgets.threshold import format_rate

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_dino_uad.core.maps.findings import Finding
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.volume import Volume
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = [
    "cohort_words",
    "describe_cancelled",
    "describe_cursor",
    "describe_deleted",
    "describe_differences",
    "describe_edits",
    "describe_findings",
    "describe_left_out",
    "describe_scalp",
    "model_details",
    "model_words",
    "place",
    "slice_count",
    "why_no_detection",
    "why_no_saving",
]


def place(volume: Volume, voxel: Sequence[float]) -> str:
    """Return the place of a voxel (S, P, L), in mm if the spacing is known."""
    if volume.spacing_known:
        return place_mm(volume, voxel)
    number, row, column = voxel
    where = f"row {row:.0f} column {column:.0f}"
    return where if volume.is_2d else f"slice {number:.0f} {where}"


def why_no_detection(scan: Image | None, model: FittedModel | None) -> str:
    """Return what is missing before Detect can start; empty if nothing is."""
    if scan is None:
        return "Open a scan first: drag a file or folder into the window."
    if model is None:
        return "No model yet: press Load…, or fit one in the Fit dock."
    return ""


def why_no_saving(shown: Detection | None) -> str:
    """Return why there is nothing to save; empty if there is."""
    if shown is None:
        return "Detect first: no map yet."
    if shown.held:
        return "This scan is not of the kind the model knows; press Show anyway first."
    if shown.anomaly is None:
        return "This map is not finished; press Detect to complete it."
    return ""


def describe_findings(detection: Detection) -> str:
    """Summarise the findings of a detection."""
    if detection.anomaly is None or detection.found is None:
        return ""
    if detection.held:
        return ""
    rate = format_rate(detection.found.settings.rate)
    findings = detection.findings
    if not findings:
        text = f"No finding at {rate} false alarms in healthy tissue."
        highest = detection.found.highest
        if highest is None:
            return text
        where = "" if detection.anomaly.volume.is_2d else f", in slice {highest.slice},"
        return f"{text} The highest score{where} is exceeded by {format_rate(highest.rate)} of it."
    volume, first = detection.anomaly.volume, findings[0]
    unit = size_unit(volume)
    total = unit.text(sum(finding.voxels for finding in findings))
    many = len(findings) > 1
    head = f"<b>{len(findings)} finding{'s' if many else ''}, {total}</b>"
    parts = [f"largest {unit.text(first.voxels)}"] if many else []
    side = detection.anomaly.tissue_frame.side(first.centroid_voxel)
    if side:
        parts.append(side)
    if not volume.is_2d:
        parts.append(_slices(first))
    elif not side:
        parts.append(f"centre {place(volume, first.centroid_voxel)}".replace(" ", "&nbsp;"))
    text = f"{head}; {', '.join(parts)}." if parts else f"{head}."
    rejected = [row.label for row in detection.rows if row.decision == "rejected"]
    if rejected:
        text += f" Rejected: {', '.join(f'no. {label}' for label in rejected)}."
    if len(findings) == MOST_FINDINGS and not detection.found.left_out:
        text += f" At most {MOST_FINDINGS} findings are kept, the largest ones."
    return text


def _slices(finding: Finding) -> str:
    if finding.first_slice == finding.last_slice:
        return f"slice {finding.first_slice}"
    return f"slices {finding.first_slice} to {finding.last_slice}"


def describe_differences(detection: Detection) -> str:
    """Return the warning of a scan unlike the cohort, with what differs; empty if it is alike."""
    if not detection.warning:
        return ""
    differences = detection.differences
    return f"{detection.warning} {'' if differences is None else differences.text}".strip()


def cohort_words(model: FittedModel) -> str:
    """Describe what a model knows: its cohort, planes and lesions."""
    scans = int(model.cohort.get("scans", 0))
    # Patients count too: their slices without a lesion are fitted on.
    text = f"healthy tissue of {scans} scan{'' if scans == 1 else 's'}, {model.images_text}"
    if any(view.scale.brightness for view in model.views):
        text += f", for {model.lesions_text}"
    return text


def model_words(name: str, model: FittedModel) -> str:
    """Describe a model for a radiologist: its name, what it knows, and its date."""
    date = str(model.cohort.get("date", ""))
    return f"{name}: {cohort_words(model)}{f', fitted {date}' if date else ''}"


def model_details(model: FittedModel, engine: str) -> str:
    """Describe a model for a researcher: method, backbone, slices, versions and engine."""
    versions = ", ".join(f"{name} {version}" for name, version in model.versions.items())
    lines = [model.summary(), f"Fitted with {versions}" if versions else "", engine]
    return "\n".join(line for line in lines if line)


def describe_cancelled(running: Detection, shown: Detection | None) -> str:
    """Describe what stays on screen when `running` is cancelled, with `shown` the result so far."""
    done = running.slices_done
    if done:
        text = f"Cancelled: {slice_count(done)} of {running.scan.name}"
        if running.held:
            return f"{text} {'was' if done == 1 else 'were'} done; Show anyway shows the heat."
        return f"{text} {'was done and stays' if done == 1 else 'were done and stay'} on screen."
    if shown is not None:
        return "Cancelled before the first slice: the earlier result is on screen."
    return "Cancelled before the first slice."


def slice_count(count: int) -> str:
    """Format a number of slices."""
    return f"{count} slice" if count == 1 else f"{count} slices"


def describe_edits(detection: Detection) -> str:
    """Describe what the user changed by hand."""
    found = detection.found
    if found is None or found.settings.edits is None:
        return ""
    unit = "pixel" if detection.scan.ndim == 2 else "voxel"
    parts = [
        f"{count:,} {unit if count == 1 else unit + 's'} {what}"
        for count, what in ((found.added, "added"), (found.removed, "removed"))
        if count
    ]
    return f"Edited by hand: {' and '.join(parts) or 'as found'}."


def describe_scalp(detection: Detection) -> str:
    """Say that there is no scalp to leave out, where that was asked for."""
    found, anomaly = detection.found, detection.anomaly
    if found is None or anomaly is None:
        return ""
    asked = found.settings.without_scalp and found.settings.tissue_only
    # The search has measured the scalp.
    if not asked or anomaly.scalp is not None:
        return ""
    return "The skull could not be made out in this scan, so no scalp is left out."


def describe_left_out(detection: Detection) -> str:
    """Describe what was dropped because there are too many regions."""
    found = detection.found
    if found is None or not found.left_out:
        return ""
    unit = "pixel" if detection.scan.ndim == 2 else "voxel"
    count = f"{found.left_out:,} {unit if found.left_out == 1 else unit + 's'}"
    return (
        f"Only the {MOST_FINDINGS} largest regions are kept: {count} in smaller ones are left out, "
        "here and in saved files."
    )


def describe_deleted(detection: Detection) -> str:
    """Name the layers that the user has deleted, and how they come back."""
    if not detection.deleted:
        return ""
    names = {"anomaly": "heat", "findings": "findings"}
    layers = [names[role] for role in dict.fromkeys(detection.deleted)]
    what = f"{layers[0]} layer was" if len(layers) == 1 else "heat and findings layers were"
    if detection.anomaly is None:
        return f"The {what} deleted; press Detect to draw it again."
    them = "it" if len(layers) == 1 else "them"
    return f"The {what} deleted. Save still writes {them}; move the slider to draw {them} again."


def describe_cursor(detection: Detection, world: tuple[float, ...]) -> str:
    """Describe a point: its place, its score and how rare that score is."""
    anomaly, layer = detection.anomaly, detection.scan
    if anomaly is None or detection.held:
        return ""
    position = layer.world_to_data(world[-layer.ndim :])
    index = tuple(round(float(value)) for value in position)
    if any(not 0 <= i < n for i, n in zip(index, scan_shape(layer), strict=True)):
        return ""
    voxel = (0,) * (3 - len(index)) + index
    text = place(anomaly.volume, voxel)
    if not anomaly.foreground[voxel]:
        return f"{text}   background"
    score = float(anomaly.scores[voxel])
    rate = float(anomaly.model.calibration.false_positive_rate(score))
    return f"{text}   score {score:.3f}: {format_rate(rate)} of healthy tissue is above"
