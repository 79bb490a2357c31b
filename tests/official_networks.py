"""The official networks written out plainly, with random weights under their official names.

Written from the architecture alone, to tell whether timm's networks and what is done to them here
give the embeddings that the official code gives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

DINOV2_SIDE = 37  # patches along an edge of the 518 pixels it was trained at
DINO_SIDE = 14
REGISTERS = 4

State = dict[str, torch.Tensor]


class _Random:
    """Random tensors, as large as those of a trained network."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def tensor(self, *shape: int, scale: float = 0.05, around: float = 0.0) -> torch.Tensor:
        return around + scale * torch.randn(*shape, generator=self._generator)

    def linear(self, name: str, outputs: int, inputs: int) -> State:
        return {
            f"{name}.weight": self.tensor(outputs, inputs),
            f"{name}.bias": self.tensor(outputs),
        }

    def norm(self, name: str, width: int) -> State:
        return {
            f"{name}.weight": self.tensor(width, scale=0.2, around=1.0),
            f"{name}.bias": self.tensor(width),
        }


def _blocks(random: _Random, width: int, blocks: int, ffn: dict[str, tuple[int, int]]) -> State:
    state: State = {}
    for index in range(blocks):
        block = f"blocks.{index}"
        state |= random.norm(f"{block}.norm1", width)
        state |= random.linear(f"{block}.attn.qkv", 3 * width, width)
        state |= random.linear(f"{block}.attn.proj", width, width)
        state[f"{block}.ls1.gamma"] = random.tensor(width, scale=0.3)
        state |= random.norm(f"{block}.norm2", width)
        for name, (outputs, inputs) in ffn.items():
            state |= random.linear(f"{block}.mlp.{name}", outputs, inputs)
        state[f"{block}.ls2.gamma"] = random.tensor(width, scale=0.3)
    return state | random.norm("norm", width)


