"""Pictures of healthy patches belong to their model, and are of its scans."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dino_uad import Case, drain, load_backbone, save_model
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.explain.pictures import (
    HealthyPictures,
    collect_pictures,
    load_pictures,
    pictures_path,
    save_pictures,
)
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE


@pytest.fixture(scope="module")
def pictures(model, healthy):
    cases = [Case(head.volume) for head in healthy[:2]]
    return drain(collect_pictures(model, cases, load_backbone(PHANTOM_BACKBONE)))


def test_pictures_show_tissue_of_every_kind(pictures, model):
    count = len(model.views[0].prototypes)
    assert count < len(pictures.images) <= 4 * count
    assert pictures.images.shape[1:] == (32, 32)
    assert (pictures.images.float().mean((1, 2)) > 5).all()
    lengths = pictures.embeddings.float().norm(dim=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)


def test_a_stored_patch_is_most_like_itself(pictures):
    found = pictures.nearest(pictures.embeddings[7].numpy(), 3)
    assert round(found[0][0], 2) == 1.0
    assert found[0][0] >= found[1][0] >= found[2][0]
    np.testing.assert_array_equal(found[0][1], pictures.images[7])


def test_pictures_return_from_their_file(pictures, model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_model(model, path)
    assert load_pictures(path) is None
    assert save_pictures(pictures, path) == pictures_path(path)
    assert pictures_path(path).name == "mine.pictures.safetensors"
    again = load_pictures(path)
    assert torch.equal(again.embeddings, pictures.embeddings)
    assert torch.equal(again.images, pictures.images)


def test_no_name_of_a_scan_is_in_the_file(pictures, model, healthy, tmp_path):
    save_model(model, tmp_path / "mine.safetensors")
    content = save_pictures(pictures, tmp_path / "mine.safetensors").read_bytes()
    assert healthy[0].volume.name.encode() not in content


def test_pictures_of_another_model_are_refused(pictures, model, tmp_path):
    mine, other = tmp_path / "mine.safetensors", tmp_path / "other.safetensors"
    save_model(model, mine)
    saved = save_pictures(pictures, mine)
    model.cohort["seed"] += 1
    try:
        save_model(model, other)
    finally:
        model.cohort["seed"] -= 1
    saved.rename(pictures_path(other))
    with pytest.raises(InputError, match="belong to another model"):
        load_pictures(other)


def test_damaged_pictures_are_refused(pictures, model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_model(model, path)
    content = bytearray(save_pictures(pictures, path).read_bytes())
    content[-5] ^= 1
    pictures_path(path).write_bytes(content)
    with pytest.raises(InputError, match="are damaged"):
        load_pictures(path)
    pictures_path(path).write_bytes(content[:100])
    with pytest.raises(InputError, match="are damaged"):
        load_pictures(path)


def test_pictures_need_a_model_file(tmp_path):
    none = HealthyPictures(torch.zeros(1, 4).half(), torch.zeros(1, 32, 32, dtype=torch.uint8))
    with pytest.raises(InputError, match="no model file"):
        save_pictures(none, tmp_path / "missing.safetensors")
