"""Weights from files: what is refused, and what a checksum depends on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch

from napari_dino_uad import load_backbone
from napari_dino_uad.core.backbones import Backbone, backbone_spec
from napari_dino_uad.core.errors import InputError


class _Code:
    """A pickle that makes a folder when it is read without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_checksum_does_not_depend_on_the_input_size():
    torch.manual_seed(0)
    spec = backbone_spec("dinov2-vits14")
    module = timm.create_model(spec.timm_name, num_classes=0)
    before = Backbone(spec, module).sha256
    backbone = Backbone(spec, module)
    backbone.embed(torch.zeros(1, 3, 56, 70))
    assert backbone.module.network.pos_embed.shape[1] == 1 + 4 * 5
    assert backbone.sha256 == before


def test_pickle_with_code_is_refused_and_not_run(tmp_path):
    made = tmp_path / "made"
    torch.save({"cls_token": _Code(made)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="does not hold the weights of dinov2-vits14"):
        load_backbone("dinov2-vits14", tmp_path / "weights.pth")
    assert not made.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_file_of_something_else_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="does not hold the weights of dinov2-vits14"):
        load_backbone("dinov2-vits14", tmp_path / name)