def dinov2_state(width: int, blocks: int, registers: bool, gated: bool, seed: int = 0) -> State:
    """Make a state dict as Meta's DINOv2 files hold it; ViT-g alone has a gated feed-forward."""
    random = _Random(seed)
    if gated:
        hidden = 8 * ((width * 4 * 2 // 3 + 7) // 8)
        ffn = {"w12": (2 * hidden, width), "w3": (width, hidden)}
    else:
        ffn = {"fc1": (4 * width, width), "fc2": (width, 4 * width)}
    state = {
        "cls_token": random.tensor(1, 1, width, scale=0.5),
        "pos_embed": random.tensor(1, 1 + DINOV2_SIDE**2, width, scale=0.5),
        "mask_token": random.tensor(1, width),
        "patch_embed.proj.weight": random.tensor(width, 3, 14, 14),
        "patch_embed.proj.bias": random.tensor(width),
    }
    if registers:
        state["register_tokens"] = random.tensor(1, REGISTERS, width, scale=0.5)
    return state | _blocks(random, width, blocks, ffn)


def dino_state(width: int, blocks: int, seed: int = 0) -> State:
    """Make a state dict as Meta's DINO files hold it: no layer scale, and a smaller grid."""
    random = _Random(seed)
    ffn = {"fc1": (4 * width, width), "fc2": (width, 4 * width)}
    state = {
        "cls_token": random.tensor(1, 1, width, scale=0.5),
        "pos_embed": random.tensor(1, 1 + DINO_SIDE**2, width, scale=0.5),
        "patch_embed.proj.weight": random.tensor(width, 3, 16, 16),
        "patch_embed.proj.bias": random.tensor(width),
    } | _blocks(random, width, blocks, ffn)
    return {name: one for name, one in state.items() if ".ls" not in name}


def dinov3_state(width: int, blocks: int, hidden: int, gated: bool, seed: int = 0) -> State:
    """Make a state dict as Meta's DINOv3 files hold it, but with biases that are not zero."""
    random = _Random(seed)
    if gated:
        ffn = {"w1": (hidden, width), "w2": (hidden, width), "w3": (width, hidden)}
    else:
        ffn = {"fc1": (hidden, width), "fc2": (width, hidden)}
    periods = 100.0 ** (torch.arange(16) / 16)
    state = {
        "cls_token": random.tensor(1, 1, width, scale=0.5),
        "storage_tokens": random.tensor(1, REGISTERS, width, scale=0.5),
        "mask_token": random.tensor(1, width),
        "patch_embed.proj.weight": random.tensor(width, 3, 16, 16),
        "patch_embed.proj.bias": random.tensor(width),
        "rope_embed.periods": periods.bfloat16(),
    }
    state |= _blocks(random, width, blocks, ffn)
    mask = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
    return state | {f"blocks.{index}.attn.qkv.bias_mask": mask.clone() for index in range(blocks)}


def convnext_state(width: int, depths: tuple[int, ...], seed: int = 0) -> State:
    """Make a state dict as Meta's DINOv3 ConvNeXt files hold it."""
    random = _Random(seed)
    state: State = {}
    widths = [width * 2**stage for stage in range(4)]
    for stage, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
        down = f"downsample_layers.{stage}"
        conv, norm, before, kernel = (
            ("0", "1", 3, 4) if stage == 0 else ("1", "0", channels // 2, 2)
        )
        state[f"{down}.{conv}.weight"] = random.tensor(channels, before, kernel, kernel, scale=0.1)
        state[f"{down}.{conv}.bias"] = random.tensor(channels)
        state |= random.norm(f"{down}.{norm}", channels if stage == 0 else before)
        for index in range(depth):
            block = f"stages.{stage}.{index}"
            state[f"{block}.dwconv.weight"] = random.tensor(channels, 1, 7, 7, scale=0.1)
            state[f"{block}.dwconv.bias"] = random.tensor(channels)
            state |= random.norm(f"{block}.norm", channels)
            state |= random.linear(f"{block}.pwconv1", 4 * channels, channels)
            state |= random.linear(f"{block}.pwconv2", channels, 4 * channels)
            state[f"{block}.gamma"] = random.tensor(channels, scale=0.5)
    state |= random.norm("norm", widths[-1])
    # The official module lists its last norm twice.
    return state | {f"norms.3.{name}": state[f"norm.{name}"] for name in ("weight", "bias")}


def _linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    spread = (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
    scaled = (x - x.mean(-1, keepdim=True)) / spread
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def _feed_forward(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    if f"{name}.fc1.weight" in state:
        return _linear(state, f"{name}.fc2", F.gelu(_linear(state, f"{name}.fc1", x)))
    if f"{name}.w12.weight" in state:
        gate, value = _linear(state, f"{name}.w12", x).chunk(2, dim=-1)
    else:
        gate, value = _linear(state, f"{name}.w1", x), _linear(state, f"{name}.w2", x)
    return _linear(state, f"{name}.w3", F.silu(gate) * value)


def _rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate channels i and i + half by an angle; x is (..., N, d), angles (N, d / 2)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _vit(
    state: State, tokens: torch.Tensor, prefix: int, blocks: list[int], eps: float,
    angles: torch.Tensor | None,
) -> list[torch.Tensor]:  # fmt: skip
    """Run the blocks; return the normed patch tokens after those asked for, counted from 1."""
    heads = tokens.shape[-1] // 64
    read = []
    for index in range(max(blocks)):
        block = f"blocks.{index}"
        normed = _norm(state, f"{block}.norm1", tokens, eps)
        bias = state[f"{block}.attn.qkv.bias"]
        bias = bias * state.get(f"{block}.attn.qkv.bias_mask", torch.ones(()))
        qkv = normed @ state[f"{block}.attn.qkv.weight"].T + bias
        q, k, v = qkv.unflatten(-1, (3, heads, 64)).permute(2, 0, 3, 1, 4)
        if angles is not None:
            q, k = (
                torch.cat([x[..., :prefix, :], _rotate(x[..., prefix:, :], angles)], dim=-2)
                for x in (q, k)
            )
        attention = (q @ k.transpose(-1, -2) / 8).softmax(-1) @ v
        attended = _linear(state, f"{block}.attn.proj", attention.transpose(1, 2).flatten(2))
        tokens = tokens + state.get(f"{block}.ls1.gamma", 1) * attended
        normed = _norm(state, f"{block}.norm2", tokens, eps)
        fed = _feed_forward(state, f"{block}.mlp", normed)
        tokens = tokens + state.get(f"{block}.ls2.gamma", 1) * fed
        if index + 1 in blocks:
            read.append(_norm(state, "norm", tokens, eps)[:, prefix:])
    return read


def _patches(state: State, images: torch.Tensor, size: int) -> torch.Tensor:
    weight = state["patch_embed.proj.weight"].flatten(1)
    cut = F.unfold(images, size, stride=size).transpose(1, 2)
    return cut @ weight.T + state["patch_embed.proj.bias"]


def _map(tokens: torch.Tensor, height: int) -> torch.Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, -1))


def dino_maps(state: State, images: torch.Tensor, blocks: list[int]) -> list[torch.Tensor]:
    """Give what DINO's `get_intermediate_layers` gives, as maps (B, C, h, w)."""
    return dinov2_maps(state, images, blocks, 16, DINO_SIDE)


def dinov2_maps(
    state: State, images: torch.Tensor, blocks: list[int], patch: int = 14, side: int = DINOV2_SIDE
) -> list[torch.Tensor]:
    """Give what DINOv2's `get_intermediate_layers` gives, as maps (B, C, h, w)."""
    patches = _patches(state, images, patch)
    count, _, width = patches.shape
    grid = images.shape[-2] // patch, images.shape[-1] // patch
    registers = state.get("register_tokens")
    position = state["pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (side, side))
    if grid != (side, side) and registers is None:
        scale = [(edge + 0.1) / side for edge in grid]
        position = F.interpolate(position, scale_factor=scale, mode="bicubic")
    elif grid != (side, side):
        position = F.interpolate(position, size=grid, mode="bicubic", antialias=True)
    assert position.shape[-2:] == grid
    tokens = [
        (state["cls_token"] + state["pos_embed"][:, :1]).expand(count, 1, width),
        patches + position.flatten(2).transpose(1, 2),
    ]
    if registers is not None:
        tokens.insert(1, registers.expand(count, REGISTERS, width))
    prefix = 1 if registers is None else 1 + REGISTERS
    read = _vit(state, torch.cat(tokens, dim=1), prefix, blocks, 1e-6, None)
    return [_map(one, grid[0]) for one in read]


def dinov3_maps(state: State, images: torch.Tensor, blocks: list[int]) -> list[torch.Tensor]:
    """Give what DINOv3's `get_intermediate_layers` gives, as maps (B, C, h, w)."""
    patches = _patches(state, images, 16)
    count, _, width = patches.shape
    grid = images.shape[-2] // 16, images.shape[-1] // 16
    # Centres of the patches, from -1 to 1 along each edge.
    rows, columns = (2 * (torch.arange(edge) + 0.5) / edge - 1 for edge in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
    periods = state["rope_embed.periods"].float()
    angles = (2 * torch.pi * places[:, :, None] / periods).flatten(1)
    tokens = torch.cat(
        [
            state["cls_token"].expand(count, 1, width),
            state["storage_tokens"].expand(count, REGISTERS, width),
            patches,
        ],
        dim=1,
    )
    read = _vit(state, tokens, 1 + REGISTERS, blocks, 1e-5, angles)
    return [_map(one, grid[0]) for one in read]


def convnext_maps(state: State, images: torch.Tensor, stages: list[int]) -> list[torch.Tensor]:
    """Give what the DINOv3 ConvNeXt's `get_intermediate_layers` gives, as maps (B, C, h, w)."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return _norm(state, name, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)

    def conv(name: str, x: torch.Tensor, **options: int) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    x, read = images, []
    for stage in range(4):
        down = f"downsample_layers.{stage}"
        if stage == 0:
            x = norm(f"{down}.1", conv(f"{down}.0", x, stride=4))
        else:
            x = conv(f"{down}.1", norm(f"{down}.0", x), stride=2)
        index = 0
        while f"stages.{stage}.{index}.gamma" in state:
            block = f"stages.{stage}.{index}"
            y = conv(f"{block}.dwconv", x, padding=3, groups=x.shape[1])
            y = _norm(state, f"{block}.norm", y.permute(0, 2, 3, 1), 1e-6)
            y = _linear(state, f"{block}.pwconv2", F.gelu(_linear(state, f"{block}.pwconv1", y)))
            x = x + (state[f"{block}.gamma"] * y).permute(0, 3, 1, 2)
            index += 1
        if stage + 1 in stages:
            read.append(norm("norm", x) if stage == 3 else x)
    return read
