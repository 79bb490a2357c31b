"""Weights of backbones, spoilt in every way: one sentence, or a network of numbers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sweeps import Outcome, flipped, report

__all__ = ["weights"]


def weights(count: int, seed: int) -> int:
    from test_weights_files import STATES

    return sum(report(key, spoilt_weights(key, count, seed)) for key in STATES)


def spoilt_weights(key: str, count: int, seed: int) -> Iterator[Outcome]:
    """Load spoilt weights of a backbone: tensors first, then the bytes of both kinds of file."""
    import torch
    from safetensors.torch import save_file
    from test_weights_files import sound

    chance = random.Random(f"{key} {seed}")
    state = sound(key)
    expected = _loaded(key, state)
    for _ in range(count):
        name = chance.choice(list(state))
        how, spoil = chance.choice(list(_SPOILT.items()))
        changed = dict(state)
        tensor = changed.pop(name)
        if spoil is not None:
            changed[name] = spoil(tensor.clone())
        yield _judge_weights(key, lambda new=changed: new, expected, f"{name} {how}")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".pth", ".safetensors"):
            path = Path(folder) / f"weights{suffix}"
            if suffix == ".pth":
                torch.save(state, path)
            else:
                save_file({name: one.contiguous() for name, one in state.items()}, path)
            whole = path.read_bytes()
            for number in range(count // 4):
                path.write_bytes(flipped(whole, chance))
                yield _judge_weights(key, _reading(path), expected, f"{suffix} bytes {number}")


def _reading(path: Path) -> Callable[[], dict[str, Any]]:
    from napari_dino_uad.core.backbones.weights import read_weights

    return lambda: read_weights(path)


def _nan(tensor: Any) -> Any:
    if tensor.is_floating_point():
        tensor.view(-1)[:1] = float("nan")
    return tensor


_SPOILT: dict[str, Callable[[Any], Any] | None] = {
    "missing": None,
    "flat": lambda one: one.flatten(),
    "of one number": lambda one: one.flatten()[0] if one.ndim else one[None],
    "with an axis": lambda one: one[None],
    "shorter": lambda one: one[:-1] if one.ndim else one,
    "narrower": lambda one: one[..., :-1] if one.ndim else one,
    "emptied": lambda one: one[:0] if one.ndim else one[None][:0],
    "with NaN": _nan,
    "of infinity": lambda one: one * float("inf") if one.is_floating_point() else one,
    "of integers": lambda one: one.int(),
    "of half precision": lambda one: one.half(),
    "of double precision": lambda one: one.double(),
    "complex": lambda one: one.to(dtype=__import__("torch").complex64),
    "sparse": lambda one: one.to_sparse() if one.ndim else one,
    "elsewhere": lambda one: one.to("meta"),
}


def _loaded(key: str, state: dict[str, Any]) -> dict[str, Any]:
    from napari_dino_uad.core.backbones.backbone import BACKBONES
    from napari_dino_uad.core.backbones.weights import load_network

    return dict(load_network(BACKBONES[key], state, "weights.pth").state_dict())


def _judge_weights(
    key: str, read: Callable[[], dict[str, Any]], expected: dict[str, Any], name: str
) -> Outcome:
    import torch

    from napari_dino_uad.core.errors import InputError

    try:
        found = _loaded(key, read())
    except InputError as error:
        told = str(error)
        sentence = "weights" in told and "\n" not in told and told.endswith(".")
        return ("refused", "") if sentence else ("no sentence", f"{name}: {told!r}")
    except Exception as error:  # noqa: BLE001  (a traceback is what is looked for)
        return type(error).__name__, f"{name}: {error}"
    if not all(torch.isfinite(one).all() for one in found.values()):
        return "not finite", name
    if {one: value.shape for one, value in found.items()} != {
        one: value.shape for one, value in expected.items()
    }:
        return "another network", name
    # Weights have no checksum of their own: numbers that are numbers are believed, and the
    # checksum of the file is kept in every model.
    same = all(torch.equal(value, expected[one]) for one, value in found.items())
    return ("same" if same else "may differ"), ""
