"""Finding scans and their masks, beside each other and in folders of their own."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from napari_dino_uad import Case, drain, evaluate, find_cases
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.healthy import healthy_slices, tissue_slices
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values.astype(np.uint8)), str(path))
    return path


def picture(seed=0):
    return np.random.default_rng(seed).integers(40, 200, (64, 96))


def spot():
    values = np.zeros((64, 96))
    values[10:20, 30:40] = 255
    return values


def test_masks_in_another_folder(tmp_path):
    for number in range(3):
        write(tmp_path / "img" / f"img_{number}.png", picture(number))
    write(tmp_path / "fluid" / "img_1.png", spot())
    cases = find_cases([tmp_path / "img"], "img_*.png", "../fluid/img_*.png")
    assert [case.name for case in cases] == ["img_0", "img_1", "img_2"]
    assert [case.mask for case in cases] == [None, tmp_path / "fluid" / "img_1.png", None]
    absolute = find_cases([tmp_path / "img"], "img_*.png", f"{tmp_path}/fluid/img_*.png")
    assert absolute == cases
    assert cases[1].read_mask(cases[1].read()).sum() == 100
    with pytest.raises(InputError, match=r"img_0.png has no mask .*fluid/img_0.png"):
        find_cases([tmp_path / "img"], "img_*.png", "../fluid/img_*.png", require_masks=True)
    with pytest.raises(InputError, match="No mask matches"):
        find_cases([tmp_path / "img"], "img_*.png", "../nowhere/img_*.png")


def bmad_tree(root, layout):
    """Write two healthy and one ill image in one of the three layouts; return the test folder."""
    images = {
        "brain": ("test/good/img", "test/Ungood/img", "test/Ungood/label"),
        "liver": ("test/img/good", "test/img/Ungood", "test/label/Ungood"),
        "retina": ("Test/test/good", "Test/test/Ungood", "Test/test_label/Ungood"),
    }
    good, ungood, label = images[layout]
    write(root / good / "2.png", picture(2))
    write(root / good / "10.png", picture(10))
    write(root / ungood / "3.png", picture(3))
    write(root / label / "3.png", spot())
    if layout == "brain":
        write(root / "test/good/label/2.png", np.zeros((64, 96)))
    if layout == "liver":
        write(root / "test/label/good/2.png", np.zeros((64, 96)))
    return root / good.split("/")[0]


@pytest.mark.parametrize("layout", ["brain", "liver", "retina"])
def test_bmad_layouts(tmp_path, layout):
    cases = find_cases([bmad_tree(tmp_path, layout)], require_masks=True)
    found = {case.name: int(case.read_mask(case.read()).sum()) for case in cases}
    assert sorted(found.items()) == [("10", 0), ("2", 0), ("3", 100)]
    assert sum(case.healthy for case in cases) == 2
    # Images of a training folder are scans of their own, not slices of one.
    write(tmp_path / "train/good/1.png", picture(5))
    write(tmp_path / "train/good/2.png", picture(6))
    for folder in (tmp_path / "train", tmp_path / "train" / "good"):
        train = find_cases([folder])
        assert [(case.name, case.healthy) for case in train] == [("1", True), ("2", True)]


def test_a_bmad_folder_is_evaluated(tmp_path, model):
    folder = bmad_tree(tmp_path, "liver")
    evaluation = drain(evaluate(find_cases([folder], require_masks=True), model, cache=False))
    assert evaluation.metrics["cases"] == 3
    assert evaluation.metrics["conventions"]["tissue"]["lesion_pixels"] == 100
    assert 0 <= evaluation.metrics["conventions"]["tissue"]["auroc"] <= 1


def test_a_folder_of_stacks_is_not_of_bmad(tmp_path):
    for number in range(2):
        write(tmp_path / "good" / "anna" / f"{number}.png", picture(number))
    [case] = find_cases([tmp_path])
    assert case.read().shape == (2, 64, 96)
    with pytest.raises(InputError, match=r"lesion mask.*anna has none"):
        find_cases([tmp_path], require_masks=True)


def test_a_single_slice_needs_only_some_tissue():
    dim = np.zeros((1, 100, 100), np.float32)
    dim[0, :10, 40:60] = np.random.default_rng(0).uniform(1, 2, (10, 20))
    one = prepare(volume_from_array(dim), Preprocessing())
    assert tissue_slices(one).tolist() == [True]
    assert healthy_slices(one, np.zeros(dim.shape, bool), "axial").tolist() == [0]
    assert healthy_slices(one, dim > 1.5, "axial").tolist() == []
    two = prepare(volume_from_array(np.concatenate([dim, dim])), Preprocessing())
    assert tissue_slices(two).tolist() == [False, False]


def test_a_case_without_a_mask():
    volume = volume_from_array(picture())
    assert Case(volume).read_mask(volume) is None
    assert not Case(volume, healthy=True).read_mask(volume).any()
