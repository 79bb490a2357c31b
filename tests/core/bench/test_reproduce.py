"""The papers' protocol on small folders in the layouts of their data."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_dino_uad import load_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.bench.reproduce import bmad_split, published
from napari_dino_uad.core.errors import InputError

QUICK = {"dpmm": ("components=20", "epochs=1"), "ar": ("epochs=1", "hidden=16")}
GOOD = {
    "brats": ("train/good", "valid/good/img", "test/good/img"),
    "liver": ("train/good", "valid/img/good", "test/img/good"),
    "resc": ("Train/train/good", "Val/val/good", "Test/test/good"),
}
ILL = {
    "brats": ("test/Ungood/img", "test/Ungood/label"),
    "liver": ("test/img/Ungood", "test/label/Ungood"),
    "resc": ("Test/test/Ungood", "Test/test_label/Ungood"),
}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.clip(array, 0, 255).astype(np.uint8)), str(path))


@pytest.fixture(params=sorted(GOOD))
def tree(request, tmp_path, healthy, ill):
    """A data set of slices of synthetic heads in the layout of one of the papers'."""
    root, dataset = tmp_path / "data", request.param
    train, valid, test = GOOD[dataset]
    top = float(healthy[0].volume.array.max())
    for number in range(4):
        write(root / train / f"{number}.png", healthy[number].volume.array[14] / top * 255)
        write(root / test / f"{number}.png", healthy[number].volume.array[16] / top * 255)
    for number in range(2):
        write(root / valid / f"{number}.png", healthy[number].volume.array[12] / top * 255)
    worst = np.argsort(-ill.lesion.sum(axis=(1, 2)))[:2]
    images, labels = ILL[dataset]
    for number, place in enumerate(worst):
        write(root / images / f"{number}.png", ill.volume.array[place] / top * 255)
        write(root / labels / f"{number}.png", ill.lesion[place] * 255)
    return dataset, root


@pytest.mark.parametrize("method", ["dpmm", "ar"])
def test_a_data_set_gives_a_table(tree, method, tmp_path):
    dataset, root = tree
    command = [
        *("reproduce", "bmad", "--dataset", dataset, "--root", root, "--method", method),
        *("--backbone", "efficientnet-lite0", "--input-size", "96", "-o", tmp_path / "out"),
    ]
    command += [part for value in QUICK[method] for part in ("--set", value)]
    told = CliRunner().invoke(app, list(map(str, command)), terminal_width=200)
    assert told.exit_code == 0, told.output
    assert "PatchCore" in told.output and f"here: {method}" in told.output
    assert "4 images to fit on, 2 to calibrate on, 6 to test" in " ".join(told.output.split())
    model = load_model(tmp_path / "out" / "model.safetensors")
    assert model.maps.smoothing_mm == 0 and not model.maps.centring
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_shots_spread_over_the_training_part(tree):
    dataset, root = tree
    assert [case.name for case in bmad_split(root, dataset, shots=2).train] == ["0", "2"]
    with pytest.raises(InputError, match="Between 1 and 4 shots"):
        bmad_split(root, dataset, shots=9)


def test_published_figures_are_shares():
    for dataset in GOOD:
        rows = {one["method"]: one for one in published(dataset)}
        assert len(rows) == 14
        for one in rows.values():
            assert one["auroc"] is None or 0.4 < one["auroc"][0] < 1
    assert published("resc")[5]["aupr"] == pytest.approx((0.7277, 0.0006))
    assert published("brats")[5]["aupr"] is None


def test_a_folder_that_lacks_a_part_is_refused(tmp_path):
    write(tmp_path / "train" / "good" / "1.png", np.full((64, 64), 9))
    with pytest.raises(InputError, match="one folder valid or val"):
        bmad_split(tmp_path, "brats")
    with pytest.raises(InputError, match="no data set 'lung'"):
        bmad_split(tmp_path, "lung")
