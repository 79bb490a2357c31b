"""DICOM results lie on the slices of the series that the scan was read from."""

from __future__ import annotations

import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest

from dicom_files import AXIAL, CORONAL, SAGITTAL, enhanced, frame_groups, noise, write_slices
from napari_dino_uad import read_volume
from napari_dino_uad.core.dicom_export import (
    why_no_dicom,
    write_dicom_map,
    write_dicom_segmentation,
)
from napari_dino_uad.core.dicom_export.source import on_frames
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.finding_rows import finding_rows
from napari_dino_uad.core.maps.findings import describe_labels
from napari_dino_uad.core.maps.places import TissueFrame
from napari_dino_uad.core.maps.review import Judgement

hd = pytest.importorskip("highdicom")

TURNED = (0.96, 0.28, 0.0, -0.28, 0.96, 0.0)
OBLIQUE = (1.0, 0.0, 0.0, 0.0, 0.8, 0.6)
ROWS, COLS, SLICES = 20, 24, 8


class Calibration:
    def threshold(self, rate):
        return -np.log10(rate)

    def false_positive_rate(self, score):
        return 10.0**-score


def anomaly_of(volume, scores):
    """A map of given scores, without a model behind it."""
    model = SimpleNamespace(calibration=Calibration(), summary=lambda: "a model")
    return SimpleNamespace(volume=volume, model=model, scores=scores)


def series(tmp_path, kind):
    """A series of its kind, flat pixels with one bright box to mark."""
    pixels = noise(SLICES, ROWS, COLS)
    step, axes, each = np.array([0.0, 0.0, 3.0]), AXIAL, None
    if kind == "head first to feet":
        step = -step
    elif kind == "sagittal":
        axes, step = SAGITTAL, np.array([3.0, 0.0, 0.0])
    elif kind == "coronal":
        axes, step = CORONAL, np.array([0.0, 3.0, 0.0])
    elif kind == "turned":
        axes = TURNED
    elif kind == "oblique":
        axes = OBLIQUE
        step = 3 * np.cross(axes[:3], axes[3:])
    elif kind == "tilted":
        step = np.array([0.0, 1.2, 3.0])
    places = [10 + step * index for index in range(SLICES)]
    if kind == "uneven":
        places = [10 + np.array([0.0, 0.0, z]) for z in (0, 3, 6, 10.2, 13, 16, 19, 22)]
    if kind == "missing":
        places[4:] = [place + step for place in places[4:]]
    if kind == "without a thickness":

        def each(header, _):
            del header.SliceThickness

    if kind == "multi-frame":
        groups = [frame_groups(place, axes) for place in places]
        return enhanced(tmp_path / "scan.dcm", pixels, groups, FrameOfReferenceUID="1.2.9")
    if kind == "reversed multi-frame":
        groups = [frame_groups(place, axes) for place in places[::-1]]
        return enhanced(tmp_path / "scan.dcm", pixels, groups, FrameOfReferenceUID="1.2.9")
    return write_slices(tmp_path / "scan", pixels, places, axes, each, FrameOfReferenceUID="1.2.9")


KINDS = (
    "axial", "head first to feet", "sagittal", "coronal", "turned", "oblique", "tilted", "uneven",
    "missing", "without a thickness", "multi-frame", "reversed multi-frame",
)  # fmt: skip


