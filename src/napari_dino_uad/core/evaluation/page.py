"""The report of an evaluation as one HTML page that holds everything it needs."""

from __future__ import annotations

import datetime
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad import __version__
from napari_dino_uad.core.errors import OF_ONE_SCAN
from napari_dino_uad.core.evaluation.figures import curve_svg, figures_of, save_curves
from napari_dino_uad.core.evaluation.pictures import case_picture, worst_cases
from napari_dino_uad.core.evaluation.settings import CONVENTIONS
from napari_dino_uad.core.evaluation.texts import (
    OVERALL,
    group_rows,
    has_intervals,
    pooled_lines,
    pooled_rows,
)
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.report.pictures import png_uri
from napari_dino_uad.core.results import RESEARCH_USE
from napari_dino_uad.core.storage.atomic import write_text

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.folder import EvaluationFolder

__all__ = ["REPORT", "write_evaluation_report"]

#: Name of the page in the folder of an evaluation.
REPORT = "evaluation.html"

_PICTURED = 4


def write_evaluation_report(
    folder: EvaluationFolder, *, scans: Path | None = None
) -> Generator[Progress, None, Path]:
    """Write the page and the curves of an evaluation into its folder.

    Names of cases are on the page, paths of files are not.

    Parameters
    ----------
    folder : EvaluationFolder
    scans : Path, optional
        As in `EvaluationFolder.open`.

    Yields
    ------
    Progress
        Before every picture.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If it cannot be written, or a file of the folder is damaged.
    """
    from jinja2 import Environment, PackageLoader

    worst = worst_cases(folder, _PICTURED) if folder.has_maps else []
    best = _best_cases(folder, worst) if folder.has_maps else []
    galleries = []
    for title, names in (("Worst cases", worst), ("Best cases", best)):
        pictures = []
        for place, name in enumerate(names):
            yield Progress(f"Drawing: {title.lower()}", place, len(names), name)
            pictures += _picture(folder, name, scans)
        if pictures:
            galleries.append((title, pictures))
    yield Progress("Writing the report", 0, 1)
    curves = {folder.metrics["model"]["method"]: folder.curves}
    drawn = [
        curve_svg(figure)
        for convention in CONVENTIONS
        for key, figure in figures_of(curves, convention).items()
        if key != "froc" or convention == "tissue"
    ]
    environment = Environment(
        loader=PackageLoader("napari_dino_uad.core.evaluation", "."), autoescape=True
    )
    page = environment.get_template("evaluation.html").render(
        research_use=RESEARCH_USE,
        summary=folder.metrics["model"]["summary"],
        conventions=CONVENTIONS,
        figures=pooled_rows(folder.metrics),
        repeats=folder.metrics["settings"]["bootstrap"] * has_intervals(folder.metrics),
        lines=pooled_lines(folder.metrics),
        groups=[(name, _group_table(found)) for name, found in folder.metrics["groups"].items()],
        curves=drawn,
        galleries=galleries,
        cases=_case_table(folder),
        failed=_without_paths(folder.failed),
        facts=_facts(folder),
        made=f"Made on {datetime.date.today()} with napari-dino-uad {__version__}",
    )
    path = folder.path / REPORT
    write_text(path, page)
    for convention in CONVENTIONS:
        save_curves(curves, folder.path / "figures", convention)
    return path


def _best_cases(folder: EvaluationFolder, left_out: Sequence[str]) -> list[str]:
    ranked = sorted(
        (row for row in folder.rows if row["average_precision"] is not None),
        key=lambda row: -row["average_precision"],
    )
    names = [row["case"] for row in ranked if row["case"] not in left_out]
    return names[:_PICTURED]


def _picture(folder: EvaluationFolder, name: str, scans: Path | None) -> list[dict[str, Any]]:
    """Draw a case; nothing if its files are gone."""
    try:
        picture = case_picture(folder, folder.open(name, scans))
    except OF_ONE_SCAN:
        return []
    row = folder.row(name)
    failure = folder.largest_failure(name)
    lines = [name]
    if row["average_precision"] is not None:
        lines.append(f"AP {row['average_precision']:.2f}")
    if failure is not None:
        lines.append(failure.text())
    return [{"uri": png_uri(picture), "width": picture.shape[1], "lines": lines}]


def _without_paths(failed: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return names and reasons without the folders of the files."""
    return [
        (Path(name).name, reason.replace(str(Path(name).parent) + "/", ""))
        for name, reason in failed.items()
    ]


def _case_table(folder: EvaluationFolder) -> dict[str, Any]:
    rate = f"{folder.metrics['lesions']['rate']:g}"
    columns = {
        "case": "Case",
        **OVERALL,
        f"dice_at_fpr_{rate}": f"Dice at {100 * float(rate):g} % FPR",
        "lesions": "lesions",
        "lesions_met": "met",
        "false_findings": "false findings",
        "lesion_ml": "lesion ml",
        "found_ml": "found ml",
    }
    return {
        "titles": list(columns.values()),
        "rows": [[_cell(row.get(name)) for name in columns] for row in folder.rows],
    }


def _group_table(groups: Mapping[str, Any]) -> dict[str, Any]:
    return {"titles": ["cases", *OVERALL.values()], "rows": group_rows(groups)}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _facts(folder: EvaluationFolder) -> list[tuple[str, str]]:
    metrics, model = folder.metrics, folder.metrics["model"]
    cohort = model["cohort"]
    facts = [
        ("Cases", f"{len(folder.rows)}, {metrics['slices']} slices with enough tissue"),
        ("Method", model["method"]),
        ("Backbone", f"{model['backbone']} on {model['engine']}"),
        ("Model's cohort", ", ".join(f"{name} {value}" for name, value in cohort.items())),
        ("Model's checksum", str(model["checksum"])),
        ("Preprocessing", _listed(model["preprocessing"])),
        ("Map", _listed(model["maps"])),
        ("Thresholds", "from the model's healthy validation scans alone"),
        ("Lesions", f"at {100 * metrics['lesions']['rate']:g} % FPR: {metrics['lesions']['rule']}"),
        ("Command", metrics.get("command") or "from Python"),
        ("Versions of the fit", _listed(model["versions"])),
        ("Seconds", f"{metrics['seconds']['total']:.0f}"),
    ]
    return [(name, value) for name, value in facts if value]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
