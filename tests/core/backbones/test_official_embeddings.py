"""Embeddings are those of the official code, for every family and any size of input."""

from __future__ import annotations

import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision

from napari_dino_uad.core.backbones import weights as backbone_weights
from napari_dino_uad.core.backbones.backbone import BACKBONES, Backbone, load_backbone
from official_networks import (
    convnext_maps,
    convnext_state,
    dino_maps,
    dino_state,
    dinov2_maps,
    dinov2_state,
    dinov3_maps,
    dinov3_state,
)

BLOCKS = 2

# Width of the feed-forward.
DINOV3_HIDDEN = {
    "dinov3-vits16": 1536,
    "dinov3-vits16plus": 1536,
    "dinov3-vitb16": 3072,
    "dinov3-vitl16": 4096,
    "dinov3-vith16plus": 5120,
}


def keys(family):
    return [key for key, spec in BACKBONES.items() if spec.family == family]


def images(height, width, count=1):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def assert_same(got, expected):
    """Say that two maps differ by no more than the order of the sums accounts for."""
    assert got.shape == expected.shape
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-4 * expected.std()


@pytest.fixture
def shallow(monkeypatch):
    """Build and load networks of the table with fewer blocks, which are enough to tell."""

    def build(key, state, **options):
        spec = BACKBONES[key]

        def create(spec):
            return timm.create_model(spec.timm_name, num_classes=0, **options)

        monkeypatch.setattr(backbone_weights, "create_network", create)
        # The shapes of the networks of the table are remembered.
        backbone_weights._signature_of.cache_clear()
        if "depth" in options:
            depth = options["depth"]
            spec = dataclasses.replace(
                spec, channels=spec.channels[:depth], strides=spec.strides[:depth], layers=(depth,)
            )
        return spec, backbone_weights.load_network(spec, state, "weights.pth")

    yield build
    backbone_weights._signature_of.cache_clear()


@pytest.mark.parametrize("key", keys("dinov2"))
def test_dinov2(key, shallow):
    width = BACKBONES[key].dimension
    state = dinov2_state(width, BLOCKS, registers=key.endswith("-reg"), gated="vitg" in key)
    spec, network = shallow(key, state, depth=BLOCKS)
    backbone = Backbone(spec, network)
    # Smaller and wider than the native grid of 37 x 37, then larger.
    for height, width in ((70, 98), (14, 546)):
        batch = images(height, width)
        [expected] = dinov2_maps(state, batch, [BLOCKS])
        assert_same(backbone.embed(batch), expected)


@pytest.mark.parametrize("key", keys("dino"))
def test_dino(key, shallow):
    state = dino_state(BACKBONES[key].dimension, BLOCKS)
    spec, network = shallow(key, state, depth=BLOCKS)
    backbone = Backbone(spec, network)
    # The native grid of 14 x 14, a wider one, the usual size, and back.
    for height, width in ((224, 224), (32, 96), (448, 448), (224, 224)):
        batch = images(height, width)
        [expected] = dino_maps(state, batch, [BLOCKS])
        assert_same(backbone.embed(batch), expected)


@pytest.mark.parametrize("key", ["dinov2-vits14", "dinov2-vits14-reg"])
def test_dinov2_at_sizes_of_its_own(key, shallow):
    state = dinov2_state(384, BLOCKS, registers=key.endswith("-reg"), gated=False)
    spec, network = shallow(key, state, depth=BLOCKS)
    backbone = Backbone(spec, network)
    # The native size, as many patches in another shape, the usual size, and back.
    for height, width in ((518, 518), (14, 37 * 37 * 14), (448, 448), (518, 518)):
        batch = images(height, width)
        [expected] = dinov2_maps(state, batch, [BLOCKS])
        assert_same(backbone.embed(batch), expected)


@pytest.mark.parametrize("key", DINOV3_HIDDEN)
def test_dinov3(key, shallow):
    width = BACKBONES[key].dimension
    state = dinov3_state(width, BLOCKS, DINOV3_HIDDEN[key], gated="plus" in key)
    spec, network = shallow(key, state, depth=BLOCKS)
    backbone = Backbone(spec, network)
    for height, width in ((64, 96), (160, 32)):
        batch = images(height, width)
        [expected] = dinov3_maps(state, batch, [BLOCKS])
        assert_same(backbone.embed(batch), expected)