def marked(volume):
    """Two boxes of labels and scores that say where each voxel is."""
    labels = np.zeros(volume.shape, dtype=np.uint8)
    s, p, q = (np.array(volume.shape) // 4).tolist()
    labels[s : s + 3, p : p + 5, q : q + 6] = 1
    labels[-3:-1, -6:-3, -5:-2] = 2
    index = np.indices(volume.shape).astype(np.float32)
    return labels, index[0] + 0.1 * index[1] + 0.01 * index[2]


def rows_of(volume, labels, scores, judgements=None):
    findings = describe_labels(labels, scores, volume, Calibration())
    return finding_rows(findings, TissueFrame.of(volume, None), judgements)


def place_of_pixels(frame_place, axes, rows=ROWS, cols=COLS):
    """Patient positions (rows, cols, 3) of a frame with pixels of 2 x 1 mm."""
    r, c = np.mgrid[:rows, :cols]
    across, down = np.array(axes[:3]), np.array(axes[3:])
    return np.array(frame_place) + c[..., None] * across + 2.0 * r[..., None] * down


def expected(volume, array, places):
    """The nearest voxel of the canonical array at patient positions, and its distance."""
    lps = np.asarray(places)[..., ::-1] - np.array(volume.origin_mm)
    steps = lps @ volume.direction / np.array(volume.spacing_mm)
    index = np.rint(steps).astype(int)
    off = np.abs(steps - index).max(axis=-1)
    inside = ((index >= 0) & (index < volume.shape)).all(axis=-1)
    clipped = np.clip(index, 0, np.array(volume.shape) - 1)
    return array[tuple(np.moveaxis(clipped, -1, 0))], off, inside


@pytest.mark.parametrize("kind", KINDS)
def test_segments_lie_on_the_source(tmp_path, kind):
    volume = read_volume(series(tmp_path, kind))
    labels, scores = marked(volume)
    rows = rows_of(volume, labels, scores)
    write_dicom_segmentation(tmp_path / "seg.dcm", anomaly_of(volume, scores), labels, rows)
    made = pydicom.dcmread(tmp_path / "seg.dcm")
    segments = hd.seg.segread(tmp_path / "seg.dcm")
    assert [one.SegmentLabel for one in made.SegmentSequence] == ["Finding 1", "Finding 2"]
    axes = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    axes = [float(one) for one in axes.ImageOrientationPatient]
    pixels = made.pixel_array
    seen = 0
    for frame, group in zip(pixels, made.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = [float(one) for one in group.PlanePositionSequence[0].ImagePositionPatient]
        wanted, off, inside = expected(volume, labels, place_of_pixels(place, axes))
        if kind == "missing":
            # The canonical array has no voxels in the gap; the frames are compared below.
            continue
        # Halfway between two voxels either may be the nearest.
        sure = inside & (off < 0.45)
        assert ((frame > 0) == (wanted == number))[sure].all()
        seen += int(frame.sum())
        assert group.DerivationImageSequence[0].SourceImageSequence
    if kind != "missing":
        assert seen == int((on_frames(labels, volume, volume.series.frames) > 0).sum()) > 0
    assert segments.number_of_segments == 2
    if kind not in ("tilted", "uneven"):
        # Voxel for voxel: as many as on the grid of the scan, and each on the same slice.
        assert int(pixels.sum()) == int((labels > 0).sum())
    if kind != "uneven":
        # Opened again, they are labels where they were.
        ours = read_volume(tmp_path / "seg.dcm")
        assert set(np.unique(ours.array)) == {0, 1, 2}
        for number, row in enumerate(rows, start=1):
            voxels = np.argwhere(ours.array == number)
            centre = ours.to_ras_mm(voxels.mean(axis=0))
            off = 1.5 if kind in ("tilted", "missing") else 0.01
            np.testing.assert_allclose(centre, row.finding.centroid_ras_mm, atol=off)


@pytest.mark.parametrize("kind", KINDS)
def test_source_slices_return_as_they_were(tmp_path, kind):
    """The scan itself, brought back onto its frames, has the pixels of its files."""
    volume = read_volume(series(tmp_path, kind))
    back = on_frames(volume.array, volume, volume.series.frames)
    files = [pydicom.dcmread(frame.header.file) for frame in volume.series.frames]
    stored = [
        file.pixel_array if file.pixel_array.ndim == 2 else file.pixel_array[frame.index]
        for file, frame in zip(files, volume.series.frames, strict=True)
    ]
    if kind in ("tilted", "uneven"):
        middle = slice(2, -2)
        assert np.corrcoef(back[middle].ravel(), np.array(stored)[middle].ravel())[0, 1] > 0.5
    else:
        np.testing.assert_array_equal(back, stored)


@pytest.mark.parametrize("kind", KINDS[1::2] + KINDS[-1:])
def test_the_map_reads_back(tmp_path, kind):
    volume = read_volume(series(tmp_path, kind))
    _, scores = marked(volume)
    write_dicom_map(tmp_path / "map.dcm", anomaly_of(volume, scores))
    made = hd.pm.ParametricMap.from_dataset(pydicom.dcmread(tmp_path / "map.dcm"))
    wanted = on_frames(scores, volume, volume.series.frames)
    places = [frame.place for frame in volume.series.frames]
    assert len(made.pixel_array) == len(places)
    for frame, group in zip(made.pixel_array, made.PerFrameFunctionalGroupsSequence, strict=True):
        place = [float(one) for one in group.PlanePositionSequence[0].ImagePositionPatient]
        number = int(np.linalg.norm(np.array(places) - place, axis=1).argmin())
        np.testing.assert_allclose(places[number], place, atol=1e-4)
        np.testing.assert_array_equal(frame, wanted[number])


def test_segments_name_the_decision(tmp_path):
    volume = read_volume(series(tmp_path, "axial"))
    labels, scores = marked(volume)
    runs = np.array([[0, 1]])
    judged = {2: Judgement("rejected", "vessel", runs)}
    rows = rows_of(volume, labels, scores, judged)
    anomaly = anomaly_of(volume, scores)
    write_dicom_segmentation(tmp_path / "seg.dcm", anomaly, labels, rows, edited=True)
    made = pydicom.dcmread(tmp_path / "seg.dcm")
    second = made.SegmentSequence[1]
    assert second.SegmentLabel == "Finding 2, rejected"
    assert "decision: rejected; note: vessel" in second.SegmentDescription
    assert second.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert "Research use only" in made.ContentDescription
    # Without the rejected finding, the other keeps its name.
    write_dicom_segmentation(tmp_path / "one.dcm", anomaly, labels, rows[:1])
    assert len(pydicom.dcmread(tmp_path / "one.dcm").SegmentSequence) == 1


def test_scans_of_other_files_are_refused(tmp_path, ill):
    assert "DICOM series" in why_no_dicom(ill.volume)
    with pytest.raises(InputError, match="opened from a DICOM series"):
        write_dicom_map(tmp_path / "map.dcm", anomaly_of(ill.volume, ill.volume.array))


def test_without_highdicom_the_command_is_named(tmp_path, monkeypatch):
    volume = read_volume(series(tmp_path, "axial"))
    monkeypatch.setattr("napari_dino_uad.core.dicom_export.source.find_spec", lambda name: None)
    assert 'pip install "napari-dino-uad[dicom]"' in why_no_dicom(volume)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools are not installed")
@pytest.mark.parametrize("kind", ["axial", "tilted", "multi-frame"])
def test_dciodvfy_finds_no_error(tmp_path, kind):
    volume = read_volume(series(tmp_path, kind))
    labels, scores = marked(volume)
    anomaly = anomaly_of(volume, scores)
    write_dicom_segmentation(tmp_path / "seg.dcm", anomaly, labels, rows_of(volume, labels, scores))
    write_dicom_map(tmp_path / "map.dcm", anomaly)
    for name in ("seg.dcm", "map.dcm"):
        run = subprocess.run(
            ["dciodvfy", str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        errors = [line for line in run.stderr.splitlines() if line.startswith("Error")]
        assert not errors
