"""Read weights from a file without running code, recognise them, and load them into timm."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.backbones.table import BACKBONES, BackboneSpec
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.storage.tensor_file import read_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["create_network", "load_network", "read_weights"]

# timm's modules, each with a function that renames official weights.
_RENAMING = {
    "dino": "timm.models.vision_transformer",
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
        A .safetensors file, or one saved by torch; its content decides.

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

    if not path.is_file():
        raise InputError(f"There is no file of weights at {path}.")
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start[8:] == b"{":
            # Each tensor is copied into the network anyway.
            return read_tensors(path, owned=False)[1]
        # Mapped, so that weights of gigabytes are in memory once.
        content = torch.load(
            str(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # a damaged pickle raises any kind of error
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is not None:
            raise InputError(
                f"{path.name} is a pickle that holds {code.group(1)}, which could run code, so it "
                f"was not read; {_EXPECTED}, which hold only tensors."
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
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path.name} holds {name!r}, which is no tensor; {_EXPECTED}.")
        if not isinstance(name, str):
            raise InputError(
                f"{path.name} holds a tensor named {name!r}, which is no text; {_EXPECTED}."
            )
    return dict(content)


def load_network(spec: BackboneSpec, state: Mapping[str, torch.Tensor], source: str) -> Any:
    """Build a backbone's network and load weights into it.

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
        If they belong to another network; the message names it if it is known.
    """
    import torch

    for name, value in state.items():
        wrong_kind = _wrong_kind(name, value)
        if wrong_kind:
            raise InputError(
                f"{source} holds the tensor {name[:80]} {wrong_kind}, expected floating-point "
                f"numbers; {_EXPECTED}."
            )
    found = _signature(state)
    if found is None or found != _signature_of(spec.name):
        raise InputError(
            f"{source} holds {_describe(state)}, but the weights of {spec.name} were asked for; "
            "choose that backbone or another file."
        )
    network = _allocate(spec)
    expected = network.state_dict()
    # The number of training batches does not matter.
    needed = {name: v for name, v in expected.items() if not name.endswith("num_batches_tracked")}
    wrong = _misfits(network, state)
    converted = dict(state)
    if not wrong:
        try:
            converted = _to_timm(spec, network, dict(state))
        except Exception as error:  # timm's renaming assumes that all tensors fit
            raise InputError(
                f"{source} looks like the weights of {spec.name}, but its tensors do not fit that "
                f"network; {_EXPECTED}."
            ) from error
        wrong = [
            name
            for name, value in needed.items()
            if name not in converted or converted[name].shape != value.shape
        ]
    # A classifier, and stages after the last one read, are not used.
    spare = [] if spec.family == "cnn" else [name for name in converted if name not in expected]
    if wrong or spare:
        raise InputError(
            f"{source} looks like the weights of {spec.name}, but {len(wrong) + len(spare)} of "
            f"its tensors do not fit, such as {(wrong + spare)[0]}; {_EXPECTED}."
        )
    network.load_state_dict(expected | {name: converted[name] for name in needed})
    if spec.family == "dinov3":
        # The official weights include the periods of the rotary position embedding, rounded to
        # bfloat16; timm's do not.
        count = len(network.rope.periods)
        periods = 100.0 ** (torch.arange(count) / count)
        network.rope.periods.copy_(state.get("rope_embed.periods", periods.bfloat16()))
    _check_values(network, source)
    return network


def _wrong_kind(name: str, value: torch.Tensor) -> str:
    """Return why a tensor cannot be weights, apart from its shape; empty if it can."""
    import torch

    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return "in a form without plain numbers (sparse, quantised or empty)"
    whole_allowed = name.endswith(("num_batches_tracked", "bias_mask"))
    if value.is_complex() or not (value.is_floating_point() or whole_allowed):
        return f"of {str(value.dtype).removeprefix('torch.')}"
    return ""


def _misfits(network: Any, state: Mapping[str, torch.Tensor]) -> list[str]:
    """List tensors of a wrong shape that the conversion to timm's names would hide.

    timm resamples a position embedding of another grid, and broadcasts a mask of one number.
    """
    wrong = []
    if "pos_embed" in state and getattr(network, "pos_embed", None) is not None:
        _, tokens, width = network.pos_embed.shape
        # Unlike timm's, official files with registers have a position for the class token.
        fitting = {(1, tokens + extra, width) for extra in (0, int(network.no_embed_class))}
        if tuple(state["pos_embed"].shape) not in fitting:
            wrong.append("pos_embed")
    for name, value in state.items():
        bias = name.removesuffix("_mask")
        if name.endswith("qkv.bias_mask") and (
            bias not in state or state[bias].shape != value.shape
        ):
            wrong.append(name)
    if "rope_embed.periods" in state and hasattr(network, "rope"):
        if state["rope_embed.periods"].shape != network.rope.periods.shape:
            wrong.append("rope_embed.periods")
    return wrong


def _check_values(network: Any, source: str) -> None:
    """Refuse weights whose embeddings would not be finite."""
    import torch

    tensors = [*network.named_parameters(), *network.named_buffers()]
    for name, value in tensors:
        # A sum takes a tenth of the time; it overflows only if numbers are huge.
        if not torch.isfinite(value.sum()) and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{source} holds numbers in {name} that are not finite; get the file again."
            )
        lowest = 0.0 if name.endswith("running_var") else -torch.inf
        if name.endswith("rope.periods"):
            lowest = torch.finfo(value.dtype).tiny
        if lowest > -torch.inf and float(value.min()) < lowest:
            raise InputError(f"{source} holds numbers in {name} below 0; get the file again.")


def _allocate(spec: BackboneSpec) -> Any:
    """Build a network without initial weights, to load weights into it.

    Drawing random weights of a large network takes several times as long as reading a file.
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
    """Rename official weights as timm does; leave timm's own unchanged."""
    import torch

    if spec.family == "cnn":
        return state
    if spec.family == "dinov3":
        for name in [name for name in state if name.endswith("qkv.bias_mask")]:
            # timm assumes that only the biases of the keys are masked.
            bias = name.removesuffix("_mask")
            state[bias] = state[bias] * state[name].to(state[bias].dtype)
    # The official ConvNeXt lists its final norm a second time.
    state = {name: value for name, value in state.items() if not name.startswith("norms.")}
    rename = import_module(_RENAMING[spec.family]).checkpoint_filter_fn
    converted: dict[str, torch.Tensor] = rename(state, network)
    if spec.family == "dinov3" and not any(name.endswith("q_bias") for name in converted):
        # timm's plain files omit the query and value biases if they are zero.
        for name, value in network.state_dict().items():
            if name.endswith(("q_bias", "v_bias")):
                converted[name] = torch.zeros_like(value)
    return converted


