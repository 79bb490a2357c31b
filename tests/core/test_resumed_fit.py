"""A fit that was stopped during training resumes at its last finished epoch."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time

import pytest
import torch

from napari_dino_uad import Case, drain, fit, load_backbone
from napari_dino_uad.core.normative import resumable
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.storage.training_states import TrainingStates

SETTINGS = {
    "dpmm": {"components": 40, "epochs": 4, "max_patches": 4000, "patience": None},
    "ar": {"epochs": 4, "hidden": 8},
    "fusion": {"members": ("dpmm", "ar")},
}


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A cache of this test's own."""
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def steps(healthy):
    """Begin a fit."""
    backbone = load_backbone(PHANTOM_BACKBONE)
    cases = [Case(head.volume) for head in healthy[:3]]
    size = {"input_size": backbone.spec.input_size}

    def begin(method="dpmm", count=3, window=None, **options):
        changes = {"settings": SETTINGS[method], **options}
        preprocessing = Preprocessing(**size, window=window)
        return fit(
            cases[:count], method=method, backbone=backbone, preprocessing=preprocessing, **changes
        )

    return begin


def stop(fitting, detail="epoch 3 of 4", step="") -> None:
    """Close a fit in the middle of an epoch."""
    for progress in fitting:
        if progress.detail.startswith(detail) and step in progress.step:
            break
    fitting.close()


def notes(fitting):
    """Run a fit; return its notes and the model."""
    found = []
    model = drain(fitting, lambda progress: found.append(progress.note))
    return [note for note in found if note], model


def same(one, other):
    for first, second in zip(one.views, other.views, strict=True):
        tensors = second.normative.tensors()
        assert first.normative.tensors().keys() == tensors.keys()
        for name, tensor in first.normative.tensors().items():
            assert torch.equal(tensor, tensors[name]), name
    assert (one.calibration.scores == other.calibration.scores).all()


def files(home):
    return sorted((home / "training").glob("*.safetensors"))


@pytest.mark.parametrize("method", ["dpmm", "ar"])
def test_a_stopped_fit_resumes_to_the_same_model(home, steps, method):
    _, whole = notes(steps(method, cache=False))
    stop(steps(method))
    assert len(files(home)) == 1
    found, resumed = notes(steps(method))
    assert found == ["Resuming the fit at epoch 3 of 4"]
    same(whole, resumed)
    assert files(home) == [], "a finished fit leaves nothing"


def test_a_killed_fit_resumes_from_its_last_file(home, steps, monkeypatch):
    monkeypatch.setattr(resumable, "_INTERVAL_S", 0.0)
    monkeypatch.setattr(resumable, "_SHARE", 1e9)
    _, whole = notes(steps(cache=False))
    fitting = steps()
    for progress in fitting:
        if progress.detail.startswith("epoch 3 of 4"):
            break
    # Closing would save too, so keep what a kill at this moment leaves.
    shutil.copytree(home / "training", home / "left")
    fitting.close()
    shutil.rmtree(home / "training")
    (home / "left").rename(home / "training")
    found, resumed = notes(steps())
    assert found == ["Resuming the fit at epoch 3 of 4"]
    same(whole, resumed)


def test_the_state_is_not_written_at_every_epoch(home, steps, monkeypatch):
    fitting = steps()
    for progress in fitting:
        if progress.detail.startswith("epoch 4 of 4"):
            break
    assert files(home) == [], "less than 20 s have passed"
    fitting.close()
    assert len(files(home)) == 1


def test_a_fit_stopped_in_its_second_plane_keeps_the_first(home, steps):
    planes = ("axial", "coronal")
    _, whole = notes(steps(planes=planes, cache=False))
    seen = []
    fitting = steps(planes=planes)
    for progress in fitting:
        seen.append(progress.detail.startswith("epoch 3 of 4"))
        if seen[-1] and not seen[-2] and sum(b > a for a, b in zip(seen, seen[1:])) == 2:
            break
    fitting.close()
    assert len(files(home)) == 2
    found, resumed = notes(steps(planes=planes))
    assert found == [
        "Resuming the fit after its last epoch, 4",
        "Resuming the fit at epoch 3 of 4",
    ]
    same(whole, resumed)
    assert files(home) == []


def test_a_stopped_fusion_resumes_every_member(home, steps, monkeypatch):
    from napari_dino_uad.core.normative.autoregressive import settings as ar
    from napari_dino_uad.core.normative.mixture import settings as dpmm

    for module, name, small in (
        (dpmm, "DPMMConfig", SETTINGS["dpmm"]),
        (ar, "AutoregressiveConfig", SETTINGS["ar"]),
    ):
        kind = getattr(module, name)
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        values = tuple({**defaults, **small}.values())
        monkeypatch.setattr(kind.__init__, "__defaults__", values)
    _, whole = notes(steps("fusion", cache=False))
    stop(steps("fusion"), step="ar: Training")
    found, resumed = notes(steps("fusion"))
    assert found == [
        "Resuming the fit after its last epoch, 4",
        "Resuming the fit at epoch 3 of 4",
    ]
    same(whole, resumed)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"settings": {**SETTINGS["dpmm"], "components": 41}},
        {"count": 2},
        {"window": (40.0, 80.0)},
    ],
    ids=["seed", "setting", "scans", "window"],
)
def test_another_fit_does_not_resume(home, steps, other):
    stop(steps())
    found, _ = notes(steps(**other))
    assert found == []
    assert len(files(home)) == 1


def test_a_damaged_state_is_named_and_not_used(home, steps):
    _, whole = notes(steps(cache=False))
    stop(steps())
    (path,) = files(home)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    found, model = notes(steps())
    assert found == [
        "The stopped fit kept on disk cannot be resumed (its checksum does not match); "
        "starting a new one."
    ]
    same(whole, model)


def test_a_state_of_other_slices_is_named_and_not_used(home, steps):
    stop(steps())
    (path,) = files(home)
    states = TrainingStates(home)
    state = states.file(path.stem).load()
    state["origin"] += 1e-3
    states.file(path.stem).save(state)
    found, _ = notes(steps())
    assert found == [
        "The stopped fit kept on disk cannot be resumed (it is of other slices); "
        "starting a new one."
    ]


def test_a_full_disk_does_not_end_the_fit(home, steps, monkeypatch):
    monkeypatch.setattr(resumable, "_INTERVAL_S", 0.0)
    home.mkdir()
    (home / "training").write_text("in the way")
    found, _ = notes(steps())
    assert len(set(found)) == 1
    assert found[0].startswith("The fit goes on, but cannot be resumed if it is stopped: ")


def test_nothing_is_kept_without_the_cache(home, steps):
    stop(steps(cache=False))
    assert not home.exists()


def test_states_older_than_14_days_are_removed(home, steps):
    states = TrainingStates(home)
    for name, days in (("old", 15), ("new", 13)):
        states.file(name).save({"a": torch.zeros(2)})
        then = time.time() - 86_400 * days
        os.utime(states.file(name).path, (then, then))
    drain(steps())
    assert [path.stem for path in files(home)] == ["new"]


def test_a_renamed_state_is_refused(tmp_path):
    states = TrainingStates(tmp_path)
    states.file("one").save({"a": torch.arange(3)})
    assert torch.equal(states.file("one").load()["a"], torch.arange(3))
    states.file("one").path.rename(states.file("two").path)
    with pytest.raises(ValueError, match="checksum"):
        states.file("two").load()
    assert states.file("one").load() is None
