"""Maps of layers in a row of numbers, and embeddings joined from them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_dino_uad import load_backbone
from napari_dino_uad.core.backbones.backbone import backbone_spec
from napari_dino_uad.core.backbones.layer_maps import LayerLayout


@pytest.fixture
def maps() -> list[torch.Tensor]:
    """Two slices of three layers, (B, C, h, w) each."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, channels, *shape, generator=generator)
        for channels, shape in ((3, (8, 12)), (5, (4, 6)), (2, (2, 3)))
    ]


LAYOUT = LayerLayout((3, 5, 2), ((8, 12), (4, 6), (2, 3)), (8, 12))


def row(maps: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([one.permute(0, 2, 3, 1).flatten(1) for one in maps], dim=1)


def test_coarse_layers_are_interpolated_and_all_are_joined(maps):
    expected = torch.cat(
        [F.interpolate(one, (8, 12), mode="bilinear", align_corners=False) for one in maps], dim=1
    )
    assert row(maps).shape == (2, LAYOUT.size)
    torch.testing.assert_close(LAYOUT.join(row(maps)), expected)
    joined = LAYOUT.join(row(maps).half())
    assert joined.dtype == torch.float32
    torch.testing.assert_close(joined, expected, atol=4e-3, rtol=0)


@pytest.mark.parametrize(
    ("rows", "columns"), [(slice(2, 7), slice(0, 5)), (slice(0, 0), slice(3, 4))]
)
def test_a_part_of_the_grid_is_that_part_of_the_whole(maps, rows, columns):
    whole = LAYOUT.join(row(maps))
    assert torch.equal(LAYOUT.join(row(maps), rows, columns), whole[:, :, rows, columns])


def test_the_layout_is_that_of_the_network():
    for key in ("efficientnet-lite0", "efficientnet-lite0@1", "efficientnet-lite0@4,5"):
        backbone = load_backbone(key)
        images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
        grid = (64 // backbone.spec.stride, 96 // backbone.spec.stride)
        layout = LayerLayout.of(backbone.spec, grid)
        assert backbone.maps(images).shape == (1, layout.size)
        assert backbone.embed(images).shape == (1, backbone.spec.dimension, *grid)


def test_one_layer_is_its_own_embedding():
    layout = LayerLayout.of(backbone_spec("dinov2-vits14"), (5, 7))
    assert layout == LayerLayout((384,), ((5, 7),), (5, 7))
