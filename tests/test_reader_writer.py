from __future__ import annotations

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk
from napari.components import ViewerModel
from napari.layers import Image, Labels

from dicom_files import SEGMENTATION, enhanced, frame_groups, item, noise
from napari_dino_uad import detect, drain
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.results import write_results
from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.reader import get_reader
from napari_dino_uad.sample_data import healthy_phantom, phantom_with_lesions
from napari_dino_uad.widgets import series_picker
from napari_dino_uad.widgets.layers import is_scan_layer
from napari_dino_uad.widgets.reading import Cancelled
from napari_dino_uad.writer import write_image, write_labels
from scan_files import random_image, real_scan, rotation, write_series


def open_scan(path):
    read = get_reader(str(path) if not isinstance(path, list) else [str(one) for one in path])
    assert read is not None
    [(data, keywords, kind)] = read(path if isinstance(path, list) else str(path))
    assert kind == "image"
    return Image(data, **keywords)


@pytest.fixture
def oblique(tmp_path):
    image = random_image()
    image.SetDirection(rotation().ravel().tolist())
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def test_a_scan_opens_in_mm_on_canonical_axes(oblique):
    layer = open_scan(oblique)
    assert layer.name == "scan"
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("S", "P", "L")
    volume = layer.metadata[METADATA]["volume"]
    np.testing.assert_allclose(layer.scale, volume.spacing_mm)
    assert np.array_equal(layer.data, volume.array)
    # napari shows no rotation in 2D, so the layer must have none.
    assert np.array_equal(layer.rotate, np.eye(3))


