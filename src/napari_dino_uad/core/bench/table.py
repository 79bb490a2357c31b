"""The results of a benchmark, as files and as a table for a README."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.storage.atomic import csv_text, json_text, write_texts

__all__ = ["bench_table", "read_section", "replace_section", "write_bench"]

Run = dict[str, Any]

# Heading, function that gets a run's value, unit and decimals.
_COLUMNS: tuple[tuple[str, Callable[[Run], float | None], str, int], ...] = (
    ("AUROC", lambda run: _pixel(run, "auroc"), "", 3),
    ("AP", lambda run: _pixel(run, "average_precision"), "", 3),
    ("max Dice", lambda run: _pixel(run, "max_dice"), "", 3),
    ("Dice at 5 % FPR", lambda run: _pixel(run, "dice_at_fpr", "0.05"), "", 3),
    ("largest lesion met", lambda run: _of_lesions(run, "largest_met"), "", 1),
    (
        "false findings a scan",
        lambda run: _of_lesions(run, "false_findings_a_scan"),
        "",
        2,
    ),
    ("FPR at nominal 5 %", lambda run: _percent(_pixel(run, "realised_fpr", "0.05")), " %", 1),
    (
        "the same, median scan",
        lambda run: _percent(run["metrics"]["median_realised_fpr"]["0.05"]),
        " %",
        1,
    ),
    ("scans with 2 to 8 %", lambda run: _percent(run["metrics"].get("scans_held")), " %", 0),
    ("fit", lambda run: run["fit_seconds"], " s", 0),
    ("scoring a slice", lambda run: run["score_ms_a_slice"], " ms", 1),
    ("model", lambda run: run["model_bytes"] / 1e6, " MB", 2),
)


_ABOUT_MAPS = {
    "raw": "Raw maps are the scores of patches, without any step after the model. ",
    "none": "The map none has all steps but leaves the brightness out. ",
    "either": "The map either, the default, counts brighter and darker than the mirrored place. ",
    "bright": "The map bright knows that lesions are bright, which the others do not. ",
    "dark": "The map dark knows that lesions are dark, which the others do not. ",
}


def _pixel(run: Run, name: str, rate: str | None = None) -> float | None:
    value = run["metrics"]["conventions"]["tissue"][name]
    return value if rate is None else value[rate]


def _of_lesions(run: Run, name: str) -> float | None:
    """Return a figure of findings and lesions; None in results of before they were compared."""
    value: float | None = run["metrics"].get("lesions", {}).get(name)
    return value


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def write_bench(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write the result of `bench`.

    Parameters
    ----------
    result : dict
        From `bench`.
    folder : Path
        Folder to write to.

    Returns
    -------
    list of Path
        `NAME.json` with everything, `NAME.csv` with one row per run, `NAME.md` with the table.
    """
    paths = [folder / f"{result['split']}.{ending}" for ending in ("json", "csv", "md")]
    rows = _rows(result["runs"])
    texts = (json_text(result), csv_text(list(rows[0]), rows), bench_table(result) + "\n")
    names = [path.name for path in paths]
    write_texts(folder, dict(zip(names, texts, strict=True)), last=names[0])
    return paths


def _rows(runs: list[Run]) -> list[dict[str, Any]]:
    """Flatten runs to table rows."""
    rows = []
    for run in runs:
        pixel, medians = (
            run["metrics"]["conventions"]["tissue"],
            run["metrics"]["median_realised_fpr"],
        )
        row = {name: run["request"][name] for name in ("method", "seed", "maps")}
        row |= {name: pixel[name] for name in ("auroc", "average_precision", "max_dice")}
        for name in ("dice_at_fpr", "realised_fpr"):
            row |= {f"{name}_{rate}": value for rate, value in pixel[name].items()}
        row |= {f"median_realised_fpr_{rate}": value for rate, value in medians.items()}
        row |= {"scans_held": run["metrics"]["scans_held"], **run["metrics"]["lesions"]}
        row |= {
            name: run[name]
            for name in ("fit_seconds", "features_cached", "score_ms_a_slice", "model_bytes")
        }
        rows.append(row)
    return rows


