"""Pooled figures in words, for the command line, the report and the window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_dino_uad.core.evaluation.settings import CONVENTIONS

__all__ = [
    "OVERALL",
    "group_rows",
    "has_intervals",
    "number",
    "pooled_lines",
    "pooled_rows",
    "with_interval",
]

#: Metrics over all thresholds, and their names in tables.
OVERALL = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "aupro": "AUPRO",
    "max_dice": "max Dice",
}


def number(value: float | None) -> str:
    """Format a figure; nothing if it is unknown."""
    return "" if value is None else f"{value:.3f}"


def with_interval(found: Mapping[str, Any], name: str, rate: str | None = None) -> str:
    """Format a pooled figure with its interval.

    Parameters
    ----------
    found : mapping
        The metrics of one convention.
    name : str
        Of the metric.
    rate : str, optional
        Nominal rate of a metric that has several.
    """
    text = number(found[name] if rate is None else found[name][rate])
    limits = found.get("intervals", {}).get(name if rate is None else f"{name}_{rate}")
    return f"{text} [{limits[0]:.3f}, {limits[1]:.3f}]" if text and limits else text


def has_intervals(metrics: Mapping[str, Any]) -> bool:
    """Return whether the pooled figures have intervals; those of few cases have none."""
    return any("intervals" in found for found in metrics["conventions"].values())


def pooled_rows(metrics: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return a table of the pooled figures: a title, and a text for each convention."""
    found = [metrics["conventions"][one] for one in CONVENTIONS]
    rates = list(found[0]["dice_at_fpr"])
    rows = [(title, [with_interval(one, name) for one in found]) for name, title in OVERALL.items()]
    for name, title in (
        ("dice_at_fpr", "Dice at {} FPR"),
        ("pro_at_fpr", "PRO at {} FPR"),
        ("realised_fpr", "FPR at nominal {}"),
    ):
        for rate in rates:
            texts = [with_interval(one, name, rate) for one in found]
            rows.append((title.format(f"{float(rate):.0%}"), texts))
    return rows


def group_rows(groups: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each group: its name, its number of cases and `OVERALL`, over tissue."""
    return [
        [
            value or "(none)",
            str(found["cases"]),
            *(number(found["conventions"]["tissue"][name]) for name in OVERALL),
        ]
        for value, found in groups.items()
    ]


def pooled_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences on lesions, volumes and whole scans."""
    lesions, volumes, scans = metrics["lesions"], metrics["volumes"], metrics["scans"]
    if lesions["lesions"]:
        met = f"{lesions['sensitivity']:.0%} of {lesions['lesions']} lesions met, the largest in "
        met += f"{lesions['largest_met']} of {lesions['scans_with_lesion']} scans; "
    else:
        met = "No lesions; "
    texts = [
        f"At {float(lesions['rate']):.0%} FPR: {met}{lesions['false_findings_a_scan']:.2f} false "
        f"findings a scan ({lesions['rule']})."
    ]
    if volumes["pearson"] is not None:
        texts.append(
            f"Volume of findings against lesions: Pearson {volumes['pearson']:.2f}, Spearman "
            f"{volumes['spearman']:.2f} over {volumes['scans']} scans."
        )
    if scans["auroc"] is not None:
        texts.append(
            f"Scans with lesions ({scans['with_lesion']}) against those without "
            f"({scans['healthy']}): AUROC {scans['auroc']:.3f}."
        )
    return texts
