"""Masks beside scans are labels, and are never learnt from, looked at or shown as scans."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Image, Labels
from typer.testing import CliRunner

from napari_dino_uad import Case, detect, drain, find_cases, fit, read_volume, save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.results import write_results
from napari_dino_uad.core.scans.labels import holds_labels, is_named_mask
from napari_dino_uad.core.scans.sorting import LabelsAmongScansError
from napari_dino_uad.reader import get_reader
from napari_dino_uad.writer import write_labels
from scan_files import real_scan, rotation

SHAPE = (12, 40, 48)


def smooth(seed=0):
    """A head-like scan: smooth, noisy, on a dark background."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.8
    values = 120 + 60 * np.sin(3 * x + seed) * np.cos(4 * y) + rng.normal(0, 6, SHAPE)
    return np.where(inside, values, rng.uniform(0, 6, SHAPE))


def labels(count=1, seed=0):
    array = np.zeros(SHAPE, np.uint8)
    for number, corner in enumerate(np.random.default_rng(seed).integers(0, 30, (count, 2)), 1):
        array[3:8, corner[0] : corner[0] + 7, corner[1] : corner[1] + 7] = number
    return array


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def cohort(folder, scan="{}_flair.nii.gz", mask="{}_lesion.nii.gz", count=3):
    for number in range(count):
        write(folder / scan.format(f"p{number}"), smooth(number).astype(np.uint8))
        write(folder / mask.format(f"p{number}"), labels(1, number))
    return folder


def quantised(levels):
    values = smooth()
    return np.clip(values / values.max() * levels, 0, levels - 1).astype(np.uint8)


@pytest.mark.parametrize(
    "array",
    [labels(), labels(3), labels() * np.uint8(255), labels().astype(np.float32)],
    ids=["one", "three", "white", "float"],
)
def test_few_whole_numbers_in_pieces_are_labels(array):
    assert holds_labels(array)


def test_a_map_of_components_is_labels_by_its_name(tmp_path):
    kinds = np.kron(np.arange(1, 28).reshape(3, 3, 3), np.ones((4, 8, 8))).astype(np.uint8)
    assert not holds_labels(kinds) and holds_labels(kinds, named=True)
    assert is_named_mask(tmp_path / "head_components.nii.gz")


def test_an_atlas_is_labels_by_its_name():
    regions = np.arange(120).reshape(2, 10, 6).repeat(6, 0).repeat(4, 1).repeat(8, 2) * 17
    assert holds_labels(regions.astype(np.int32), named=True)
    assert not holds_labels(regions.astype(np.int32))
    assert holds_labels(np.zeros(SHAPE, np.uint8), named=True)
    assert not holds_labels(np.zeros(SHAPE, np.uint8))


def test_a_picture_of_a_mask_with_smooth_edges_is_labels():
    white = labels()[5].astype(float) * 255
    white[labels()[5] > 0] -= np.random.default_rng(0).integers(0, 14, 49)
    assert holds_labels(white.astype(np.uint8))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "array",
    [smooth(), smooth().astype(np.uint8), quantised(32), quantised(16), quantised(8),
     np.random.default_rng(0).integers(0, 12, SHAPE)],
    ids=["float", "8 bit", "32 levels", "16 levels", "8 levels", "noise"],
)  # fmt: skip
def test_scans_are_no_labels_whatever_their_names(array, named):
    assert not holds_labels(array, named)


def test_a_nearly_empty_slice_is_no_mask():
    dark = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)
    assert not holds_labels(dark)


