"""The texts of the Inspect panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.core.normative.methods import METHODS, members_of
from napari_dino_uad.widgets.threshold import format_rate

if TYPE_CHECKING:
    from napari_dino_uad.core.explain.overlays import Overlay
    from napari_dino_uad.core.explain.parts import Place, ScoreParts
    from napari_dino_uad.core.explain.slices import SliceExplanation
    from napari_dino_uad.core.maps.score_map import ScoreScale
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = [
    "OVERLAY_HELP",
    "PART_NAMES",
    "describe_method",
    "describe_mirror",
    "describe_typical",
    "describe_where",
    "verdict",
    "why_nothing",
]

#: Name of each part of a score, in the order in which they come about.
PART_NAMES = {
    "model": "Unlike healthy tissue",
    "symmetry": "Unlike the other side",
    "brightness": "Brightness",
    "smoothing": "Tissue around it",
    "centring": "The scan's own level",
    "planes": "Other planes",
    "edges": "Anatomy's edges",
    "score": "Score",
}

_REASONS = {
    "model": "the tissue here is unlike the healthy scans",
    "symmetry": "it differs from the same place on the other side",
    "brightness": "it is brighter or darker than the other side or most of the scan",
    "smoothing": "the tissue around it scores high",
    "centring": "the rest of the scan scores low",
    "planes": "it stands out in the other planes",
    "edges": "the edges of the anatomy draw the score here",
}

#: What the colours of each overlay mean.
OVERLAY_HELP = {
    "component": "Yellow: the kind of healthy tissue nearest to the place you asked about. Faint "
    "colours: the other kinds.",
    "colours": "Like colours are like tissue to the network, in all scans of this model.",
    "observed": "What the network sees. Compare it with what the model expects.",
    "expected": "What the model expects of healthy tissue, judging by the surroundings.",
    "residual": "Bright: the tissue is not what the model expects there.",
    "mirror": "Bright: differs from the same place on the other side.",
}


def why_nothing(detection: Detection | None, has_scan: bool) -> str:
    """Return why no place can be explained; empty if one can."""
    if not has_scan:
        return "Open a scan and press Detect; then ask here why a place is marked."
    if detection is None:
        return "This scan has no map yet. Press Detect first (Ctrl+Shift+D)."
    if detection.anomaly is None:
        return "The map of this scan is not finished; wait, or press Detect to complete it."
    if detection.held:
        return (
            "This scan may be of another kind than the model knows. Show its map in Detect first."
        )
    return ""


def verdict(parts: ScoreParts, threshold: float) -> str:
    """Return in a sentence whether a place is marked, and the main reason."""
    marked = parts.score > threshold
    share = _share(parts.false_positive_rate)
    head = f"<b>{'Marked' if marked else 'Not marked'}:</b> {share} healthy tissue scores higher"
    if not marked:
        return f"{head}."
    most = max(_REASONS, key=lambda key: getattr(parts, key))
    return f"{head}, mostly because {_REASONS[most]}."


def _share(rate: float) -> str:
    """Return a share of healthy tissue, or "no" if none of it is counted."""
    text = format_rate(rate)
    return "no" if text == "0 %" else f"{text} of"


def _compared(value: float, mean: float, deviation: float) -> str:
    """Compare a value with its healthy mean."""
    far = (value - mean) / deviation
    side = "above" if far >= 0 else "below"
    return f"{_number(value)}, {abs(far):.1f} SD {side} the healthy mean of {_number(mean)}"


def _number(value: float) -> str:
    return f"{0.0 if abs(value) < 5e-4 else value:.3g}"


def describe_method(model: FittedModel, one: SliceExplanation, place: Place) -> list[str]:
    """Describe what the method itself says of a place, in a line or more."""
    normative, scale = model.normative, model.views[0].scale
    members = members_of(normative)
    raw = float(one.raw[place.patch])
    lines: list[str] = []
    if one.p_values:
        rates = (
            f"{format_rate(float(rates[place.patch]))} by {METHODS[name].title.partition(':')[0]}"
            for name, rates in one.p_values.items()
        )
        lines.append(f"<b>Healthy tissue that scores higher:</b> {', '.join(rates)}.")
    if one.component is not None:
        alone = normative.method == "dpmm"
        lines.append(_component(members["dpmm"], one, place, raw if alone else None, scale))
    if normative.method == "memory-bank":
        bank: Any = normative
        lines.append(
            f"<b>Nearest of {len(bank.bank_):,} healthy patches:</b> distance "
            f"{_compared(raw, scale.mean, scale.deviation)}."
        )
    if normative.method == "ar":
        lines.append(
            "<b>Expected from its surroundings:</b> error "
            f"{_compared(raw, scale.mean, scale.deviation)}."
        )
    return lines


def _component(
    mixture: Any, one: SliceExplanation, place: Place, raw: float | None, scale: ScoreScale
) -> str:
    """Describe the component nearest to a place."""
    assert one.component is not None
    number = int(one.component[place.patch])
    weights = np.exp(mixture.mixture.log_weights.double().numpy())
    text = (
        f"<b>Nearest kind of healthy tissue:</b> number {number + 1} of {len(weights)}, "
        f"{format_rate(float(weights[number]))} of the healthy scans."
    )
    if raw is None:
        return text
    what = "surprise" if mixture.settings.score == "likelihood" else "distance"
    return f"{text} Its {what}: {_compared(raw, scale.mean, scale.deviation)}."


def describe_typical(rate: float | None) -> str:
    """Describe how far a place is from typical healthy tissue."""
    if rate is None:
        return ""
    share = _share(rate)
    return f"<b>Typical healthy tissue:</b> {share} healthy patches are farther from it."


def describe_mirror(model: FittedModel, one: SliceExplanation, place: Place) -> str:
    """Describe how a place differs from the other side."""
    scale = model.views[0].scale
    if one.mirror is None:
        return "<b>Other side:</b> not compared, since it lies in another slice of this plane."
    value = float(one.mirror[place.patch])
    if value == 0:
        return "<b>Other side:</b> no tissue there to compare with."
    if scale.symmetry == 0:
        return (
            f"<b>Other side:</b> differs by {_number(value)}. It does not count: the healthy scans "
            "are not symmetric, or the comparison was turned off in Fit."
        )
    compared = _compared(value, scale.mirror_mean, scale.mirror_deviation)
    return f"<b>Other side:</b> differs by {compared}."


def describe_where(overlay: Overlay, component: int, plane_axis: int) -> str:
    """Describe where a component lives in a scan.

    Parameters
    ----------
    overlay : Overlay
        The map of components.
    component : int
        Counted from 0.
    plane_axis : int
        Axis of the volume along which the slices are stacked.
    """
    inside = overlay.array == component + 1
    count, tissue = int(inside.sum()), int((overlay.array > 0).sum())
    if not count:
        return ""
    others = tuple(axis for axis in range(3) if axis != plane_axis)
    slices = np.flatnonzero(inside.any(axis=others))
    where = f"slice {slices[0]}" if len(slices) == 1 else f"slices {slices[0]} to {slices[-1]}"
    patches = "1 patch" if count == 1 else f"{count:,} patches"
    share = f"{100 * count / tissue:.2g} %"
    return f"Here it is nearest to {patches}, {share} of the tissue, in {where}."
