"""Weights from files: every format that is taken, and what is refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file as save_contiguous

from napari_dino_uad import drain, load_backbone, save_model
from napari_dino_uad.core.backbones.backbone import BACKBONES
from napari_dino_uad.core.backbones.hub import download_weights
from napari_dino_uad.core.backbones.weights import create_network
from napari_dino_uad.core.errors import InputError
from official_networks import (
    convnext_maps,
    convnext_state,
    dinov2_maps,
    dinov2_state,
    dinov3_maps,
    dinov3_state,
)

IMAGES = torch.randn(1, 3, 112, 224, generator=torch.Generator().manual_seed(2))

# A backbone of each family: its official weights, and what the official network gives.
FAMILIES = {
    "dinov2-vits14": (
        lambda: dinov2_state(384, 12, registers=False, gated=False),
        lambda state: dinov2_maps(state, IMAGES, [12]),
    ),
    "dinov2-vits14-reg": (
        lambda: dinov2_state(384, 12, registers=True, gated=False),
        lambda state: dinov2_maps(state, IMAGES, [12]),
    ),
    "dinov3-vits16": (
        lambda: dinov3_state(384, 12, 1536, gated=False),
        lambda state: dinov3_maps(state, IMAGES, [12]),
    ),
    "dinov3-vits16plus": (
        lambda: dinov3_state(384, 12, 1536, gated=True),
        lambda state: dinov3_maps(state, IMAGES, [12]),
    ),
    "dinov3-convnext-tiny@4": (
        lambda: convnext_state(96, (3, 3, 9, 3)),
        lambda state: convnext_maps(state, IMAGES[..., :96, :], [4]),
    ),
}


class _Code:
    """A pickle that makes a folder when it is read without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def save_file(state, path):
    """Save weights, which an engine may have laid out channels last."""
    save_contiguous({name: one.contiguous() for name, one in state.items()}, path)


def refused(key: str, path: Path) -> str:
    with pytest.raises(InputError) as refusal:
        load_backbone(key, path)
    told = str(refusal.value)
    assert "\n" not in told
    assert told.endswith(".")
    return told


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A ViT-S of each family in its official format."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(dinov2_state(384, 12, False, False), folder / "dinov2_vits14_pretrain.pth")
    torch.save(dinov3_state(384, 12, 1536, False), folder / "dinov3_vits16_pretrain.pth")
    return folder