@pytest.mark.parametrize(
    ("scan", "mask", "patterns"),
    [
        ("{}_flair.nii.gz", "{}_lesion.nii.gz", ("*_flair.nii.gz", "*_lesion.nii.gz")),
        ("{}.nii.gz", "{}_seg.nii.gz", ("*.nii.gz", "*_seg.nii.gz")),
        ("sub-{}_ses-1_T1w.nii.gz", "sub-{}_ses-1_label-lesion_mask.nii.gz", None),
        ("{}-t1.mha", "{}-annotator.mha", ("*-t1.mha", "*-annotator.mha")),
        ("{}_t2.nii", "labelsTr/{}.nii", None),
    ],
)
def test_masks_among_scans_are_refused_and_named(tmp_path, scan, mask, patterns):
    cohort(tmp_path, scan, mask)
    with pytest.raises(LabelsAmongScansError, match="3 of 6 files hold labels or results") as error:
        find_cases([tmp_path])
    assert error.value.files.patterns == patterns
    assert all(path.name == scan.format(f"p{n}") for n, path in enumerate(error.value.files.scans))
    if patterns is not None:
        assert all(pattern in str(error.value) for pattern in patterns)
        cases = find_cases([tmp_path], *patterns)
        assert [case.mask.name for case in cases] == [mask.format(f"p{n}") for n in range(3)]


def test_wide_patterns_are_refused(tmp_path):
    cohort(tmp_path)
    for arguments in ((sorted(tmp_path.iterdir()),), ([tmp_path], "*.nii.gz")):
        with pytest.raises(LabelsAmongScansError):
            find_cases(*arguments)


@pytest.mark.parametrize("folder", ["", "results"])
def test_an_earlier_result_of_a_scan_is_no_scan(tmp_path, folder):
    write(tmp_path / "p_flair.nii.gz", smooth().astype(np.uint8))
    write(tmp_path / folder / "p_flair_anomaly.nii.gz", smooth(1).astype(np.float32))
    with pytest.raises(
        LabelsAmongScansError, match=r"p_flair_anomaly.nii.gz holds labels or a res"
    ):
        find_cases([tmp_path])


def test_scans_of_several_sequences_stay_scans(tmp_path):
    for number in range(2):
        for kind in ("t1", "t2"):
            write(tmp_path / f"p{number}_{kind}.nii.gz", quantised(16) + np.uint8(number))
    write(tmp_path / "lesion_study_1.nii.gz", quantised(8))
    assert len(find_cases([tmp_path])) == 5


def test_pictures_and_masks_in_one_folder_are_no_stack(tmp_path):
    for number in range(3):
        write(tmp_path / f"s{number}.png", smooth()[5 + number % 2].astype(np.uint8))
        write(tmp_path / f"s{number}_mask.png", labels()[5] * np.uint8(255))
    with pytest.raises(LabelsAmongScansError, match="3 of 6") as error:
        find_cases([tmp_path])
    assert error.value.files.patterns == ("*.png", "*_mask.png")
    assert len(find_cases([tmp_path], "*.png", "*_mask.png")) == 3


def test_a_stack_of_masks_is_no_scan(tmp_path):
    for number in range(6):
        write(tmp_path / "img" / f"{number}.png", smooth()[3 + number].astype(np.uint8))
        write(tmp_path / "fluid" / f"{number}.png", labels()[number] * np.uint8(255))
    with pytest.raises(LabelsAmongScansError, match="fluid holds labels"):
        find_cases([tmp_path])


def test_maps_alone_are_results_by_their_record(tmp_path, ill, model):
    anomaly = drain(detect(ill.volume, model))
    write_results(tmp_path, anomaly, np.zeros(anomaly.scores.shape, np.uint8), [], 0.01)
    with pytest.raises(LabelsAmongScansError, match="give the scans themselves"):
        find_cases([tmp_path])
    for record in tmp_path.glob("*.json"):
        record.unlink()
    for labels in tmp_path.glob("*_findings.nii.gz"):
        labels.unlink()
    # Without its record it may be any image.
    assert len(find_cases([tmp_path])) == 1


