"""Thousands of damaged files, for an hour when nobody waits: scans, models, weights, full disks.

    python tests/faults/soak.py scans --count 1000
    python tests/faults/soak.py models --count 300
    python tests/faults/soak.py weights --count 100
    python tests/faults/soak.py full-disk --count 20

Prints how often each outcome came, and every wrong one; exits with 1 if there is a wrong one. The
same seed gives the same damage. Runs that are killed are a test of their own:
NAPARI_DINO_UAD_KILLS=20 pytest tests/faults/test_interrupted_runs.py
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Copies that one process reads; one that ends or hangs takes no others with it.
_BATCH = 50
_SECONDS = 120.0

# Characters printed of a wrong outcome.
_SHOWN = 400

# What came of one file: a word to count by, and what to print where it is wrong.
Outcome = tuple[str, str]
_FINE = (
    "refused", "same", "same values, lies elsewhere", "other header, same size", "told",
    "may differ",
)  # fmt: skip


def report(name: str, outcomes: Iterator[Outcome]) -> int:
    """Print the counts of outcomes and each wrong one; return how many are wrong."""
    counts: Counter[str] = Counter()
    begun = time.monotonic()
    wrong = 0
    for kind, detail in outcomes:
        counts[kind] += 1
        if kind not in _FINE:
            wrong += 1
            print(f"  WRONG {name}: {kind}: {detail[:_SHOWN]}", flush=True)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    spent = time.monotonic() - begun
    print(f"{name}: {sum(counts.values())} tried in {spent:.0f} s: {told}", flush=True)
    return wrong


# Scans ---------------------------------------------------------------------------------------


def scans(count: int, seed: int) -> int:
    from mutations import FORMATS, MORE_FORMATS

    with tempfile.TemporaryDirectory() as folder:
        return sum(
            report(form, damaged_scans(form, count, seed, Path(folder)))
            for form in (*FORMATS, *MORE_FORMATS)
        )


def damaged_scans(form: str, count: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Read damaged copies of a scan, and compare each with the sound one."""
    from mutations import damaged, read_all, sound

    whole = sound(form, folder)
    [expected] = read_all(form, [whole], folder)
    numbers = list(range(seed * count, (seed + 1) * count))
    while numbers:
        batch, numbers = numbers[:_BATCH], numbers[_BATCH:]
        try:
            found = read_all(form, [damaged(form, whole, one) for one in batch], folder, _SECONDS)
        except subprocess.TimeoutExpired:
            # Whichever it is, it is found by trying each alone.
            found = [_alone(form, damaged(form, whole, one), folder) for one in batch]
        for number, one in zip(batch, found, strict=False):
            yield _judge_scan(form, expected, one, f"number {number}")
        numbers = batch[len(found) :] + numbers


def _alone(form: str, copy: bytes, folder: Path) -> tuple[Any, ...]:
    from mutations import read_all

    try:
        return read_all(form, [copy], folder, 20.0)[0]
    except subprocess.TimeoutExpired:
        return "never ended", ""


def _judge_scan(form: str, expected: tuple[Any, ...], one: tuple[Any, ...], name: str) -> Outcome:
    from mutations import CHECKED

    if one[0] == "refused":
        sound = "\n" not in one[1] and one[1].endswith(".") and len(one[1]) < 600
        return ("refused", "") if sound else ("no sentence", f"{name}: {one[1]!r}")
    if one[0] != "read":
        return str(one[0]), f"{name}: {one[1]}"
    _, values, spacing, notices = one
    if np.array_equal(values, expected[1]):
        same = np.allclose(spacing, expected[2])
        return ("same" if same else "same values, lies elsewhere"), ""
    if not np.isfinite(values).all():
        return "not finite", name
    if any("resampled" in notice or "missing" in notice for notice in notices):
        # A digit of a direction or a position changed, and the user is told.
        return "told", ""
    if form not in CHECKED and values.size == expected[1].size:
        # Nothing in the file tells a header that is damaged from another one.
        return "other header, same size", ""
    return "different without a word", f"{name}: {values.shape} {spacing} {notices}"


