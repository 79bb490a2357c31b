"""Evaluations of several models on the same cases, compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.figures import save_curves
from napari_dino_uad.core.evaluation.folder import EvaluationFolder
from napari_dino_uad.core.evaluation.histograms import interval, resamples
from napari_dino_uad.core.evaluation.settings import CONVENTIONS
from napari_dino_uad.core.evaluation.texts import OVERALL
from napari_dino_uad.core.storage.atomic import csv_text, json_text, write_texts

__all__ = ["Comparison", "Difference", "compare_evaluations", "write_comparison"]


@dataclass(frozen=True)
class Difference:
    """A pooled figure of one evaluation minus that of the first.

    Attributes
    ----------
    value : float
    low, high : float
        95 % interval over resamples of the cases, the same for both.
    p : float
        Two-sided: twice the share of resamples with a difference of 0 or of the other sign.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Evaluations on the same cases.

    Attributes
    ----------
    folders : dict of str to EvaluationFolder
        By their names; the others are compared with the first.
    differences : dict
        By convention, name and metric: a `Difference`, or None where a figure is unknown.
    cases : list of dict
        A row for each case: average precision, Dice and findings of each evaluation.
    """

    folders: dict[str, EvaluationFolder]
    differences: dict[str, dict[str, dict[str, Difference | None]]]
    cases: list[dict[str, Any]]


def compare_evaluations(
    folders: Sequence[EvaluationFolder], *, repeats: int = 1000, seed: int = 0
) -> Comparison:
    """Compare evaluations of the same cases by a paired bootstrap.

    Parameters
    ----------
    folders : sequence of EvaluationFolder
        Two or more; the others are compared with the first.
    repeats : int
        Resamples of the cases.
    seed : int
        Of the resampling.

    Raises
    ------
    InputError
        If there is only one, or they are not of the same cases, masks and rates.
    """
    if len(folders) < 2:
        raise InputError(f"Expected at least two evaluations to compare, got {len(folders)}.")
    named = _named(folders)
    first = folders[0]
    for other in folders[1:]:
        _check_same(first, other)
    order = [row["case"] for row in first.rows]
    weights = resamples(len(order), repeats, seed)
    whole = np.ones((1, len(order)), dtype=np.int64)
    differences: dict[str, dict[str, dict[str, Difference | None]]] = {}
    for convention in CONVENTIONS:
        drawn, exact = {}, {}
        for name, folder in named.items():
            places = [[row["case"] for row in folder.rows].index(case) for case in order]
            histograms = folder.histograms[convention].of_cases(places)
            drawn[name] = histograms.metrics(weights, folder.thresholds)
            exact[name] = histograms.metrics(whole, folder.thresholds)
        base = next(iter(named))
        differences[convention] = {
            name: {
                metric: _difference(
                    float(exact[name][metric][0] - exact[base][metric][0]),
                    drawn[name][metric] - drawn[base][metric],
                )
                for metric in drawn[name]
            }
            for name in list(named)[1:]
        }
    return Comparison(named, differences, _cases(named, order))


def _named(folders: Sequence[EvaluationFolder]) -> dict[str, EvaluationFolder]:
    """Name evaluations by their folders, with as many parents as make them different."""
    paths = [folder.path.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise InputError("The same evaluation was given twice; name different folders.")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return {
        "/".join(path.parts[-depth:]): folder for path, folder in zip(paths, folders, strict=True)
    }


def _check_same(one: EvaluationFolder, other: EvaluationFolder) -> None:
    mine, theirs = ({row["case"]: row for row in folder.rows} for folder in (one, other))
    if set(mine) != set(theirs):
        apart = sorted(set(mine) ^ set(theirs))
        raise InputError(
            f"{one.path} and {other.path} are not of the same cases: {apart[0]} is in one of them "
            f"only, {len(apart)} in all; evaluate both on the same scans."
        )
    for name, row in mine.items():
        for column in ("all_pixels", "all_lesion_pixels"):
            if row[column] != theirs[name][column]:
                raise InputError(
                    f"{name} has {row[column]} {column.removeprefix('all_').replace('_', ' ')} in "
                    f"{one.path} and {theirs[name][column]} in {other.path}; evaluate both with "
                    "the same scans and masks."
                )
    if list(one.thresholds) != list(other.thresholds):
        raise InputError(f"{one.path} and {other.path} have other false-positive rates.")


def _difference(value: float, drawn: NDArray[np.float64]) -> Difference | None:
    limits = interval(drawn)
    if limits is None or not np.isfinite(value):
        return None
    known = drawn[np.isfinite(drawn)]
    share = min(float((known <= 0).mean()), float((known >= 0).mean()))
    return Difference(value, limits[0], limits[1], min(1.0, 2 * share))


def _cases(named: Mapping[str, EvaluationFolder], order: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for case in order:
        row: dict[str, Any] = {"case": case}
        for name, folder in named.items():
            found = folder.row(case)
            rate = f"{folder.metrics['lesions']['rate']:g}"
            for column in ("average_precision", f"dice_at_fpr_{rate}", "lesions_met"):
                row[f"{name}: {column}"] = found.get(column)
            row[f"{name}: false_findings"] = found["false_findings"]
        rows.append(row)
    return rows


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.json`, `comparison.csv` with a row for each case, and the curves.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    pooled = {
        name: {
            convention: {
                key: found.metrics["conventions"][convention][key] for key in (*OVERALL, "pixels")
            }
            for convention in CONVENTIONS
        }
        for name, found in comparison.folders.items()
    }
    differences = {
        convention: {
            name: {metric: None if one is None else vars(one) for metric, one in found.items()}
            for name, found in by_name.items()
        }
        for convention, by_name in comparison.differences.items()
    }
    texts = {
        "comparison.json": json_text({"pooled": pooled, "differences": differences}),
        "comparison.csv": csv_text(list(comparison.cases[0]), comparison.cases),
    }
    write_texts(folder, texts, last="comparison.json")
    curves = {name: found.curves for name, found in comparison.folders.items()}
    paths = [folder / name for name in texts]
    for convention in CONVENTIONS:
        paths += save_curves(curves, folder / "figures", convention)
    return paths
