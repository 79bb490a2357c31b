"""A model that is trained in epochs resumes from its file."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch

from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.normative import resumable
from napari_dino_uad.core.normative.autoregressive.model import (
    Autoregressive,
    AutoregressiveConfig,
)
from napari_dino_uad.core.normative.fusion import Fusion, FusionConfig
from napari_dino_uad.core.normative.mixture.dpmm import DPMM, DPMMConfig
from napari_dino_uad.core.normative.resumable import fit_resumably
from napari_dino_uad.core.progress import drain
from napari_dino_uad.core.storage.training_states import TrainingStates
from stopped_fits import notes


def dpmm() -> DPMM:
    return DPMM(DPMMConfig(components=4, epochs=4, max_patches=2000, patience=None))


def ar() -> Autoregressive:
    return Autoregressive(AutoregressiveConfig(epochs=4, hidden=8, components=6))


def fusion() -> Fusion:
    return Fusion(FusionConfig(members=("dpmm", "ar")))


def slices(count: int, seed: int) -> FeatureSet:
    """Random embeddings of tissue."""
    values = np.random.default_rng(seed).normal(size=(count, 6, 12, 12)).astype(np.float16)
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (6,))
    features.add(values, np.ones((count, 12, 12), bool))
    return features


def fitting(build, file=None, seed=0):
    return fit_resumably(build, slices(8, seed), slices(8, 1), file)


def stop(steps, detail="epoch 3 of 4", step="") -> None:
    """Close a fit in the middle of an epoch."""
    for progress in steps:
        if progress.detail.startswith(detail) and step in progress.step:
            break
    steps.close()


def assert_same(one, other):
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


@pytest.fixture
def file(tmp_path):
    return TrainingStates(tmp_path).file("fit")


@pytest.mark.parametrize("build", [dpmm, ar])
def test_a_stopped_fit_resumes_to_the_same_model(build, file):
    whole = drain(fitting(build))
    stop(fitting(build, file))
    found, resumed = notes(fitting(build, file))
    assert found == ["Resuming the fit at epoch 3 of 4"]
    assert_same(whole, resumed)
    # The file stays until the whole fit is finished.
    found, again = notes(fitting(build, file))
    assert found == ["Resuming the fit after its last epoch, 4"]
    assert_same(whole, again)


def test_a_stopped_fusion_resumes_every_member(file, monkeypatch):
    members = {"dpmm": dpmm, "ar": ar}
    monkeypatch.setattr(
        "napari_dino_uad.core.normative.methods.new_normative", lambda name, *_: members[name]()
    )
    whole = drain(fitting(fusion))
    stop(fitting(fusion, file), step="ar: Training")
    found, resumed = notes(fitting(fusion, file))
    assert found == [
        "Resuming the fit after its last epoch, 4",
        "Resuming the fit at epoch 3 of 4",
    ]
    assert_same(whole, resumed)


def test_a_killed_fit_resumes_from_the_file_of_an_epoch(file, monkeypatch):
    monkeypatch.setattr(resumable, "_INTERVAL_S", 0.0)
    monkeypatch.setattr(resumable, "_SHARE", 1e9)
    whole = drain(fitting(dpmm))
    killed = fitting(dpmm, file)
    for progress in killed:
        if progress.detail.startswith("epoch 3 of 4"):
            break
    # Closing writes the file too; a kill does not.
    written = file.path.read_bytes()
    killed.close()
    file.path.write_bytes(written)
    found, resumed = notes(fitting(dpmm, file))
    assert found == ["Resuming the fit at epoch 3 of 4"]
    assert_same(whole, resumed)


def test_the_file_is_not_written_at_every_epoch(file):
    steps = fitting(dpmm, file)
    for progress in steps:
        if progress.detail.startswith("epoch 4 of 4"):
            break
    assert not file.path.exists(), "less than 20 s have passed"
    steps.close()
    assert file.path.exists()


def test_a_damaged_file_is_named_and_not_used(file):
    stop(fitting(dpmm, file))
    content = bytearray(file.path.read_bytes())
    content[-5] ^= 1
    file.path.write_bytes(content)
    found, model = notes(fitting(dpmm, file))
    assert found == [
        "The stopped fit kept on disk cannot be resumed: its checksum does not match; "
        "a new one starts."
    ]
    assert_same(drain(fitting(dpmm)), model)


@pytest.mark.parametrize("build", [dpmm, ar])
def test_a_file_of_other_slices_is_named_and_not_used(build, file):
    stop(fitting(build, file, seed=5))
    found, model = notes(fitting(build, file))
    assert found == [
        "The stopped fit kept on disk cannot be resumed: it is of other slices; a new one starts."
    ]
    assert_same(drain(fitting(build)), model)


def test_a_disk_that_fails_does_not_end_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "_INTERVAL_S", 0.0)
    (tmp_path / "training").write_text("in the way")
    found, _ = notes(fitting(dpmm, TrainingStates(tmp_path).file("fit")))
    assert len(found) == 1
    assert found[0].startswith("The fit goes on, but cannot be resumed if it is stopped: ")


def test_states_older_than_14_days_are_swept(tmp_path):
    states = TrainingStates(tmp_path)
    for name, days in (("old", 15), ("new", 13)):
        states.file(name).save({"a": torch.zeros(2)})
        then = time.time() - 86_400 * days
        os.utime(states.file(name).path, (then, then))
    states.sweep()
    assert states.count() == 1
    assert states.file("new").path.exists()


def test_a_renamed_state_is_refused(tmp_path):
    states = TrainingStates(tmp_path)
    states.file("one").save({"a": torch.arange(3)})
    assert torch.equal(states.file("one").load()["a"], torch.arange(3))
    states.file("one").path.rename(states.file("two").path)
    with pytest.raises(ValueError, match="checksum"):
        states.file("two").load()
    assert states.file("one").load() is None
