"""A fit that was stopped during training resumes when it is called again."""

from __future__ import annotations

import pytest
import torch

from napari_dino_uad import Case, drain, fit, load_backbone
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.storage.training_states import TrainingStates
from stopped_fits import notes

SMALL = {"components": 4, "epochs": 4, "max_patches": 2000, "patience": None}


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A cache of this test's own."""
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def steps(healthy):
    """Begin a fit on some slices of three heads."""
    backbone = load_backbone(PHANTOM_BACKBONE)
    cases = []
    for number, head in enumerate(healthy[:3]):
        middle = len(head.volume.array) // 2
        array = head.volume.array[middle - 4 : middle + 4]
        cases.append(Case(volume_from_array(array, head.volume.spacing_mm, name=f"h{number}")))

    def begin(count=3, window=None, settings=SMALL, **options):
        preprocessing = Preprocessing(input_size=64, window=window)
        return fit(
            cases[:count],
            settings=settings,
            backbone=backbone,
            preprocessing=preprocessing,
            **options,
        )

    return begin


def stop(fitting, planes=1) -> None:
    """Close a fit in the third epoch of the n-th plane."""
    reached, before = 0, ""
    for progress in fitting:
        if progress.detail.startswith("epoch 3 of 4") and not before.startswith("epoch 3"):
            reached += 1
        before = progress.detail
        if reached == planes:
            break
    fitting.close()


def assert_same(one, other):
    for first, second in zip(one.views, other.views, strict=True):
        for name, tensor in first.normative.tensors().items():
            assert torch.equal(tensor, second.normative.tensors()[name]), name
    assert (one.calibration.scores == other.calibration.scores).all()


def test_fit_stopped_in_second_plane_resumes(home, steps):
    planes = ("axial", "coronal")
    whole = drain(steps(planes=planes))
    states = TrainingStates(home)
    assert states.count() == 0, "a finished fit leaves nothing"
    stop(steps(planes=planes), planes=2)
    assert states.count() == 2
    found, resumed = notes(steps(planes=planes))
    assert found == [
        "Resuming the fit after its last epoch, 4",
        "Resuming the fit at epoch 3 of 4",
    ]
    assert_same(whole, resumed)
    assert states.count() == 0


def test_other_scans_or_settings_do_not_resume(home, steps):
    stop(steps())
    for number, other in enumerate(
        ({"seed": 1}, {"settings": {**SMALL, "components": 5}}, {"count": 2}, {"window": (40, 80)})
    ):
        fitting = steps(**other)
        for progress in fitting:
            assert not progress.note
            if progress.detail.startswith("epoch 2"):
                break
        fitting.close()
        assert TrainingStates(home).count() == number + 2


def test_nothing_is_kept_without_the_cache(home, steps):
    stop(steps(cache=False))
    assert not (home / "training").exists()


def test_cache_info_and_clear_count_stopped_fits(home, steps):
    from typer.testing import CliRunner

    from napari_dino_uad.cli import app

    stop(steps())
    size = TrainingStates(home).size_bytes()
    assert size > 0
    shown = CliRunner().invoke(app, ["cache", "info"]).output
    assert "1 of stopped fits" in shown
    assert CliRunner().invoke(app, ["cache", "clear"]).exit_code == 0
    assert TrainingStates(home).count() == 0
