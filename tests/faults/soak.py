"""Thousands of damaged files, for an hour when nobody waits: scans, models, weights, full disks.

    python tests/faults/soak.py scans --count 1000
    python tests/faults/soak.py models --count 300
    python tests/faults/soak.py weights --count 100
    python tests/faults/soak.py full-disk --count 20
    python tests/faults/soak.py power-cut --count 20
    python tests/faults/soak.py growth --count 200
    python tests/faults/soak.py page                # all of it, into docs/reliability.md

Prints how often each outcome came, and every wrong one; exits with 1 if there is a wrong one. The
same seed gives the same damage. Runs that are killed and a walk through the window are tests of
their own, which the page repeats more often than `make test`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from full_disks import full_disk
from growth import growth
from power_cut import power_cut
from reliability_page import write_page
from spoilt_weights import weights
from sweeps import Outcome, flipped, report

# Copies that one process reads; one that ends or hangs takes no others with it.
_BATCH = 50
_SECONDS = 120.0

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
        sound, path = Path(folder) / "sound.safetensors", Path(folder) / "model.safetensors"
        save_model(tiny_model(kind), sound)
        # The tensors of the content are mapped from the sound file, which stays as it is.
        content, expected, whole = Content.of(sound), results(load_model(sound)), sound.read_bytes()
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
            path.write_bytes(flipped(whole, chance))
            what = outcome(path, expected)
            yield what.split(":")[0], f"bytes {number}: {what}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = {
        "scans": scans,
        "models": models,
        "weights": weights,
        "full-disk": full_disk,
        "power-cut": power_cut,
        "growth": growth,
    }
    parser.add_argument("kind", choices=[*kinds, "page"])
    parser.add_argument("--count", type=int, default=100, help="files of each format or method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of the page")
    options = parser.parse_args()
    if options.kind == "page":
        sys.exit(write_page(options.share, options.seed))
    sys.exit(1 if kinds[options.kind](options.count, options.seed) else 0)


if __name__ == "__main__":
    main()
