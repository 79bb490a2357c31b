"""The report on a scan."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from napari_dino_uad import detect, drain
from napari_dino_uad.core.maps.finding_rows import finding_rows
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.maps.review import Review
from napari_dino_uad.core.report import CaseFacts, render_report, write_report
from napari_dino_uad.core.report.page import _sides
from napari_dino_uad.core.results import RESEARCH_USE

RATE = 0.02


@pytest.fixture(scope="module")
def case(model, ill):
    anomaly = drain(detect(ill.volume, model))
    threshold = model.calibration.threshold(RATE)
    labels, findings = find_findings(
        anomaly.scores, ill.volume, threshold, model.calibration, foreground=anomaly.foreground
    )
    assert len(findings) > 1
    review = Review()
    review.judge(labels, findings, 1, "accepted", "certain <b>")
    review.judge(labels, findings, 2, "rejected")
    return (
        anomaly,
        labels,
        finding_rows(findings, anomaly.tissue_frame, review.of(labels, findings)),
    )


def test_a_report_says_findings_and_decisions(case):
    anomaly, labels, rows = case
    page = render_report(anomaly, labels, rows, CaseFacts(RATE, model_name="FLAIR heads"))
    assert page.count(RESEARCH_USE) == 2
    assert "1 accepted" in page and "1 rejected" in page
    assert "certain &lt;b&gt;" in page
    assert "FLAIR heads, dpmm" in page
    assert "2 % false alarms in healthy tissue" in page
    assert f"{rows[0].size:.2f}" in page
    # Whatever it shows is in the page itself.
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_pictures_have_the_finding_outlined(case):
    anomaly, labels, rows = case
    page = render_report(anomaly, labels, rows, CaseFacts(RATE))
    found = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(found) == min(3, len(rows))
    for text in found:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        assert (picture == (0, 230, 255)).all(axis=2).any()


def test_a_report_names_the_scan_only_if_asked(case, tmp_path):
    anomaly, labels, rows = case
    write_report(tmp_path / "a.html", anomaly, labels, rows, CaseFacts(RATE))
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert anomaly.volume.name not in page
    named = render_report(anomaly, labels, rows, CaseFacts(RATE, scan_name="case 12"))
    assert "case 12" in named


def test_a_report_without_findings_says_so(case):
    anomaly, labels, _ = case
    page = render_report(anomaly, np.zeros_like(labels), [], CaseFacts(1e-4))
    assert "No finding above the threshold." in page and "data:image" not in page


@pytest.mark.parametrize(("plane", "left"), [("axial", "right"), ("sagittal", "front")])
def test_the_side_on_the_left_is_that_of_the_plane(plane, left):
    volume = SimpleNamespace(is_2d=False, spacing_known=True)
    anomaly = SimpleNamespace(volume=volume, planes=[SimpleNamespace(plane=plane)])
    assert _sides(anomaly) == f"Patient's {left} on the left. "
    volume.spacing_known = False
    assert _sides(anomaly) == ""
