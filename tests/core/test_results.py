"""Written results lie on the scan, however its file stores it."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from napari_dino_uad import read_volume
from napari_dino_uad.core.maps.findings import describe_labels
from napari_dino_uad.core.maps.places import TissueFrame
from napari_dino_uad.core.maps.review import Judgement
from napari_dino_uad.core.results import write_results
from napari_dino_uad.core.slices.preprocessing import Preprocessing

SHAPE = (12, 16, 20)
SPACING = (1.0, 1.5, 3.0)
CODES = ("LPS", "RAS", "LAS", "RPI", "PIR", "ASL", "SLA", "IRP")


class Calibration:
    def threshold(self, rate):
        return 1.0

    def false_positive_rate(self, score):
        return 0.5


def affine_of(kind):
    """An affine whose axes run as a code says, or lean."""
    if kind in CODES:
        codes = nibabel.orientations.axcodes2ornt(tuple(kind))
        affine = np.zeros((4, 4))
        for axis, (world, sign) in enumerate(codes):
            affine[int(world), axis] = sign * SPACING[axis]
    else:
        turn = {"oblique": (0.3, -0.2), "oblique and flipped": (0.4, 0.25)}.get(kind, (0, 0))
        c, s = np.cos(turn), np.sin(turn)
        about_x = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
        about_z = np.array([[c[1], -s[1], 0], [s[1], c[1], 0], [0, 0, 1]])
        axes = about_z @ about_x
        if kind == "oblique and flipped":
            axes[:, 1] *= -1
        if kind == "tilted":
            axes[:, 2] = [0, np.sin(0.3), np.cos(0.3)]
        affine = np.eye(4)
        affine[:3, :3] = axes * SPACING
    affine[:3, 3] = (-20, 35, 7)
    affine[3, 3] = 1
    return affine


def case_of(tmp_path, kind):
    """A scan with a bright box, and a map that is the scan itself."""
    values = np.random.default_rng(0).integers(0, 50, SHAPE).astype(np.int16)
    values[3:8, 4:9, 5:12] += 200
    nibabel.save(nibabel.Nifti1Image(values, affine_of(kind)), tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    labels = (volume.array > 150).astype(np.uint8)
    model = SimpleNamespace(
        calibration=Calibration(), levels=Calibration(), summary=lambda: "a model",
        backbone_key="none", versions={},
    )  # fmt: skip
    anomaly = SimpleNamespace(
        volume=volume, scores=volume.array, model=model, level=0.0, seconds={},
        tissue_frame=TissueFrame.of(volume, None),
        scan=SimpleNamespace(preprocessing=Preprocessing()),
    )  # fmt: skip
    return values, anomaly, labels, describe_labels(labels, anomaly.scores, volume, Calibration())


@pytest.mark.parametrize("kind", [*CODES, "oblique", "oblique and flipped", "tilted"])
def test_results_overlay_the_scan(tmp_path, kind):
    values, anomaly, labels, findings = case_of(tmp_path, kind)
    write_results(tmp_path / "out", anomaly, labels, findings, 0.01)
    scan = nibabel.load(tmp_path / "scan.nii.gz")
    marked = nibabel.load(tmp_path / "out" / "scan_findings.nii.gz")
    scores = nibabel.load(tmp_path / "out" / "scan_anomaly.nii.gz")
    for image in (marked, scores):
        np.testing.assert_allclose(image.affine, scan.affine, atol=1e-4)
        assert image.shape == scan.shape
    box = values > 150
    if kind == "tilted":
        # There and back by interpolation: the box is where it was, give or take its edge.
        same = (marked.get_fdata() > 0) & box
        assert 2 * same.sum() / (box.sum() + (marked.get_fdata() > 0).sum()) > 0.9
        return
    np.testing.assert_array_equal(marked.get_fdata() > 0, box)
    np.testing.assert_array_equal(scores.get_fdata(), values)
    # SimpleITK measures the file as the table does.
    image = sitk.ReadImage(str(tmp_path / "out" / "scan_findings.nii.gz"))
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(image)
    left, posterior, superior = shapes.GetCentroid(1)
    np.testing.assert_allclose(
        findings[0].centroid_ras_mm, (-left, -posterior, superior), atol=1e-3
    )
    assert findings[0].volume_ml == pytest.approx(shapes.GetPhysicalSize(1) / 1000)


def test_tables_have_decisions_and_notes(tmp_path):
    _, anomaly, labels, findings = case_of(tmp_path, "RAS")
    judged = {1: Judgement("accepted", "a, note", np.array([[0, 1]]))}
    write_results(tmp_path, anomaly, labels, findings, 0.01, judgements=judged)
    with (tmp_path / "scan_findings.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["decision"], row["note"]) == ("accepted", "a, note")
    assert row["side"]
    record = json.loads((tmp_path / "scan.json").read_text(encoding="utf-8"))
    assert record["findings"][0]["decision"] == "accepted"
    assert record["accepted"] == {"findings": 1, "size": pytest.approx(findings[0].volume_ml)}
