"""Single pictures in colour, from their files to findings."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from fundus import COLUMNS, ROWS, fundus
from napari_dino_uad import (
    Case,
    detect,
    drain,
    evaluate,
    fit,
    load_model,
    read_volume,
    save_model,
)
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import content_digest
from napari_dino_uad.core.maps.finding_rows import finding_rows
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.report import CaseFacts, render_report
from napari_dino_uad.core.report.pictures import slice_picture
from napari_dino_uad.core.results import write_results
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

SETTINGS = {"components": 30, "epochs": 2, "max_patches": 10_000}


def saved(folder, name, values, **options):
    path = folder / name
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, photometric="rgb", **options)
    else:
        Image.fromarray(values).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["eye.png", "eye.tif", "eye.jpg"])
def test_colours_are_those_of_the_file(tmp_path, name):
    picture, _ = fundus(0)
    options = {"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}
    volume = read_volume(saved(tmp_path, name, picture, **options))
    assert volume.is_2d
    assert not volume.spacing_known
    assert volume.shape == (1, ROWS, COLUMNS)
    # JPEG loses a little.
    assert np.abs(volume.colour[0].astype(int) - picture).max() <= (5 if options else 0)
    red, green, blue = (volume.colour[..., one].astype(np.float32) for one in range(3))
    assert np.allclose(volume.array, 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-3)


def test_colours_of_sixteen_bits_and_opacity(tmp_path):
    picture, _ = fundus(0)
    path = tmp_path / "eye.png"
    deep = sitk.GetImageFromArray(picture.astype(np.uint16) * 257, isVector=True)
    sitk.WriteImage(deep, str(path))
    assert np.array_equal(read_volume(path).colour[0], picture)
    opaque = np.dstack([picture, np.full((ROWS, COLUMNS), 255, np.uint8)])
    volume = read_volume(saved(tmp_path, "eye.png", opaque))
    assert np.array_equal(volume.colour[0], picture)
    assert not volume.notices
    opaque[0, 0, 3] = 7
    volume = read_volume(saved(tmp_path, "eye.png", opaque))
    assert volume.notices == (
        "eye.png has transparent pixels; their colours are used as they are stored.",
    )


def test_a_jpeg_is_upright_whole_and_of_known_colours(tmp_path):
    picture, _ = fundus(0)
    path = tmp_path / "eye.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(path, exif=exif)
    volume = read_volume(path)
    assert volume.shape == (1, COLUMNS, ROWS)
    assert "upright" in volume.notices[0]
    grey = Image.fromarray(picture[..., 0])
    grey.save(path)
    assert read_volume(path).colour is None
    whole = path.read_bytes()
    for end in (len(whole) // 2, len(whole) - 30, 20):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"eye\.jpg"):
            read_volume(path)
    Image.fromarray(picture).convert("CMYK").save(path)
    with pytest.raises(InputError, match="CMYK"):
        read_volume(path)


def test_a_folder_of_pictures_is_no_stack(tmp_path):
    for number in range(2):
        saved(tmp_path, f"{number}.png", fundus(number)[0])
    with pytest.raises(InputError, match="give a pattern"):
        read_volume(tmp_path)


def test_two_colours_of_one_brightness_are_two_scans():
    ground, lesion = np.full((2, 40, 40, 3), (100, 100, 100), np.uint8)
    ground[0], lesion[0] = (10, 20, 30), (10, 20, 30)
    # 0.299 r + 0.587 g: as bright to rounding.
    lesion[20:] = (100, 100, 100)
    ground[20:] = (198, 50, 100)
    one, other = (volume_from_array(array, colour=True) for array in (ground, lesion))
    assert np.abs(one.array - other.array).max() < 1
    digests = {content_digest(each.content, each.spacing_mm) for each in (one, other)}
    assert len(digests) == 2


def test_the_network_sees_the_colours():
    picture, _ = fundus(0)
    volume = volume_from_array(picture, colour=True)
    scan = prepare(volume, Preprocessing(input_size=ROWS, colour=True))
    grid = scan.grid(8, 8)
    seen = scan.images([0], grid)[0].numpy()[:, :ROWS, :COLUMNS]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (picture / 255 - mean) / std
    assert np.allclose(seen.transpose(1, 2, 0), expected, atol=1e-5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eyes")
    for seed in range(12):
        saved(folder, f"h{seed}.png", fundus(seed)[0])
    for seed in (50, 51):
        picture, mask = fundus(seed, lesion=True)
        saved(folder, f"p{seed}.png", picture)
        saved(folder, f"p{seed}_mask.png", 255 * mask.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def colour_model(pictures):
    healthy = [Case(path, healthy=True) for path in sorted(pictures.glob("h*.png"))]
    return drain(fit(healthy, settings=SETTINGS))


def cases_of(pictures):
    return [Case(pictures / f"p{seed}.png", pictures / f"p{seed}_mask.png") for seed in (50, 51)]


def test_a_lesion_that_only_its_colour_tells_is_found(pictures, colour_model, tmp_path):
    save_model(colour_model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.preprocessing.colour
    assert "pictures in colour" in loaded.summary()
    found = drain(evaluate(cases_of(pictures), loaded)).metrics["conventions"]["tissue"]
    assert found["auroc"] > 0.95
    # The same pictures without their colours show much less.
    grey = [
        Case(volume_from_array(read_volume(path).array, name=path.stem), healthy=True)
        for path in sorted(pictures.glob("h*.png"))
    ]
    without = drain(fit(grey, settings=SETTINGS))
    ill = [
        Case(
            volume_from_array(read_volume(case.scan).array, name=case.name),
            read_volume(case.mask).array,
        )
        for case in cases_of(pictures)
    ]
    blind = drain(evaluate(ill, without)).metrics["conventions"]["tissue"]
    assert found["average_precision"] > blind["average_precision"] + 0.1


def test_findings_and_pictures_of_a_colour_image(pictures, colour_model, tmp_path):
    volume = read_volume(pictures / "p50.png")
    anomaly = drain(detect(volume, colour_model))
    threshold = colour_model.calibration.threshold(0.01)
    labels, findings = find_findings(
        anomaly.scores, volume, threshold, colour_model.calibration, foreground=anomaly.foreground
    )
    assert findings
    write_results(tmp_path, anomaly, labels, findings, 0.01)
    back = read_volume(tmp_path / "p50_anomaly.nii.gz")
    assert np.allclose(back.array[0], anomaly.scores[0])
    rows = finding_rows(findings, anomaly.tissue_frame)
    assert rows[0].slices == ""
    page = render_report(anomaly, labels, rows, CaseFacts(0.01, None))
    assert "on the left" not in page
    assert f"{COLUMNS} x {ROWS} pixels" in page
    assert "pictures in colour" in page
    drawn = slice_picture(volume, "axial", 0, COLUMNS)
    assert np.abs(drawn - volume.colour[0]).max() < 1


def test_grey_and_colour_do_not_mix(pictures, colour_model, model, ill):
    with pytest.raises(InputError, match=r"p50 is a picture in colour, but a grey image"):
        drain(detect(read_volume(pictures / "p50.png"), model))
    with pytest.raises(InputError, match="is a grey image, but a picture in colour"):
        drain(detect(ill.volume, colour_model))
    grey = Case(volume_from_array(read_volume(pictures / "h0.png").array, name="grey"))
    coloured = [Case(pictures / f"h{number}.png") for number in range(1, 4)]
    with pytest.raises(InputError, match="3 of 4 scans are in colour, such as h1"):
        drain(fit([grey, *coloured], settings=SETTINGS))