def test_a_picture_opens_in_pixels(tmp_path):
    sitk.WriteImage(random_image((7, 6), np.uint8), str(tmp_path / "image.png"))
    layer = open_scan(tmp_path / "image.png")
    assert layer.ndim == 2
    assert [str(unit) for unit in layer.units] == ["pixel"] * 2
    assert layer.axis_labels == ("row", "column")
    # Its pixels are not square.
    assert layer.scale.tolist() == [1.5, 1]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_what_is_saved_lies_on_the_grid_of_the_file(oblique, tmp_path, suffix):
    layer = open_scan(oblique)
    target = str(tmp_path / f"out{suffix}")
    assert write_image(target, *layer.as_layer_data_tuple()[:2]) == [target]
    before, after = sitk.ReadImage(str(oblique)), sitk.ReadImage(target)
    assert np.array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after))
    np.testing.assert_allclose(before.GetDirection(), after.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(before.GetOrigin(), after.GetOrigin(), atol=1e-5)


def test_labels_keep_their_numbers_and_a_small_type(oblique, tmp_path):
    scan = open_scan(oblique)
    data = np.zeros(scan.data.shape, dtype=np.int64)
    data[1, 2, 3] = 7
    labels = Labels(data, metadata=scan.metadata)
    target = str(tmp_path / "labels.nii.gz")
    write_labels(target, *labels.as_layer_data_tuple()[:2])
    image = sitk.ReadImage(target)
    assert image.GetPixelID() == sitk.sitkUInt8
    assert sorted(np.unique(sitk.GetArrayFromImage(image))) == [0, 7]
    [(again, _, kind)] = get_reader(target)(target)
    assert kind == "labels"
    assert np.array_equal(again, data)


def test_a_layer_of_another_plugin_keeps_its_scale(tmp_path):
    layer = Image(np.random.default_rng(0).random((4, 5, 6)), scale=(3, 1, 2), translate=(7, 8, 9))
    target = str(tmp_path / "out.mha")
    write_image(target, *layer.as_layer_data_tuple()[:2])
    again = open_scan(target)
    np.testing.assert_allclose(again.data, layer.data, rtol=1e-6)
    np.testing.assert_allclose(again.scale, layer.scale)
    np.testing.assert_allclose(again.translate, layer.translate)


def test_too_many_dimensions_are_refused(tmp_path):
    layer = Image(np.zeros((2, 2, 2, 2)))
    with pytest.raises(InputError, match="2 or 3 dimensions, but this layer has 4"):
        write_image(str(tmp_path / "out.mha"), *layer.as_layer_data_tuple()[:2])


def test_a_dicom_folder_and_a_selection_of_its_files(tmp_path):
    pixels = write_series(tmp_path / "scan")
    assert np.array_equal(open_scan(tmp_path / "scan").data, pixels)
    files = sorted((tmp_path / "scan").iterdir())
    assert np.array_equal(open_scan(files).data, pixels)
    layer = open_scan(tmp_path / "scan")
    assert tuple(layer.contrast_limits) == (-100.0, 700.0)


def test_several_series_without_a_window_are_listed(tmp_path):
    write_series(tmp_path, uid="1.2.1")
    write_series(tmp_path, places=range(0, 9, 3), uid="1.2.2")
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is not None:
        pytest.skip("a window is open, which would ask")
    with pytest.raises(InputError, match=r"2 DICOM series: FLAIR \(5 slices\)"):
        get_reader(str(tmp_path))(str(tmp_path))


def test_picker_returns_the_series_chosen(tmp_path, qtbot, monkeypatch):
    from napari_dino_uad.widgets.series_picker import SeriesPicker

    pixels = write_series(tmp_path, uid="1.2.1")
    write_series(tmp_path, places=[0, 3, 12], uid="1.2.2")

    def choose_second(picker):
        qtbot.addWidget(picker)
        texts = [picker.table.item(1, column).text() for column in range(6)]
        assert texts[:5] == ["FLAIR", "MR", "3", "6.00 x 0.75 x 0.50", "2024-01-02"]
        assert picker.chosen.slices == len(pixels)
        picker.table.selectRow(1)
        return 1

    monkeypatch.setattr(SeriesPicker, "exec", choose_second)
    assert open_scan(tmp_path).data.shape == (3, 6, 8)
    monkeypatch.setattr(SeriesPicker, "exec", lambda picker: 0)
    assert get_reader(str(tmp_path))(str(tmp_path)) == [(None,)]


def test_volumes_of_one_dicom_file_are_offered(tmp_path, qtbot, monkeypatch):
    pixels = noise(4, 4, 6)
    groups = [frame_groups(3 * place, time=time) for time in (1, 2) for place in (0, 1)]
    path = enhanced(tmp_path / "e.dcm", pixels, groups)
    monkeypatch.setattr(series_picker, "pick_series", lambda _, series: series[1])
    [(data, keywords, kind)] = get_reader(str(path))(str(path))
    assert np.array_equal(data, pixels[2:])
    assert (kind, keywords["name"]) == ("image", "e scan time point 2")


def test_a_dicom_segmentation_opens_as_labels(tmp_path):
    groups = [frame_groups(0, segment=300)]
    segment = item(SegmentNumber=300, SegmentLabel="liver")
    path = enhanced(
        tmp_path / "s.dcm",
        np.array([[[0, 1], [1, 0]]], np.uint8),
        groups,
        SEGMENTATION,
        SegmentationType="FRACTIONAL",
        MaximumFractionalValue=1,
        SegmentSequence=segment,
    )
    [(data, _, kind)] = get_reader(str(path))(str(path))
    assert kind == "labels"
    assert data.tolist() == [[0, 300], [300, 0]]


def new_labels(viewer, voxel) -> Labels:
    """napari's own button, over the layer that is selected, and one voxel painted."""
    viewer._new_labels()
    layer = viewer.layers[-1]
    layer.data[voxel] = 1
    return layer


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_new_labels_over_an_oblique_scan_lie_where_painted(oblique, tmp_path, suffix):
    viewer = ViewerModel()
    scan = viewer.add_layer(open_scan(oblique))
    layer = new_labels(viewer, (2, 3, 4))
    data, keywords, _ = layer.as_layer_data_tuple()
    assert METADATA not in keywords["metadata"]
    write_labels(str(tmp_path / f"out{suffix}"), data, keywords)
    written = sitk.ReadImage(str(tmp_path / f"out{suffix}"))
    [[z, y, x]] = np.argwhere(sitk.GetArrayFromImage(written)).tolist()
    left, back, up = written.TransformIndexToPhysicalPoint((x, y, z))
    expected = scan.metadata[METADATA]["volume"].to_ras_mm((2, 3, 4))
    np.testing.assert_allclose((-left, -back, up), expected, atol=1e-3)


def test_new_labels_over_one_of_two_scans_take_its_own(oblique, tmp_path):
    image = sitk.ReadImage(str(oblique))
    image.SetDirection(rotation((0.1, 0.2, 0.05)).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "scan two.nii.gz"))
    viewer = ViewerModel()
    first = viewer.add_layer(open_scan(oblique))
    second = viewer.add_layer(open_scan(tmp_path / "scan two.nii.gz"))
    # Only the rotation tells them apart.
    second.translate = first.translate
    object.__setattr__(
        second.metadata[METADATA]["volume"],
        "origin_mm",
        first.metadata[METADATA]["volume"].origin_mm,
    )
    for scan in (first, second):
        viewer.layers.selection.active = scan
        data, keywords, _ = new_labels(viewer, (0, 0, 0)).as_layer_data_tuple()
        write_labels(str(tmp_path / "out.nrrd"), data, keywords)
        written = sitk.ReadImage(str(tmp_path / "out.nrrd")).GetDirection()
        grid = scan.metadata[METADATA]["volume"].grid
        np.testing.assert_allclose(written, grid.direction, atol=1e-6)


