"""Grey scans that were compressed with loss say so wherever a scan's notices stand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from dicom_files import noise, write_slices
from fundus import fundus
from napari_dino_uad import Case, detect, drain, read_volume
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.report import CaseFacts, render_report
from napari_dino_uad.core.results import write_results
from napari_dino_uad.core.scans.cases import read_cases
from napari_dino_uad.core.scans.lossy import LOSSY, dicom_loss
from napari_dino_uad.core.scans.volume import volume_from_array


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)


def test_a_grey_jpeg_is_told_and_a_photograph_is_not(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "scan.jpg")
    assert read_volume(tmp_path / "scan.jpg").notices == (
        f"scan.jpg is compressed with loss (JPEG): {LOSSY}; open the original if there is one.",
    )
    # Grey, but stored as red, green and blue.
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "three.jpg", subsampling=0)
    assert LOSSY in read_volume(tmp_path / "three.jpg").notices[0]
    Image.fromarray(fundus(0)[0]).save(tmp_path / "eye.jpg")
    assert read_volume(tmp_path / "eye.jpg").notices == ()
    Image.fromarray(grey).save(tmp_path / "scan.png")
    assert read_volume(tmp_path / "scan.png").notices == ()


@pytest.mark.parametrize("packing", ["jpeg", "tiff_lzw"])
def test_a_tiff_is_told_by_its_compression(tmp_path, grey, packing):
    path = tmp_path / "scan.tif"
    Image.fromarray(grey).save(path, compression=packing)
    with tifffile.TiffFile(path) as file:
        assert (file.pages[0].compression == 7) == (packing == "jpeg")
    assert [LOSSY in one for one in read_volume(path).notices] == [True] * (packing == "jpeg")


def test_a_stack_of_jpegs_is_told_once(tmp_path, grey):
    folder = tmp_path / "stack"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.roll(grey, number)).save(folder / f"{number}.jpg")
    [notice] = read_volume(folder).notices
    assert notice.startswith("stack is compressed with loss (JPEG)")


def test_a_stack_keeps_the_notices_of_its_slices(tmp_path, grey):
    folder = tmp_path / "stack"
    folder.mkdir()
    for number in range(3):
        opaque = np.dstack([grey, np.full_like(grey, 200)])
        Image.fromarray(opaque).save(folder / f"{number}.png")
    assert read_volume(folder).notices == (
        "The transparency of 0.png is ignored",
        "stack has more notices of its slices: 2.",
    )


def test_lossy_dicom_is_told_by_syntax_or_header(tmp_path):
    write_slices(tmp_path / "lossy", noise(3, 5, 6), [0, 3, 6], LossyImageCompression="01")
    [notice] = read_volume(tmp_path / "lossy").notices
    assert notice.startswith("The pixels are compressed with loss (as the header says)")
    write_slices(tmp_path / "plain", noise(3, 5, 6), [0, 3, 6], LossyImageCompression="00")
    assert read_volume(tmp_path / "plain").notices == ()
    # Baseline JPEG always loses, JPEG 2000 and lossless JPEG need not.
    ends = {"50": "JPEG", "51": "JPEG", "81": "JPEG-LS", "57": "", "70": "", "80": "", "91": ""}
    assert {end: dicom_loss(f"1.2.840.10008.1.2.4.{end}", "") for end in ends} == ends


def test_a_cohort_is_told_once(tmp_path, grey):
    for number in range(3):
        Image.fromarray(np.roll(grey, number)).save(tmp_path / f"{number}.jpg")
    notes = [one.note for one in read_cases([Case(tmp_path / f"{n}.jpg") for n in range(3)])]
    assert notes[0].startswith("Note: 0.jpg is compressed with loss")
    assert notes[1:] == ["", ""]


def test_results_and_report_repeat_the_notices(tmp_path, model, ill):
    volume = volume_from_array(ill.volume.array, ill.volume.spacing_mm, name="scan")
    notices = ("A sentence with its full stop.", "One without")
    object.__setattr__(volume, "notices", notices)
    anomaly = drain(detect(volume, model))
    labels, findings = find_findings(
        anomaly.scores, volume, model.calibration.threshold(0.01), model.calibration
    )
    write_results(tmp_path, anomaly, labels, findings, 0.01)
    assert tuple(json.loads((tmp_path / "scan.json").read_text())["notices"]) == notices
    page = render_report(anomaly, labels, [], CaseFacts(0.01, None))
    assert ">A sentence with its full stop.<" in page
    assert ">One without.<" in page