def _signature(state: Mapping[str, torch.Tensor]) -> tuple[Any, ...] | None:
    """Identify a network by a few shapes, under official names or timm's."""

    def shape(*names: str) -> tuple[int, ...]:
        found = next((tuple(state[name].shape) for name in names if name in state), ())
        return found if len(found) > 1 else (*found, 0, 0)

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
            # A gated feed-forward has one more matrix, unless two are packed into one.
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


@cache
def _signature_of(name: str) -> tuple[Any, ...] | None:
    import torch

    # Shapes alone, without memory for the weights.
    with torch.device("meta"):
        return _signature(create_network(BACKBONES[name]).state_dict())


def _describe(state: Mapping[str, torch.Tensor]) -> str:
    """Describe the likely content of a file of tensors."""
    if any(name.startswith("views.") for name in state):
        return "a model that Fit saved"
    if any(name.startswith("embeddings.") for name in state):
        return "weights under the names of the transformers library"
    found = _signature(state)
    if found is None:
        return f"tensors of an unknown network, such as {next(iter(state))}"
    # DINO's ResNet-50 is the same network as ImageNet's.
    names = [name for name in BACKBONES if _signature_of(name) == found]
    if names:
        return f"the weights of {' or '.join(names)}"
    return f"the weights of a {found[0]} that is none of the table"