def notifications(monkeypatch) -> list[str]:
    """What napari shows from now on."""
    shown: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_warning", shown.append)
    return shown


def test_a_layer_on_another_grid_is_saved_as_it_lies(oblique, tmp_path, monkeypatch):
    shown = notifications(monkeypatch)
    scan = open_scan(oblique)
    other = Labels(np.ones((3, 4, 5), np.uint8), scale=scan.scale, name="other")
    write_labels(str(tmp_path / "out.nii.gz"), *other.as_layer_data_tuple()[:2])
    [text] = shown
    assert text.startswith("The layer other lies on the grid of no open scan")
    turned = Labels(np.ones_like(scan.data, np.uint8), rotate=20, name="turned")
    turned.scale, turned.translate = scan.scale, scan.translate
    write_labels(str(tmp_path / "out.nii.gz"), *turned.as_layer_data_tuple()[:2])
    assert len(shown) == 2


def test_notices_of_a_scan_are_one_notification(tmp_path, monkeypatch):
    shown = notifications(monkeypatch)
    image = sitk.Cast(random_image(), sitk.sitkFloat32)
    image[0, 0, 0] = np.nan
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    layer = open_scan(tmp_path / "scan.nrrd")
    assert shown == ["scan has 1 voxel of NaN or infinity; the lowest value, 0, takes their place."]
    assert layer.metadata[METADATA]["notices"] == tuple(shown)


def test_a_grey_jpeg_opens_with_a_warning(tmp_path, monkeypatch):
    shown = notifications(monkeypatch)
    values = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    PIL.Image.fromarray(values).save(tmp_path / "scan.jpg")
    layer = open_scan(tmp_path / "scan.jpg")
    assert shown[0].startswith("scan.jpg is compressed with loss (JPEG)")
    # Detect and View show these.
    assert layer.metadata[METADATA]["notices"] == tuple(shown)


def test_the_picker_of_volumes_gives_the_chosen_one(tmp_path, qtbot, monkeypatch):
    from napari_dino_uad.widgets.series_picker import VolumePicker

    images = [random_image(seed=seed) for seed in range(3)]
    sitk.WriteImage(sitk.JoinSeries(images), str(tmp_path / "dwi.nii.gz"))
    (tmp_path / "dwi.bval").write_text("0 1000 2000")
    shown = notifications(monkeypatch)

    def choose_second(picker):
        qtbot.addWidget(picker)
        assert picker.chosen == 1
        assert picker.list.item(1).text() == "volume 2 of 3, b = 1000"
        picker.list.setCurrentRow(1)
        return 1

    monkeypatch.setattr(VolumePicker, "exec", choose_second)
    layer = open_scan(tmp_path / "dwi.nii.gz")
    assert layer.name == "dwi volume 2 of 3, b = 1000"
    assert sorted(layer.data.ravel()) == sorted(sitk.GetArrayFromImage(images[1]).ravel())
    assert shown == []
    monkeypatch.setattr(VolumePicker, "exec", lambda picker: 0)
    assert get_reader(str(tmp_path / "dwi.nii.gz"))(str(tmp_path / "dwi.nii.gz")) == [(None,)]