def bench_table(result: dict[str, Any]) -> str:
    """Format a benchmark as a Markdown table, with a caption on how it was made.

    Parameters
    ----------
    result : dict
        From `bench`, or read from the JSON of `write_bench`.

    Returns
    -------
    str
        One row per method and map: means over seeds, with standard deviations if there are
        several.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in result["runs"]:
        label = run["label"] + _settings(run["request"]["settings"])
        groups.setdefault((label, run["request"].get("maps", "")), []).append(run)
    columns = {"method": [label for label, _ in groups], "map": [maps for _, maps in groups]}
    for heading, find, unit, decimals in _COLUMNS:
        columns[heading] = [
            _cell([find(run) for run in runs], unit, decimals) for runs in groups.values()
        ]
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    lines = [_line(shown), _line(["---"] * len(shown))]
    lines += [_line(cells) for cells in zip(*shown.values(), strict=True)]
    return "\n".join([*lines, "", _caption(result)])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _settings(settings: dict[str, Any]) -> str:
    """Format the requested settings; the members of a fusion are in its label."""
    told = [f"{key}={value}" for key, value in settings.items() if key != "members"]
    return f" ({', '.join(told)})" if told else ""


def _cell(values: list[float | None], unit: str, decimals: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = f"{np.mean(known):.{decimals}f}"
    deviation = f"{np.std(known, ddof=1):.{decimals}f}" if len(known) > 1 else ""
    # Sizes and times show no ± 0; for a metric, ± 0.000 is information.
    if deviation and (not unit or float(deviation) > 0):
        text += f" ± {deviation}"
    return text + unit


def _caption(result: dict[str, Any]) -> str:
    runs, features = result["runs"], result["features"]
    first = runs[0]
    metrics = first["metrics"]
    seeds = sorted({run["request"]["seed"] for run in runs})
    pixels = metrics["conventions"]["tissue"]
    share = 100 * pixels["lesion_pixels"] / pixels["pixels"]
    several = (
        f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}."
        if len(seeds) > 1
        else f"Seed {seeds[0]}."
    )
    if not all(run["features_cached"] for run in runs):
        embedding = "Fits include embedding the slices."
    elif features is None:
        embedding = "Fits start from embeddings on disk."
    else:
        embedding = (
            f"Fits start from embeddings on disk; those of {features['slices']:,} slices took "
            f"{features['seconds']:.0f} s."
        )
    return (
        f"{result['about']}; {share:.1f} % of their {pixels['pixels'] / 1e6:.1f} million "
        f"foreground pixels are lesion. {_about_maps(runs)}{_about_findings(metrics)}{several} "
        f"{embedding} Backbone "
        f"{first['request']['backbone']} on {first['machine']['engine']}, "
        f"{first['machine']['threads']} threads."
    )


def _about_maps(runs: list[Run]) -> str:
    """Explain the names of the maps."""
    shown = {run["request"].get("maps") for run in runs}
    return "".join(text for name, text in _ABOUT_MAPS.items() if name in shown)


def _about_findings(metrics: dict[str, Any]) -> str:
    """Define findings, and when they meet a lesion."""
    if "lesions" not in metrics:
        return ""
    lesions = metrics["lesions"]
    return (
        f"A finding is a connected region of tissue above the threshold of "
        f"{100 * lesions['rate']:g} % FPR, of which 1 ml or more lies above that of half the rate "
        f"(10 mm² in a single slice, 100 pixels without a spacing); it meets a lesion if they "
        f"share a voxel, and is false if it meets none. {lesions['scans_with_lesion']} of "
        f"{metrics['cases']} scans have a lesion. "
    )


def _markers(name: str) -> tuple[str, str]:
    return (
        f"<!-- {name} table: made by napari-dino-uad bench {name} -->",
        f"<!-- end of {name} table -->",
    )


def _split_at_markers(text: str, name: str) -> tuple[str, str, str]:
    start, end = _markers(name)
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise InputError(
            f"The text has no place for the table; put the two lines {start} and {end} where it "
            "belongs."
        )
    before, rest = text.split(start)
    section, after = rest.split(end)
    return before + start, section, end + after


def read_section(text: str, name: str) -> str:
    """Return the text between the two markers of a benchmark's table.

    Raises
    ------
    InputError
        If the markers are missing.
    """
    return _split_at_markers(text, name)[1].strip("\n")


def replace_section(text: str, name: str, table: str) -> str:
    """Put a table between the two markers of a benchmark.

    Raises
    ------
    InputError
        If the markers are missing.
    """
    before, _, after = _split_at_markers(text, name)
    return f"{before}\n{table}\n{after}"