@pytest.mark.parametrize("name", ["p_lesion.nii.gz", "odd.nii.gz"])
def test_fit_refuses_a_file_of_labels(tmp_path, healthy, name):
    case = Case(write(tmp_path / name, labels()))
    with pytest.raises(InputError, match=f"{name} holds labels, not a scan"):
        drain(fit([case], valid=[Case(healthy[0].volume)]))
    with pytest.raises(InputError, match="holds labels, not a scan"):
        drain(fit([Case(read_volume(case.scan))], valid=[Case(healthy[0].volume)]))


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_the_commands_say_which_pattern_to_give(heads, tmp_path, model):
    save_model(model, tmp_path / "m.safetensors")
    evaluating = ["evaluate", "-m", tmp_path / "m.safetensors", "-o", tmp_path / "e"]
    for command in (["fit", "-o", tmp_path / "n.safetensors"], evaluating):
        result = run(*command, heads / "ill")
        assert result.exit_code == 2
        assert "p_lesion.nii.gz holds labels" in result.stderr
        assert "'*_flair.nii.gz'" in result.stderr
        assert "'*_lesion.nii.gz'" in result.stderr


def test_detect_leaves_masks_out_with_a_word(heads, tmp_path, model):
    save_model(model, tmp_path / "m.safetensors")
    arguments = ["-m", tmp_path / "m.safetensors", "-o", tmp_path / "out"]
    result = run("detect", heads / "ill", *arguments)
    assert result.exit_code == 0, result.output
    assert "Note: " in result.stderr
    assert "p_lesion.nii.gz holds labels" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["p_flair.json"]
    result = run("detect", heads / "ill" / "p_lesion.nii.gz", *arguments)
    assert result.exit_code == 2
    assert "p_lesion.nii.gz holds labels" in result.stderr
    write(tmp_path / "odd.nii.gz", labels())
    result = run("detect", tmp_path / "odd.nii.gz", *arguments)
    assert result.exit_code == 2
    assert "odd.nii.gz holds labels, not a scan" in result.stderr


def open_layer(path):
    [(data, keywords, kind)] = get_reader(str(path))(str(path))
    return {"image": Image, "labels": Labels}[kind](data, **keywords)


@pytest.mark.parametrize(
    ("name", "array", "dtype"),
    [
        ("tumour.nii.gz", labels(3), np.uint8),
        ("p_lesion.nrrd", labels(), np.uint8),
        ("p_mask.nii.gz", np.zeros(SHAPE, np.uint8), np.uint8),
        ("aparc.mha", labels(5).astype(np.uint16) * 400, np.uint16),
    ],
)
def test_labels_open_as_labels_and_save_back(tmp_path, name, array, dtype):
    image = sitk.GetImageFromArray(array)
    image.SetDirection((rotation() @ np.diag([-1, 1, -1])).ravel().tolist())
    image.SetOrigin((5, 6, 7))
    sitk.WriteImage(image, str(tmp_path / name))
    layer = open_layer(tmp_path / name)
    assert isinstance(layer, Labels)
    assert layer.data.dtype == dtype
    write_labels(str(tmp_path / "back.nii.gz"), *layer.as_layer_data_tuple()[:2])
    back = sitk.ReadImage(str(tmp_path / "back.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(back), array)
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-4)


def test_scans_open_as_images(tmp_path):
    for name, array in (("lesion_1.nii.gz", quantised(8)), ("p_seg.nii.gz", smooth())):
        assert isinstance(open_layer(write(tmp_path / name, array)), Image)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ms/patient19_lesion.nii.gz", Labels), ("ms/patient19_flair.nii.gz", Image),
     ("glioma/fg6692_lesion_consensus.nii.gz", Labels), ("glioma/fg6692_flair.nii.gz", Image),
     ("oct/fluid/img_0.png", Labels), ("oct/img/img_0.png", Image)],
)  # fmt: skip
def test_real_files_open_as_what_they_are(name, kind):
    assert isinstance(open_layer(real_scan(name)), kind)


@pytest.mark.parametrize(
    ("folder", "masks"),
    [("lgg/test", 15), ("ms", 1), ("glioma", 1), ("oct", 1), ("t1_controls", 0)],
)
def test_real_folders_are_sorted(folder, masks):
    path = real_scan(folder)
    if masks == 0:
        assert len(find_cases([path])) == 4
        return
    with pytest.raises(LabelsAmongScansError) as error:
        find_cases([path])
    assert len(error.value.files.masks) == masks