@pytest.mark.parametrize("key", FAMILIES)
def test_weights_files_give_official_embeddings(key, tmp_path):
    make, maps = FAMILIES[key]
    state = make()
    images = IMAGES[..., :96, :] if "convnext" in key else IMAGES
    torch.save(state, tmp_path / "official.pth")
    backbone = load_backbone(key, tmp_path / "official.pth")
    embedded = backbone.embed(images)
    [expected] = maps(state)
    assert (embedded - expected).abs().max() < 1e-4 * expected.std()

    renamed = dict(load_backbone(key, tmp_path / "official.pth").module.network.state_dict())
    assert set(renamed) != set(state)
    save_file(renamed, tmp_path / "timm.safetensors")
    torch.save(renamed, tmp_path / "timm.pth")
    torch.save({"state_dict": renamed, "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save(renamed, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    # What a file is is told from its content, not from its name.
    (tmp_path / "timm.bin").write_bytes((tmp_path / "timm.safetensors").read_bytes())
    for name in ("timm.safetensors", "timm.pth", "wrapped.pth", "old.pth", "timm.bin"):
        again = load_backbone(key, tmp_path / name)
        assert torch.equal(again.embed(images), embedded), name
        assert again.sha256 == backbone.sha256


def test_timm_files_without_the_biases_that_are_zero(tmp_path):
    state = dinov3_state(384, 12, 1536, gated=False)
    zero = {name: torch.zeros_like(one) for name, one in state.items() if "qkv.bias" in name}
    torch.save(state | zero, tmp_path / "official.pth")
    official = load_backbone("dinov3-vits16", tmp_path / "official.pth")
    plain = timm.create_model("vit_small_patch16_dinov3", num_classes=0)
    plain.load_state_dict(official.module.network.state_dict(), strict=False)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    loaded = load_backbone("dinov3-vits16", tmp_path / "plain.safetensors")
    assert torch.equal(loaded.embed(IMAGES), official.embed(IMAGES))
    assert loaded.sha256 == official.sha256


def test_weights_of_the_embedded_backbone_from_a_file(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    mine = load_backbone("efficientnet-lite0", tmp_path / "mine.safetensors")
    assert mine.sha256 != load_backbone().sha256
    with torch.inference_mode():
        level = network.forward_intermediates(IMAGES[..., :96, :], indices=[2])[1][0]
    assert torch.allclose(mine.embed(IMAGES[..., :96, :])[:, 16:56], level, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("dinov2-vitb14", "holds the weights of dinov2-vits14, but the weights of dinov2-vitb14"),
        ("dinov2-vits14-reg", "holds the weights of dinov2-vits14"),
        ("dinov3-vits16", "holds the weights of dinov2-vits14"),
        ("resnet50", "holds the weights of dinov2-vits14"),
    ],
)
def test_weights_of_another_backbone_are_named(key, told, official):
    assert told in refused(key, official / "dinov2_vits14_pretrain.pth")


def test_backbones_that_differ_in_little_are_told_apart(official, tmp_path):
    v3 = official / "dinov3_vits16_pretrain.pth"
    assert "holds the weights of dinov3-vits16," in refused("dinov3-vits16plus", v3)
    torch.save(convnext_state(96, (3, 3, 9, 3)), tmp_path / "tiny.pth")
    told = refused("dinov3-convnext-small", tmp_path / "tiny.pth")
    assert "holds the weights of dinov3-convnext-tiny," in told
    network = timm.create_model("resnet50")
    save_file(network.state_dict(), tmp_path / "resnet.safetensors")
    told = refused("wide-resnet50-2", tmp_path / "resnet.safetensors")
    assert "holds the weights of dino-resnet50 or resnet50," in told


def test_every_backbone_of_the_table_is_recognised_alone():
    from napari_dino_uad.core.backbones.weights import _signature_of

    signatures = [_signature_of(name) for name in BACKBONES]
    assert None not in signatures
    # But the two of one network, which only their training tells apart.
    assert len(set(signatures)) == len(BACKBONES) - 1


def test_other_tensors_are_described(official, tmp_path, model):
    key = "dinov2-vits14"
    save_model(model, tmp_path / "model.safetensors")
    assert "holds a model that Fit saved" in refused(key, tmp_path / "model.safetensors")
    tensor = torch.zeros(3)
    save_file({"embeddings.cls_token": tensor}, tmp_path / "hf.safetensors")
    assert "names of the transformers library" in refused(key, tmp_path / "hf.safetensors")
    save_file({"encoder.weight": tensor}, tmp_path / "other.safetensors")
    told = refused(key, tmp_path / "other.safetensors")
    assert "holds tensors of an unknown network, such as encoder.weight" in told
    state = dinov2_state(192, 12, registers=False, gated=False)
    torch.save(state, tmp_path / "tiny.pth")
    assert "vision transformer that is none of the table" in refused(key, tmp_path / "tiny.pth")


def test_a_tensor_that_is_missing_is_named(official, tmp_path):
    state = torch.load(official / "dinov2_vits14_pretrain.pth")
    del state["blocks.7.mlp.fc2.bias"]
    torch.save(state, tmp_path / "less.pth")
    told = refused("dinov2-vits14", tmp_path / "less.pth")
    assert "looks like the weights of dinov2-vits14, but 1 of its tensors" in told
    assert "blocks.7.mlp.fc2.bias" in told
    state = torch.load(official / "dinov2_vits14_pretrain.pth") | {"extra": torch.zeros(1)}
    torch.save(state, tmp_path / "more.pth")
    assert "such as extra" in refused("dinov2-vits14", tmp_path / "more.pth")


def test_a_file_that_is_cut_off_is_refused(official, tmp_path):
    whole = (official / "dinov2_vits14_pretrain.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    assert "is cut off, damaged" in refused("dinov2-vits14", tmp_path / "cut.pth")
    network = create_network(BACKBONES["dinov2-vits14"])
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-1])
    assert "is cut off, damaged" in refused("dinov2-vits14", tmp_path / "cut.safetensors")


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"12345678{}", b"PK\x03\x04 no"])
def test_a_file_of_something_else_is_refused(content, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    told = refused("dinov2-vits14", tmp_path / "weights.pth")
    assert "weights.pth" in told
    assert "expected Meta's .pth" in told


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    made = tmp_path / "made"
    for zipped in (True, False):
        path = tmp_path / "weights.pth"
        torch.save({"cls_token": _Code(made)}, path, _use_new_zipfile_serialization=zipped)
        assert "mkdir, which could run code, so it was not read" in refused("dinov2-vits14", path)
        assert not made.exists()


def test_what_holds_no_tensors_by_name_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save([torch.zeros(1)], path)
    assert "holds no tensors by name" in refused("dinov2-vits14", path)
    torch.save({"epoch": 3, "cls_token": torch.zeros(1)}, path)
    assert "holds 'epoch', which is no tensor" in refused("dinov2-vits14", path)
    assert "There is no file of weights" in refused("dinov2-vits14", tmp_path / "nowhere.pth")


def test_weights_that_are_not_on_the_hub_come_from_a_file(tmp_path):
    with pytest.raises(InputError, match=r"not on the Hugging Face hub; download https://.*\.pth"):
        load_backbone("dino-resnet50")
    with pytest.raises(InputError, match="not on the Hugging Face hub"):
        drain(download_weights(BACKBONES["dino-resnet50"], tmp_path))
    # Meta's file has torchvision's names, and no classifier.
    network = torchvision.models.resnet50(weights=None)
    state = {name: one for name, one in network.state_dict().items() if "fc." not in name}
    torch.save(state, tmp_path / "dino_resnet50_pretrain.pth")
    backbone = load_backbone("dino-resnet50", tmp_path / "dino_resnet50_pretrain.pth")
    batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert backbone.embed(batch).shape == (1, 1536, 8, 8)
