"""An evaluation from scans to a folder, resumed, and read again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_dino_uad import Case, drain, evaluate, read_evaluation
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.settings import EvaluationSettings

QUICK = EvaluationSettings(bootstrap=50, froc_rates=(0.05, 0.01))


@pytest.fixture(scope="module")
def cases(heads):
    return [
        Case(heads / "ill" / "p_flair.nii.gz", heads / "ill" / "p_lesion.nii.gz"),
        Case(heads / "healthy" / "h0_flair.nii.gz", healthy=True),
        Case(heads / "healthy" / "h1_flair.nii.gz", healthy=True),
    ]


@pytest.fixture(scope="module")
def folder(cases, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    groups = {"site": {"p_flair": "north", "h0_flair": "north", "h1_flair": "south"}}
    settings = EvaluationSettings(bootstrap=50, froc_rates=(0.05, 0.01), groups=groups)
    drain(evaluate(cases, model, settings=settings, out=out))
    return out


def test_figures_are_those_without_a_folder(cases, model, folder):
    apart = drain(evaluate(cases, model, settings=QUICK))
    written = read_evaluation(folder)
    assert written.metrics["conventions"] == json.loads(json.dumps(apart.metrics["conventions"]))
    assert [row["case"] for row in written.rows] == ["p_flair", "h0_flair", "h1_flair"]
    assert written.rows[0]["auroc"] == apart.cases[0]["auroc"]
    assert not (folder / "unfinished").exists()


def test_groups_scans_and_lesions_are_told(folder):
    metrics = read_evaluation(folder).metrics
    north, south = (metrics["groups"]["site"][name] for name in ("north", "south"))
    assert (north["cases"], south["cases"]) == (2, 1)
    assert south["conventions"]["tissue"]["auroc"] is None
    assert metrics["scans"] == {"with_lesion": 1, "healthy": 2, "auroc": 1.0}
    assert metrics["lesions"]["scans_with_lesion"] == 1
    assert 0 <= metrics["lesions"]["sensitivity"] <= 1


def test_curves_and_histograms_are_kept(folder):
    written = read_evaluation(folder)
    assert set(written.curves) == {"tissue", "all", "froc"}
    assert written.curves["froc"]["rate"] == [0.01, 0.05]
    weights = np.ones((1, 3), dtype=np.int64)
    found = written.histograms["tissue"].metrics(weights, written.thresholds)
    exact = written.metrics["conventions"]["tissue"]
    assert found["average_precision"][0] == pytest.approx(exact["average_precision"], abs=1e-3)


def test_a_case_opens_where_its_scan_lies(folder, ill):
    opened = read_evaluation(folder).open("p_flair")
    np.testing.assert_array_equal(opened.mask, ill.lesion)
    np.testing.assert_array_equal(opened.volume.array, ill.volume.array)
    assert opened.scores.shape == opened.findings.shape == ill.lesion.shape
    assert opened.scores[ill.lesion].mean() > opened.scores[~ill.lesion].mean()


def test_a_moved_scan_is_found_again(cases, model, heads, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    for name in ("p_flair.nii.gz", "p_lesion.nii.gz"):
        (old / name).write_bytes((heads / "ill" / name).read_bytes())
    case = Case(old / "p_flair.nii.gz", old / "p_lesion.nii.gz")
    drain(evaluate([case], model, settings=QUICK, out=tmp_path / "out"))
    old.rename(new)
    written = read_evaluation(tmp_path / "out")
    with pytest.raises(InputError, match="say where the scans are now"):
        written.open("p_flair")
    assert written.open("p_flair", scans=new).mask.any()


def test_a_stopped_run_scores_no_case_twice(cases, model, tmp_path, monkeypatch):
    running = evaluate(cases, model, settings=QUICK, out=tmp_path)
    for progress in running:
        if progress.done == 2:
            break
    running.close()
    scored = []
    from napari_dino_uad.core import evaluate as pipeline

    plain = pipeline.score_case
    monkeypatch.setattr(
        pipeline, "score_case", lambda name, *rest: scored.append(name) or plain(name, *rest)
    )
    again = drain(evaluate(cases, model, settings=QUICK, out=tmp_path))
    assert scored == ["h1_flair"]
    whole = drain(evaluate(cases, model, settings=QUICK))
    assert again.metrics["conventions"] == whole.metrics["conventions"]
    assert again.curves == whole.curves


def test_notes_are_kept_and_removed(folder):
    written = read_evaluation(folder)
    assert written.notes() == {}
    written.write_note("p_flair", "  near the scalp ")
    written.write_note("h0_flair", "vessel")
    assert read_evaluation(folder).notes() == {"p_flair": "near the scalp", "h0_flair": "vessel"}
    written.write_note("h0_flair", "")
    assert read_evaluation(folder).notes() == {"p_flair": "near the scalp"}


def test_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no results of an evaluation"):
        read_evaluation(tmp_path)
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    metrics = tmp_path / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"cases": 3', '"cases": 4'))
    with pytest.raises(InputError, match="or they were changed"):
        read_evaluation(tmp_path)


def test_groups_of_other_cases_are_refused():
    from napari_dino_uad.core.evaluate import _check_groups

    names = ["a_flair", "b_flair"]
    with pytest.raises(InputError, match="None of the 2 names in the table of groups is a case"):
        _check_groups({"site": {"a": "north", "b": "south"}}, names)
    assert "1 of 2 cases, such as b_flair" in _check_groups({"site": {"a_flair": "north"}}, names)
    assert _check_groups({"site": dict.fromkeys(names, "north")}, names) == ""
    assert _check_groups({}, names) == ""
