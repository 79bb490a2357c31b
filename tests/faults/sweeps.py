"""What the sweeps of `soak.py` share: damage to bytes, and the count of what came of it."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROWS", "Outcome", "flipped", "report"]

#: Environment variable with a file to which each row is added as JSON, for the page.
ROWS = "NAPARI_DINO_UAD_ROWS"

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
    begun = last = time.monotonic()
    wrong, longest = 0, 0.0
    for kind, detail in outcomes:
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        counts[kind] += 1
        if kind not in _FINE:
            wrong += 1
            print(f"  WRONG {name}: {kind}: {detail[:_SHOWN]}", flush=True)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    spent = time.monotonic() - begun
    print(f"{name}: {sum(counts.values())} tried in {spent:.0f} s: {told}", flush=True)
    if rows := os.environ.get(ROWS):
        row = {"name": name, "outcomes": counts, "wrong": wrong, "longest_s": longest}
        with Path(rows).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return wrong


def flipped(whole: bytes, chance: random.Random) -> bytes:
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
