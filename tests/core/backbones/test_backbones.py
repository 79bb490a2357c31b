"""The table of backbones, the choice of layers, and what a backbone's checksum says."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import timm
import torch

from napari_dino_uad import Case, detect, drain, fit, load_backbone, load_model, save_model
from napari_dino_uad.core.backbones.backbone import (
    BACKBONES,
    DEFAULT_BACKBONE,
    Backbone,
    backbone_spec,
)
from napari_dino_uad.core.backbones.hub import repository
from napari_dino_uad.core.backbones.weights import create_network
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.extract import features_key
from napari_dino_uad.core.slices.patch_grid import PatchGrid

EMBEDDED_SHA256 = "64f9ecd8db4abb342af1364358f8ae08eafd3270c85ab361a717bd4d50d5141a"

LICENCES = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "dinov3": "DINOv3 License",
    "dinov3-license": "DINOv3 License",
}


@pytest.mark.parametrize("key", BACKBONES)
def test_the_table_agrees_with_timm(key):
    spec = BACKBONES[key]
    published = timm.get_pretrained_cfg(spec.timm_name)
    if not spec.weights_url:
        assert LICENCES[published.license] == spec.licence
        assert published.hf_hub_id == repository(spec)
    with torch.device("meta"):
        network = create_network(spec)
        whole = timm.create_model(
            spec.timm_name, **({} if spec.family == "cnn" else {"num_classes": 0})
        )
    numbers = sum(one.numel() for one in whole.state_dict().values() if one.is_floating_point())
    assert (
        spec.embedded
        or spec.weights_url
        or spec.download_mb == pytest.approx(4e-6 * numbers, abs=0.6)
    )
    if spec.family in ("dino", "dinov2", "dinov3"):
        size = network.patch_embed.patch_size[0]
        layers = [(network.embed_dim, size)] * len(network.blocks)
    elif spec.family == "convnext":
        layers = [(one["num_chs"], one["reduction"]) for one in network.feature_info]
    else:
        layers = [(one["num_chs"], one["reduction"]) for one in whole.feature_info][
            -len(spec.channels) :
        ]
    assert list(zip(spec.channels, spec.strides, strict=True)) == layers
    assert spec.input_size % spec.multiple == 0


def test_the_table_needs_neither_torch_nor_timm():
    code = (
        "import sys, napari_dino_uad.core.backbones.backbone as b; "
        "print(b.backbone_spec('dinov2-vits14@6,12').dimension, "
        "sorted({'torch', 'timm', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split(maxsplit=1) == ["768", "[]\n"]


def test_layers_follow_the_key():
    spec = backbone_spec("dinov2-vits14@12,6,9,6")
    assert spec.key == "dinov2-vits14@6,9,12"
    assert spec.name == "dinov2-vits14"
    assert spec.levels == (384, 384, 384)
    assert backbone_spec(spec.key) == spec
    assert backbone_spec("dinov2-vits14", "6,9,12") == spec
    # The usual layers have no other name.
    assert backbone_spec("dinov2-vits14@12") is BACKBONES["dinov2-vits14"]
    assert spec.reading([12]) is BACKBONES["dinov2-vits14"]


def test_the_layers_of_a_convolutional_network_set_its_grid():
    assert (BACKBONES[DEFAULT_BACKBONE].stride, BACKBONES[DEFAULT_BACKBONE].multiple) == (8, 32)
    spec = backbone_spec("dinov3-convnext-tiny@4")
    assert (spec.levels, spec.stride, spec.multiple) == ((768,), 32, 32)
    spec = backbone_spec("resnet50@1,3")
    assert (spec.levels, spec.stride, spec.multiple) == ((256, 1024), 4, 16)


@pytest.mark.parametrize(
    ("key", "layers", "told"),
    [
        (
            "dino9",
            None,
            "There is no backbone 'dino9'; choose one of efficientnet-lite0, dino",
        ),
        ("dinov2-vits14@13", None, "counted from 1 to 12, got 13"),
        ("dinov2-vits14", "0,3", "counted from 1 to 12, got 0,3"),
        ("dinov2-vits14@", None, "whole numbers separated by commas, got ''"),
        ("resnet50@two", None, "got 'two'"),
        ("resnet50@2", "3", "given twice"),
    ],
)
def test_other_keys_are_refused(key, layers, told):
    with pytest.raises(InputError, match=told):
        backbone_spec(key, layers)


def test_the_embedded_backbone_is_what_it_was():
    backbone = load_backbone()
    assert backbone.sha256 == EMBEDDED_SHA256
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    embedded = backbone.embed(images)
    assert embedded.shape == (1, 488, 8, 12)
    # Each of its levels alone is part of the whole.
    middle = load_backbone("efficientnet-lite0@3,4").embed(images)
    assert torch.allclose(middle, embedded[:, 16:168], atol=1e-4)


def test_finer_levels_are_averaged_over_patches():
    backbone = load_backbone("efficientnet-lite0@1")
    assert (backbone.spec.stride, backbone.spec.multiple) == (8, 8)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        [fine] = backbone.module.network(images)
    assert fine.shape == (1, 16, 32, 48)
    expected = fine.unflatten(2, (8, 4)).unflatten(4, (12, 4)).mean((3, 5))
    assert torch.allclose(backbone.embed(images), expected, atol=1e-4)


def test_the_checksum_does_not_depend_on_the_input_size():
    torch.manual_seed(0)
    spec = BACKBONES["dinov2-vits14"]
    network = create_network(spec)
    plain = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        plain.update(name.encode() + tensor.numpy().tobytes())
    backbone = Backbone(spec, network)
    backbone.embed(torch.zeros(1, 3, 56, 70))
    assert network.pos_embed.shape[1] == 1 + 4 * 5
    assert backbone.sha256 == plain.hexdigest()


def test_input_size_must_be_a_multiple():
    spec = BACKBONES["dinov3-vits16"]
    torch.manual_seed(0)
    backbone = Backbone(spec, create_network(spec))
    with pytest.raises(InputError, match="multiples of 16, got 64 x 100"):
        backbone.embed(torch.zeros(1, 3, 64, 100))
    grid = PatchGrid.fit((100, 150), (1.0, 1.0), 64, spec.stride, spec.multiple)
    assert grid.content_shape == (64, 96)
    assert grid.input_shape == (64, 96)
    grid = PatchGrid.fit((100, 140), (1.0, 1.0), 64, spec.stride, spec.multiple)
    assert grid.content_shape == (64, 90)
    assert grid.input_shape == (64, 96)
    images = grid.to_input(torch.zeros(1, 3, 100, 140))
    assert backbone.embed(images).shape == (1, 384, *grid.shape)


@pytest.mark.backbone
def test_layers_are_part_of_a_fitted_model_and_of_the_cache(healthy, ill, tmp_path):
    backbone = load_backbone("efficientnet-lite0@4")
    assert features_key(backbone) != features_key(load_backbone("efficientnet-lite0@3"))
    settings = {"components": 30, "epochs": 2, "max_patches": 8000}
    cases = [Case(head.volume) for head in healthy[:3]]
    model = drain(fit(cases, settings=settings, backbone=backbone))
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.backbone_key == "efficientnet-lite0@4"
    with pytest.raises(InputError, match="fitted on efficientnet-lite0@4"):
        loaded.check_backbone(load_backbone())
    # It loads its own backbone, with the layers it was fitted on.
    anomaly = drain(detect(ill.volume, loaded))
    assert anomaly.scores[ill.lesion].mean() > anomaly.scores[anomaly.foreground].mean()
