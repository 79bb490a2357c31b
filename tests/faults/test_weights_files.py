"""Weights are believed only where they fit the network and are numbers."""

from __future__ import annotations

from functools import lru_cache

import pytest
import timm
import torch

from napari_dino_uad.core.backbones.backbone import BACKBONES
from napari_dino_uad.core.backbones.weights import load_network, read_weights
from napari_dino_uad.core.errors import InputError
from official_networks import dinov2_state, dinov3_state

STATES = {
    "efficientnet-lite0": lambda: dict(timm.create_model("tf_efficientnet_lite0").state_dict()),
    "dinov2-vits14": lambda: dinov2_state(384, 12, False, False),
    "dinov2-vits14-reg": lambda: dinov2_state(384, 12, True, False),
    "dinov3-vits16": lambda: dinov3_state(384, 12, 1536, False),
}

CASES = [
    ("dinov2-vits14", "pos_embed", lambda t: t.flatten(), "pos_embed"),
    ("dinov2-vits14", "pos_embed", lambda t: t[0], "pos_embed"),
    # timm would resample it without a word.
    ("dinov2-vits14", "pos_embed", lambda t: t[:, :10], "pos_embed"),
    ("dinov2-vits14", "cls_token", lambda t: t.fill_(torch.nan), "not finite"),
    ("dinov2-vits14", "cls_token", lambda t: t.int(), "of int32"),
    ("dinov2-vits14", "cls_token", lambda t: t.to(torch.complex64), "of complex64"),
    ("dinov2-vits14", "norm.bias", lambda t: t.to_sparse(), "sparse"),
    ("dinov2-vits14", "norm.bias", lambda t: t.to("meta"), "empty"),
    ("dinov2-vits14", "blocks.0.mlp.fc1.weight", lambda t: t.flatten()[0], "holds"),
    ("dinov2-vits14-reg", "register_tokens", lambda t: t.flatten(), "holds"),
    ("dinov3-vits16", "blocks.0.attn.qkv.bias", None, "bias_mask"),
    ("dinov3-vits16", "blocks.0.attn.qkv.bias_mask", lambda t: t[:1], "bias_mask"),
    ("dinov3-vits16", "blocks.0.attn.qkv.bias_mask", lambda t: t.to(torch.complex64), "complex64"),
    ("dinov3-vits16", "rope_embed.periods", lambda t: t[:3], "rope_embed.periods"),
    ("dinov3-vits16", "rope_embed.periods", lambda t: t * 0, "below 0"),
    ("dinov3-vits16", "rope_embed.periods", lambda t: t * torch.nan, "not finite"),
    ("efficientnet-lite0", "bn1.running_var", lambda t: -t, "below 0"),
    ("efficientnet-lite0", "bn1.weight", lambda t: t.fill_(torch.inf), "not finite"),
    ("efficientnet-lite0", "conv_stem.weight", lambda t: t.flatten()[0], "holds"),
]


@lru_cache
def sound(key: str) -> dict[str, torch.Tensor]:
    return STATES[key]()


@pytest.mark.parametrize(("key", "name", "spoil", "told"), CASES, ids=range(len(CASES)))
def test_spoilt_weights_get_one_sentence(key, name, spoil, told):
    state = dict(sound(key))
    tensor = state.pop(name)
    if spoil is not None:
        state[name] = spoil(tensor.clone())
    with pytest.raises(InputError) as refusal:
        load_network(BACKBONES[key], state, "weights.pth")
    sentence = str(refusal.value)
    assert told in sentence
    assert sentence.startswith("weights.pth")
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_shape_of_a_batch_count_is_ignored():
    state = STATES["efficientnet-lite0"]()
    state["bn1.num_batches_tracked"] = torch.zeros(3, dtype=torch.long)
    network = load_network(BACKBONES["efficientnet-lite0"], state, "weights.pth")
    assert torch.equal(network.state_dict()["bn1.weight"], state["bn1.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_without_names_are_refused(zipped, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({1: torch.zeros(1)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="a tensor named 1, which is no text"):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bits_of_a_pickle_get_one_sentence(zipped, tmp_path):
    path = tmp_path / "weights.pth"
    names = {f"blocks.{n}.weight": torch.ones(3, 2) for n in range(3)}
    torch.save({"state_dict": names, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 100)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            state = read_weights(path)
        except InputError as error:
            assert "weights.pth" in str(error)
            assert "\n" not in str(error)
        else:
            assert all(isinstance(one, torch.Tensor) for one in state.values())
