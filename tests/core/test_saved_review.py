"""Reviews come back as they were saved, on the same scan and model only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dicom_files import write_slices
from napari_dino_uad import detect, drain, load_model, read_volume, save_model, write_volume
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.finding_settings import FindingSettings
from napari_dino_uad.core.maps.findings import edit_findings, find_findings
from napari_dino_uad.core.maps.review import Review
from napari_dino_uad.core.saved_review import open_review, save_review

RATE = 0.02


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, ill):
    """The scan and the model as files."""
    folder = tmp_path_factory.mktemp("case")
    write_volume(folder / "scan.nii.gz", ill.volume.array, ill.volume)
    save_model(model, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def anomaly(folder):
    return drain(
        detect(read_volume(folder / "scan.nii.gz"), load_model(folder / "model.safetensors"))
    )


@pytest.fixture
def saved(folder, anomaly, tmp_path):
    calibration = anomaly.model.calibration
    labels, findings = find_findings(
        anomaly.scores, anomaly.volume, calibration.threshold(RATE), calibration
    )
    review = Review()
    review.judge(labels, findings, 1, "rejected", "vessel")
    edits = np.zeros(labels.shape, dtype=np.int8)
    edits[0, 0, :3] = 1
    settings = FindingSettings(RATE, 0.1, False, edits)
    path = tmp_path / "scan.review.json"
    files = save_review(path, anomaly, settings, review, "heads")
    return path, files, labels, findings


def test_a_review_opens_as_it_was_saved(saved, anomaly):
    path, files, labels, findings = saved
    # The model has a file already, so none is written.
    assert [file.name for file in files] == ["scan.review.safetensors", "scan.review.json"]
    opened = drain(open_review(path))
    np.testing.assert_array_equal(opened.anomaly.scores, anomaly.scores)
    np.testing.assert_array_equal(opened.anomaly.foreground, anomaly.foreground)
    assert opened.anomaly.level == anomaly.level
    assert (opened.settings.rate, opened.settings.tissue_only) == (RATE, False)
    assert opened.settings.edits.sum() == 3
    judged = opened.review.of(labels, findings)
    assert list(judged) == [1]
    assert (judged[1].decision, judged[1].note) == ("rejected", "vessel")
    assert opened.scan is None and opened.model_name == "heads"


def test_corrected_findings_have_the_same_numbers_when_opened(saved, anomaly, tmp_path):
    automatic = saved[2]
    calibration, volume, scores = anomaly.model.calibration, anomaly.volume, anomaly.scores
    edits = np.zeros(scores.shape, dtype=np.int8)

    def edited(known):
        return edit_findings(automatic, edits.copy(), scores, volume, calibration, known)[0]

    # The larger of two marked lesions is marked last, so its number is the higher one.
    air = np.argwhere(~anomaly.foreground.any(axis=0))
    row, column = air[0]
    edits[0, row, column] = 1
    labels = edited(None)
    edits[-2:, row, column] = 1
    labels = edited(labels)
    assert labels[-1, row, column] == labels[0, row, column] + 1
    path = tmp_path / "numbered.review.json"
    save_review(path, anomaly, FindingSettings(RATE, 0.1, False, edits), Review(), "heads", labels)
    opened = drain(open_review(path))
    assert edited(None)[0, row, column] != labels[0, row, column]
    np.testing.assert_array_equal(edited(opened.numbered), labels)
    save_review(path, anomaly, FindingSettings(RATE, 0.1, False), Review(), "heads", automatic)
    assert drain(open_review(path)).numbered is None


def test_open_scans_and_models_are_used(saved, anomaly, ill):
    path, *_ = saved
    scans = [lambda: ill.volume, lambda: anomaly.volume]
    opened = drain(open_review(path, scans, {"mine": anomaly.model}))
    assert opened.anomaly.model is anomaly.model
    assert opened.anomaly.volume is scans[opened.scan]()


def test_another_scan_at_the_path_is_refused(saved, anomaly, folder):
    path, *_ = saved
    scan = folder / "scan.nii.gz"
    before = scan.read_bytes()
    try:
        write_volume(scan, anomaly.volume.array + 1, anomaly.volume)
        with pytest.raises(InputError, match="voxels differ"):
            drain(open_review(path))
        scan.unlink()
        with pytest.raises(InputError, match=r"not at .*scan\.nii\.gz any more"):
            drain(open_review(path))
    finally:
        scan.write_bytes(before)


def test_another_model_is_refused(saved, folder, anomaly):
    path, *_ = saved
    file = folder / "model.safetensors"
    before = file.read_bytes()
    maps = dataclasses.replace(anomaly.model.maps, smoothing_mm=1.0)
    try:
        save_model(dataclasses.replace(anomaly.model, maps=maps), file)
        with pytest.raises(InputError, match="The model heads of this review"):
            drain(open_review(path))
    finally:
        file.write_bytes(before)


def test_a_model_without_a_file_is_written_beside(anomaly, tmp_path):
    model = dataclasses.replace(anomaly.model, path=None)
    bare = dataclasses.replace(anomaly, model=model)
    path = tmp_path / "case.review.json"
    files = save_review(path, bare, FindingSettings(RATE, 0.1, True), Review(), "fresh")
    assert tmp_path / "case.model.safetensors" in files
    opened = drain(open_review(path))
    assert opened.anomaly.model.path == tmp_path / "case.model.safetensors"


def test_changed_files_are_refused(saved):
    path, *_ = saved
    tensors = path.with_name("scan.review.safetensors")
    before = tensors.read_bytes()
    tensors.write_bytes(before[:-1] + b"x")
    with pytest.raises(InputError, match="not as it was saved"):
        drain(open_review(path))
    tensors.write_bytes(before)
    path.write_text(path.read_text(encoding="utf-8").replace("vessel", "tumour"), encoding="utf-8")
    with pytest.raises(InputError, match="is no review, was changed"):
        drain(open_review(path))


def test_a_series_is_found_again(model, ill, tmp_path):
    pixels = np.clip(ill.volume.array, 0, None)
    pixels = (pixels / pixels.max() * 1000).astype(np.uint16)
    places = [(0, 0, 3.0 * index) for index in range(len(pixels))]
    folder = write_slices(tmp_path / "series", pixels, places, PixelSpacing=[2, 2])
    write_slices(tmp_path / "other", pixels[:4], places[:4], SeriesInstanceUID="1.2.4")
    for file in (tmp_path / "other").iterdir():
        file.rename(folder / f"other_{file.name}")
    volume = read_volume(folder, "1.2.3")
    anomaly = drain(detect(volume, model))
    path = tmp_path / "series.review.json"
    save_review(path, anomaly, FindingSettings(RATE, 0.1, True), Review(), "heads")
    opened = drain(open_review(path))
    np.testing.assert_array_equal(opened.anomaly.scores, anomaly.scores)
    assert opened.anomaly.volume.series.uid == "1.2.3"
