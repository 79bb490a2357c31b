"""Weights from a file: read without running code, recognised, and put into timm's network."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from importlib import import_module
from math import log2
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.backbone_table import BACKBONES, BackboneSpec
from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["create_network", "load_network", "read_weights"]

# timm's modules, each with a function that renames official weights.
_RENAMING = {
    "dinov2": "timm.models.vision_transformer",
    "dinov3": "timm.models.eva",
    "convnext": "timm.models.convnext",
}

_EXPECTED = "expected Meta's .pth, or timm's .pth or .safetensors"


def create_network(spec: BackboneSpec) -> Any:
    """Build a backbone's network in timm, a `torch.nn.Module`, with random weights."""
    import timm

    options: dict[str, Any] = {"num_classes": 0}
    if spec.family == "cnn":
        # timm's feature k has the stride 2 ** (k + 1).
        indices = tuple(int(log2(spec.strides[layer - 1])) - 1 for layer in spec.layers)
        options = {"features_only": True, "out_indices": indices}
    return timm.create_model(spec.timm_name, pretrained=False, **options)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights without running any code in it.

    Parameters
    ----------
    path : Path
        A .safetensors file, or one that torch saved; what it is is told from its content.

    Returns
    -------
    dict
        Tensors by name.

    Raises
    ------
    InputError
        If the file is missing, damaged or holds anything but tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"There is no file of weights at {path}.")
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start[8:] == b"{":
            return load_file(path)
        # Mapped, so that weights of gigabytes are in memory once.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (
        SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError
    ) as error:  # fmt: skip
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is not None:
            raise InputError(
                f"{path.name} is a pickle that holds {code.group(1)}, which could run code, so it "
                f"was not read; {_EXPECTED}, which hold tensors alone."
            ) from error
        size = path.stat().st_size
        raise InputError(
            f"{path.name} ({size / 1e6:.1f} MB) is cut off, damaged or no file of weights; "
            f"{_EXPECTED}."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path.name} holds no tensors by name; {_EXPECTED}.")
    state = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if len(state) < len(content):
        other = next(name for name in content if name not in state)
        raise InputError(f"{path.name} holds {other!r}, which is no tensor; {_EXPECTED}.")
    return state


def load_network(spec: BackboneSpec, state: Mapping[str, torch.Tensor], source: str) -> Any:
    """Build a backbone's network and put weights into it.

    Parameters
    ----------
    spec : BackboneSpec
        Row of the table.
    state : dict
        Tensors by their official names or by timm's.
    source : str
        Name of the file, for messages.

    Returns
    -------
    torch.nn.Module
        As `create_network` builds it.

    Raises
    ------
    InputError
        If they are of another network; the message says of which, as far as can be told.
    """
    import torch

    found = _signature(state)
    if found is None or found != _signature_of(spec):
        raise InputError(
            f"{source} holds {_describe(state)}, but the weights of {spec.name} were asked for; "
            "choose that backbone or another file."
        )
    network = _allocate(spec)
    expected = network.state_dict()
    converted = _to_timm(spec, network, dict(state))
    wrong = [
        name
        for name, value in expected.items()
        if not name.endswith("num_batches_tracked")
        and (name not in converted or converted[name].shape != value.shape)
    ]
    # A classifier and stages behind the last one read are of no use here.
    spare = [] if spec.family == "cnn" else [name for name in converted if name not in expected]
    if wrong or spare:
        raise InputError(
            f"{source} looks like the weights of {spec.name}, but {len(wrong) + len(spare)} of "
            f"its tensors do not fit, such as {(wrong + spare)[0]}; {_EXPECTED}."
        )
    network.load_state_dict({name: converted.get(name, value) for name, value in expected.items()})
    if spec.family == "dinov3":
        # The official weights bring the periods of the rotary position embedding along, rounded
        # to bfloat16; timm's leave them out.
        count = len(network.rope.periods)
        periods = 100.0 ** (torch.arange(count) / count)
        network.rope.periods.copy_(state.get("rope_embed.periods", periods.bfloat16()))
    return network


