"""Two evaluations on the same cases, compared; their curves and reports."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from napari_dino_uad import Case, drain, evaluate, read_evaluation
from napari_dino_uad.cli import app
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.compare import compare_evaluations, write_comparison
from napari_dino_uad.core.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(bootstrap=20, froc_rates=(0.05, 0.01))


@pytest.fixture(scope="module")
def folders(heads, model, healthy, tmp_path_factory):
    """The same cases twice, in another order, and fewer of them."""
    out = tmp_path_factory.mktemp("compared")
    cases = [
        Case(heads / "ill" / "p_flair.nii.gz", heads / "ill" / "p_lesion.nii.gz"),
        Case(heads / "healthy" / "h0_flair.nii.gz", healthy=True),
        Case(heads / "healthy" / "h1_flair.nii.gz", healthy=True),
    ]
    drain(evaluate(cases, model, settings=SETTINGS, out=out / "one"))
    drain(evaluate(cases[::-1], model, settings=SETTINGS, out=out / "again"))
    drain(evaluate(cases[:2], model, settings=SETTINGS, out=out / "fewer"))
    return out


def test_equal_evaluations_do_not_differ(folders):
    """The order of the cases does not matter."""
    one, again = (read_evaluation(folders / name) for name in ("one", "again"))
    found = compare_evaluations([one, again], repeats=50)
    for convention in ("tissue", "all"):
        for difference in found.differences[convention]["again"].values():
            if difference is not None:
                assert difference.value == pytest.approx(0, abs=1e-9)
                assert difference.p == 1
    assert [row["case"] for row in found.cases] == ["p_flair", "h0_flair", "h1_flair"]


def test_other_cases_are_refused(folders):
    one, fewer = (read_evaluation(folders / name) for name in ("one", "fewer"))
    with pytest.raises(InputError, match="h1_flair is in one of them only"):
        compare_evaluations([one, fewer])
    with pytest.raises(InputError, match="given twice"):
        compare_evaluations([one, one])
    with pytest.raises(InputError, match="at least two"):
        compare_evaluations([one])


def test_a_comparison_is_written_with_curves(folders, tmp_path):
    found = compare_evaluations(
        [read_evaluation(folders / name) for name in ("one", "again")], repeats=20
    )
    paths = write_comparison(found, tmp_path)
    assert all(path.stat().st_size for path in paths)
    assert {path.name for path in paths} >= {"comparison.json", "roc_tissue.svg", "froc.png"}
    svg = (tmp_path / "figures" / "roc_tissue.svg").read_text(encoding="utf-8")
    assert ">one<" in svg and ">again<" in svg


def test_commands_compare_report_and_list(folders, tmp_path):
    runner = CliRunner()
    told = runner.invoke(app, ["compare", str(folders / "one"), str(folders / "again")])
    assert told.exit_code == 0, told.output
    assert "Over tissue" in told.output and "p 1.000" in told.output
    assert max(len(line) for line in told.output.splitlines() if "──" in line) <= 120
    told = runner.invoke(app, ["compare", str(folders / "one"), str(folders / "fewer")])
    assert told.exit_code == 2
    told = runner.invoke(
        app, ["failures", str(folders / "one"), "--sheet", str(tmp_path / "w.png")]
    )
    assert told.exit_code == 0, told.output
    assert (tmp_path / "w.png").is_file()
    told = runner.invoke(app, ["failures", str(tmp_path)])
    assert told.exit_code == 2 and "no results of an evaluation" in told.output


def test_a_report_holds_all_and_no_paths(folders, heads):
    told = CliRunner().invoke(app, ["report", str(folders / "one")])
    assert told.exit_code == 0, told.output
    page = (folders / "one" / "evaluation.html").read_text(encoding="utf-8")
    metrics = json.loads((folders / "one" / "metrics.json").read_text(encoding="utf-8"))
    for convention in ("tissue", "all"):
        assert f"{metrics['conventions'][convention]['average_precision']:.3f}" in page
    assert "Research use only" in page and "cannot be compared" in page
    assert page.count("data:image/png") >= 1 and page.count("<svg") >= 6
    # Everything is in the page, and nothing tells where the scans lie.
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert str(heads) not in page