# Models --------------------------------------------------------------------------------------


def models(count: int, seed: int) -> int:
    from mutated_models import KINDS

    return sum(report(kind, spoilt_models(kind, count, seed)) for kind in KINDS)


def spoilt_models(kind: str, count: int, seed: int) -> Iterator[Outcome]:
    """Load spoilt model files: their header, their tensors and their bytes, a third each."""
    from mutated_models import (
        Content,
        header_mutations,
        outcome,
        results,
        tensor_mutations,
        tiny_model,
    )

    from napari_dino_uad import load_model, save_model

    chance = random.Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(tiny_model(kind), path)
        whole, content, expected = path.read_bytes(), Content.of(path), results(load_model(path))
        for mutations in (header_mutations, tensor_mutations):
            every = list(mutations(content))
            for one in chance.sample(every, min(len(every), count // 3)):
                checked = chance.choice(("not", "anew"))
                one.content.write(path, checked)
                what = outcome(path, expected)
                if one.may_differ and what in ("different", "same"):
                    what = "may differ"
                yield what.split(":")[0], f"{one.name}, checksum {checked}: {what}"
        for number in range(count // 3):
            path.write_bytes(_flipped(whole, chance))
            what = outcome(path, expected)
            yield what.split(":")[0], f"bytes {number}: {what}"


def _flipped(whole: bytes, chance: random.Random) -> bytes:
    """Change, cut out or double a few bytes; headers stand in the first part of most files."""
    out = bytearray(whole)
    place = chance.randrange(len(out) if chance.random() < 0.5 else min(len(out), 4000))
    kind = chance.choice(["bit", "bit", "byte", "cut", "zeros", "less", "twice"])
    if kind == "bit":
        out[place] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        out[place] = (out[place] + chance.randrange(1, 256)) % 256
    elif kind == "cut":
        del out[place:]
    elif kind == "zeros":
        out[place : place + 16] = bytes(len(out[place : place + 16]))
    elif kind == "less":
        del out[place : place + chance.choice([1, 4, 16])]
    else:
        out[place:place] = out[place : place + chance.choice([1, 4, 16])]
    return bytes(out)


# Weights -------------------------------------------------------------------------------------


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
    for _ in range(count):
        name = chance.choice(list(state))
        how, spoil = chance.choice(list(_SPOILT.items()))
        changed = dict(state)
        tensor = changed.pop(name)
        if spoil is not None:
            changed[name] = spoil(tensor.clone())
        yield _judge_weights(key, lambda new=changed: new, state, f"{name} {how}")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".pth", ".safetensors"):
            path = Path(folder) / f"weights{suffix}"
            if suffix == ".pth":
                torch.save(state, path)
            else:
                save_file({name: one.contiguous() for name, one in state.items()}, path)
            whole = path.read_bytes()
            for number in range(count // 4):
                path.write_bytes(_flipped(whole, chance))
                yield _judge_weights(key, _reading(path), state, f"{suffix} bytes {number}")


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


def _judge_weights(
    key: str, read: Callable[[], dict[str, Any]], state: dict[str, Any], name: str
) -> Outcome:
    import torch

    from napari_dino_uad.core.backbones.backbone import BACKBONES
    from napari_dino_uad.core.backbones.weights import load_network
    from napari_dino_uad.core.errors import InputError

    try:
        changed = read()
        network = load_network(BACKBONES[key], changed, "weights.pth").eval()
        with torch.inference_mode():
            side = 56 if "v2" in key else 64
            found = network(torch.full((1, 3, side, side), 0.5))
    except InputError as error:
        told = str(error)
        sentence = "weights" in told and "\n" not in told and told.endswith(".")
        return ("refused", "") if sentence else ("no sentence", f"{name}: {told!r}")
    except Exception as error:  # noqa: BLE001  (a traceback is what is looked for)
        return type(error).__name__, f"{name}: {error}"
    for one in found if isinstance(found, list | tuple) else [found]:
        if not torch.isfinite(one).all():
            return "not finite", name
    differs = [one for one in state if not _is_same(changed.get(one), state[one])]
    # Weights have no checksum of their own: numbers that are numbers are believed, and the
    # checksum of the file is kept in every model.
    return ("may differ", "") if differs else ("same", "")


def _is_same(one: Any, other: Any) -> bool:
    import torch

    return one is not None and one.shape == other.shape and torch.equal(one.to(other.dtype), other)


# Full disks ----------------------------------------------------------------------------------


def full_disk(count: int, seed: int) -> int:
    """Run fit, detect and the cache on disks that are soon full; each must say so and end."""
    if os.environ.get("NAPARI_DINO_UAD_OWN_MOUNTS") != "1":
        # Disks of a few kilobytes, which only this process and its children see.
        return subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", sys.executable, *sys.argv],
            env={**os.environ, "NAPARI_DINO_UAD_OWN_MOUNTS": "1"},
            check=False,
        ).returncode
    with tempfile.TemporaryDirectory() as folder:
        return report("full disk", _runs_on_full_disks(count, seed, Path(folder)))


def _runs_on_full_disks(count: int, seed: int, folder: Path) -> Iterator[Outcome]:
    chance = random.Random(seed)
    _write_heads(folder / "healthy")
    settings = ["--set=components=12", "--set=epochs=1", "--set=max_patches=3000"]
    model = folder / "m.safetensors"
    fitting = ["fit", folder / "healthy", *settings, "--out"]
    code, told = _command([*fitting, model], folder / "cache")
    assert code == 0, told
    detecting = ["detect", folder / "healthy" / "s0.nii.gz", "--model", model, "--out"]
    used = sum(one.stat().st_size for one in (folder / "cache").rglob("*") if one.is_file())
    for number in range(count):
        kind = chance.choice(["fit", "detect", "cache", "cache"])
        disk = folder / f"disk{number}"
        disk.mkdir()
        whole = used if kind == "cache" else model.stat().st_size if kind == "fit" else 200_000
        size = max(8192, int(whole * chance.uniform(0.02, 0.9)))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "full", disk], check=True)
        if kind == "detect":
            code, told = _command([*detecting, disk / "out"], folder / "cache")
        elif kind == "fit":
            code, told = _command([*fitting, disk / "m.safetensors"], folder / "cache")
        else:
            code, told = _command([*fitting, folder / f"m{number}.safetensors"], disk / "cache")
        subprocess.run(["umount", "-l", disk], check=True)
        lines = [one for one in told.splitlines() if one.strip()]
        what = f"{kind} on {size} bytes: code {code}: {' | '.join(lines[-4:])}"
        if code == 2 and "Traceback" not in told and "space" in told:
            yield "refused", ""
        elif code == 0:
            yield "same", ""
        else:
            yield f"code {code}", what


def _command(arguments: list[Any], cache: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "napari_dino_uad", *map(str, arguments)],
        env={
            **os.environ,
            "NAPARI_DINO_UAD_CACHE": str(cache),
            "NAPARI_DINO_UAD_ENGINE": "torch float32",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _write_heads(folder: Path) -> None:
    from napari_dino_uad.core.scans.phantom import make_phantom
    from napari_dino_uad.core.scans.volume import volume_from_array, write_volume

    folder.mkdir()
    for number in range(3):
        head = make_phantom(number, lesions=0).volume
        middle = len(head.array) // 2
        volume = volume_from_array(head.array[middle - 4 : middle + 4], head.spacing_mm)
        write_volume(folder / f"s{number}.nii.gz", volume.array, volume)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = {"scans": scans, "models": models, "weights": weights, "full-disk": full_disk}
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--count", type=int, default=100, help="files of each format or method")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(1 if kinds[options.kind](options.count, options.seed) else 0)


if __name__ == "__main__":
    main()