def _allocate(spec: BackboneSpec) -> Any:
    """Build a network whose weights are still to come, without drawing random ones first.

    Drawing them takes a large network several times as long as reading its weights.
    """
    import torch

    with torch.device("meta"):
        network = create_network(spec)
    computed = {name for name, _ in network.named_buffers()} - set(network.state_dict())
    if spec.family == "cnn" or computed - {"rope.periods"}:
        return create_network(spec)
    return network.to_empty(device="cpu")


def _to_timm(
    spec: BackboneSpec, network: Any, state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Rename official weights as timm does, and leave timm's own as they are."""
    import torch

    if spec.family == "cnn":
        return state
    if spec.family == "dinov3":
        for name in [name for name in state if name.endswith("qkv.bias_mask")]:
            # timm takes the masked biases to be the keys' alone.
            bias = name.removesuffix("_mask")
            state[bias] = state[bias] * state[name].to(state[bias].dtype)
    # The official ConvNeXt lists its final norm a second time.
    state = {name: value for name, value in state.items() if not name.startswith("norms.")}
    rename = import_module(_RENAMING[spec.family]).checkpoint_filter_fn
    converted: dict[str, torch.Tensor] = rename(state, network)
    if spec.family == "dinov3" and not any(name.endswith("q_bias") for name in converted):
        # timm's plain files leave the query and value biases out where they are zero.
        for name, value in network.state_dict().items():
            if name.endswith(("q_bias", "v_bias")):
                converted[name] = torch.zeros_like(value)
    return converted


def _signature(state: Mapping[str, torch.Tensor]) -> tuple[Any, ...] | None:
    """Tell networks apart by a few shapes, under official names and timm's alike."""

    def shape(*names: str) -> tuple[int, ...]:
        return next((tuple(state[name].shape) for name in names if name in state), (0, 0, 0, 0))

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in state)

    if "cls_token" in state and "patch_embed.proj.weight" in state:
        hidden = [f"blocks.0.mlp.{name}.weight" for name in ("fc1", "w12", "w1", "fc1_g")]
        return (
            "vision transformer",
            "pos_embed" in state,
            shape("patch_embed.proj.weight"),
            count(r"blocks\.\d+\.norm1\.weight"),
            shape("register_tokens", "storage_tokens", "reg_token")[1],
            shape(*hidden)[0],
            # A gated feed-forward has one more, unless two of them are packed into one.
            count(r"blocks\.0\.mlp\.\w+\.weight"),
        )
    if "downsample_layers.0.0.weight" in state or "stem.0.weight" in state:
        stem = shape("downsample_layers.0.0.weight", "stem.0.weight")
        return "ConvNeXt", stem, count(r"stages\.2\.(blocks\.)?\d+\.gamma")
    if "layer1.0.conv1.weight" in state:
        depths = [count(rf"layer{stage}\.\d+\.conv1\.weight") for stage in (1, 2, 3)]
        return "ResNet", shape("layer1.0.conv1.weight"), *depths
    if "conv_stem.weight" in state:
        return "EfficientNet", shape("conv_stem.weight"), count(r"blocks\.\d+\.\d+\.conv_pw.weight")
    return None


def _signature_of(spec: BackboneSpec) -> tuple[Any, ...] | None:
    import torch

    # Shapes alone, without memory for the weights.
    with torch.device("meta"):
        return _signature(create_network(BACKBONES[spec.name]).state_dict())


def _describe(state: Mapping[str, torch.Tensor]) -> str:
    """Say what a file of tensors seems to hold."""
    if any(name.startswith("views.") for name in state):
        return "a model that Fit saved"
    if any(name.startswith("embeddings.") for name in state):
        return "weights under the names of the transformers library"
    found = _signature(state)
    if found is None:
        return f"tensors of an unknown network, such as {next(iter(state))}"
    for spec in BACKBONES.values():
        if _signature_of(spec) == found:
            return f"the weights of {spec.name}"
    return f"the weights of a {found[0]} that is none of the table"