def test_dinov3_with_every_bias_masked(shallow):
    # Such are the masks in Meta's files, whose biases are zero as well.
    state = dinov3_state(384, BLOCKS, 1536, gated=False)
    state |= {name: torch.zeros_like(value) for name, value in state.items() if "_mask" in name}
    spec, network = shallow("dinov3-vits16", state, depth=BLOCKS)
    batch = images(64, 96)
    assert_same(Backbone(spec, network).embed(batch), dinov3_maps(state, batch, [BLOCKS])[0])


def test_the_periods_of_dinov3_outlive_half_precision(shallow):
    state = dinov3_state(384, BLOCKS, 1536, gated=False)
    spec, network = shallow("dinov3-vits16", state, depth=BLOCKS)
    backbone = Backbone(spec, network)
    batch = images(64, 96)
    expected = backbone.embed(batch)
    backbone.module.half().float()
    halved = {name: one.half().float() for name, one in state.items() if "periods" not in name}
    again = backbone.embed(batch)
    assert_same(again, dinov3_maps(state | halved, batch, [BLOCKS])[0])
    assert not torch.equal(again, expected)


@pytest.mark.parametrize("key", keys("convnext"))
def test_convnext(key, shallow):
    depths = (1, 1, 2, 1)
    state = convnext_state(BACKBONES[key].channels[0], depths)
    spec, network = shallow(key, state, depths=depths)
    batch = images(64, 96)
    fine, coarse = convnext_maps(state, batch, [3, 4])
    joined = torch.cat([fine, F.interpolate(coarse, size=(4, 6), mode="bilinear")], dim=1)
    assert_same(Backbone(spec, network).embed(batch), joined)
    # The last stage alone is what the official code gives if not asked for others.
    assert_same(Backbone(spec.reading([4]), network).embed(batch), coarse)
    [first] = convnext_maps(state, batch, [1])
    assert_same(Backbone(spec.reading([1]), network).embed(batch), first)


@pytest.mark.parametrize("key", ["resnet50", "wide-resnet50-2"])
def test_resnet(key, tmp_path):
    torch.manual_seed(0)
    network = getattr(torchvision.models, key.replace("-", "_"))().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    batch = images(64, 96)
    with torch.inference_mode():
        x = network.maxpool(network.relu(network.bn1(network.conv1(batch))))
        fine = network.layer2(network.layer1(x))
        coarse = F.interpolate(network.layer3(fine), size=(8, 12), mode="bilinear")
    backbone = load_backbone(key, tmp_path / "resnet.pth")
    assert_same(backbone.embed(batch), torch.cat([fine, coarse], dim=1))
    only = load_backbone(f"{key}@2", tmp_path / "resnet.pth")
    assert_same(only.embed(batch), fine)


@pytest.mark.parametrize("family", ["dinov2", "dinov3"])
def test_several_blocks_are_each_normed_and_joined(family, tmp_path):
    if family == "dinov2":
        name, size, maps = "dinov2-vits14-reg", 14, dinov2_maps
        state = dinov2_state(384, 12, registers=True, gated=False)
    else:
        name, size, maps = "dinov3-vits16", 16, dinov3_maps
        state = dinov3_state(384, 12, 1536, gated=False)
    torch.save(state, tmp_path / "weights.pth")
    backbone = load_backbone(f"{name}@9,3,12", tmp_path / "weights.pth")
    assert backbone.spec.levels == (384, 384, 384)
    batch = images(3 * size, 5 * size, count=2)
    embedded = backbone.embed(batch)
    assert_same(embedded, torch.cat(maps(state, batch, [3, 9, 12]), dim=1))
    early = load_backbone(f"{name}@3", tmp_path / "weights.pth")
    assert torch.equal(early.embed(batch), embedded[:, :384])
    assert early.sha256 == backbone.sha256