def test_a_folder_of_scans_says_to_choose_one(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        sitk.WriteImage(random_image(), str(tmp_path / name))
    with pytest.raises(InputError, match=r"2 scan files, such as a.nii.gz; choose one of them"):
        get_reader(str(tmp_path))(str(tmp_path))


def test_what_is_no_scan_is_left_to_others(tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    (tmp_path / "empty").mkdir()
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader(str(tmp_path / "empty")) is None
    assert get_reader(str(tmp_path / "missing.nii")) is None
    assert get_reader([]) is None


def test_a_damaged_file_says_so(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError):
        get_reader(str(tmp_path / "scan.nii.gz"))(str(tmp_path / "scan.nii.gz"))


def test_sample_data_open_in_a_viewer():
    viewer = ViewerModel()
    for layers in (healthy_phantom(), phantom_with_lesions()):
        for data, keywords, kind in layers:
            viewer.add_layer((Image if kind == "image" else Labels)(data, **keywords))
    assert [layer.name for layer in viewer.layers] == [
        "phantom-000",
        "phantom-1000_lesions",
        "phantom-1000_lesions truth",
    ]
    assert viewer.layers[2].data.dtype == np.uint8
    assert viewer.layers[2].data.any()


def test_a_real_oblique_scan_goes_there_and_back(tmp_path):
    path = next(iter(sorted(real_scan("glioma").glob("*native*.nii.gz"))), None)
    if path is None:
        pytest.skip("the native FLAIR is absent")
    layer = open_scan(path)
    target = str(tmp_path / "again.nii.gz")
    write_image(target, *layer.as_layer_data_tuple()[:2])
    before, after = sitk.ReadImage(str(path)), sitk.ReadImage(target)
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(before).astype(np.float32), sitk.GetArrayFromImage(after)
    )
    np.testing.assert_allclose(before.GetDirection(), after.GetDirection(), atol=1e-6)


def test_results_and_masks_are_told_apart_by_name_and_colour(tmp_path, monkeypatch):
    scene = random_image()
    box = np.zeros(sitk.GetArrayFromImage(scene).shape, np.uint8)
    box[1:4, 1:4, 1:4] = 1
    many = box.copy()
    many[2:5], many[5:] = 2, 3
    files = {
        "head_findings": box, "head_tissue": box, "head_components": many,
        "head_lesion": box, "second reader mask": box,
    }  # fmt: skip
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    for name, array in files.items():
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(scene)
        path = str(tmp_path / f"{name}.nii.gz")
        sitk.WriteImage(image, path)
        [(data, keywords, kind)] = get_reader(path)(path)
        assert kind == "labels"
        viewer.add_layer(Labels(data, **keywords))
    assert [layer.name for layer in viewer.layers] == list(files)
    looks = {tuple(np.round(layer.get_color(1), 2)) for layer in viewer.layers}
    assert len(looks) == len(files)
    assert viewer.layers["head_tissue"].opacity < 0.5
    for layer in viewer.layers:
        assert layer.get_color(0) is None or layer.get_color(0)[3] == 0
        # Labels painted later are seen as well.
        assert layer.get_color(2)[3] > 0


def test_a_saved_map_opens_as_heat_and_is_no_scan(model, ill, tmp_path):
    anomaly = drain(detect(ill.volume, model))
    calibration = model.calibration
    threshold = calibration.threshold(0.01)
    found = find_findings(anomaly.scores, anomaly.volume, threshold, calibration)
    paths = write_results(tmp_path, anomaly, *found, 0.01, name="head")
    layer = open_scan(paths[0])
    assert not is_scan_layer(layer)
    assert layer.contrast_limits[0] == pytest.approx(threshold)
    # Nothing hides the scan where the map is below its threshold, air included.
    shown = layer.colormap.map(np.array([0.0, 0.5, 1.0]))
    assert shown[0, 3] == 0 and shown[2, 3] > 0.5
    # Without its record it is an image like any other.
    (tmp_path / "head.json").unlink()
    assert open_scan(paths[0]).colormap.name == "gray"


def test_the_thread_imports_what_the_window_needs_next():
    code = (
        "import sys, napari.layers, napari.viewer, napari.qt\n"
        "from napari_dino_uad import reader\n"
        "import napari_dino_uad.core.scans.volume\n"
        "reader._import_what_layers_need()\n"
        "before = set(sys.modules)\n"
        "import napari_dino_uad.widgets.opening, napari_dino_uad.widgets.results.store\n"
        "import napari._vispy.camera, scipy.spatial.transform\n"
        "print(*(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left = run.stdout.split()
    assert "napari_dino_uad.widgets.results.store" in left
    assert not [name for name in left if name.startswith(("scipy", "isal", "pydicom"))]


def test_a_picker_is_not_kept_by_the_window(qtbot, monkeypatch):
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication, QWidget

    window = QWidget()
    qtbot.addWidget(window)
    monkeypatch.setattr(series_picker, "main_window", lambda: window)
    for answer in (1, 0):
        monkeypatch.setattr(series_picker.VolumePicker, "exec", lambda _, given=answer: given)
        if answer:
            assert series_picker.pick_volume("dwi.nii.gz", ["b = 0", "b = 1000"]) == 1
        else:
            with pytest.raises(Cancelled):
                series_picker.pick_volume("dwi.nii.gz", ["b = 0", "b = 1000"])
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        assert not window.findChildren(series_picker.VolumePicker)
