"""Hundreds of detections in one process, finished and cancelled: nothing grows."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeps import Outcome, report

from napari_dino_uad.core.memory import give_back

__all__ = ["LARGEST_MB", "LOOKS", "growth", "process_state"]

# Measurements, of which the first half is compared with the second. Memory goes up and down by 60
# MB between them, as the allocator gives every thread a heap of its own, so the lowest of each
# half counts.
LOOKS = 10
LARGEST_MB = 60.0
_SETTLE_S = 20.0


def growth(count: int, seed: int) -> int:
    """Detect `count` times, and cancel as many at random moments; then look at the process."""
    return sum(
        report(name, _growth(name, count, seed)) for name in ("detections", "cancelled detections")
    )


def _growth(name: str, count: int, seed: int) -> Iterator[Outcome]:
    from napari_dino_uad import Case, detect, drain, fit, load_backbone
    from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE, make_phantom
    from napari_dino_uad.core.scans.volume import volume_from_array

    chance = random.Random(seed)
    backbone = load_backbone(PHANTOM_BACKBONE)
    heads = [make_phantom(number).volume for number in range(3)]
    settings = {"components": 20, "epochs": 1, "max_patches": 4000}
    model = drain(
        fit([Case(one) for one in heads], settings=settings, backbone=backbone, cache=False)
    )
    scans = [volume_from_array(one.array[12:18], one.spacing_mm, name="part") for one in heads]

    def one_more(number: int) -> None:
        scan = scans[number % len(scans)]
        pipeline = detect(scan, model, backbone=backbone, cache=False)
        if name == "detections":
            drain(pipeline)
            return
        for _ in range(chance.randint(0, 8)):
            next(pipeline, None)
        pipeline.close()

    # As many again first, which fill engines, pools, caches and the heaps of threads.
    for number in range(count):
        one_more(number)
    looks = []
    for number in range(count):
        one_more(number)
        yield "same", ""
        if (number + 1) % max(1, count // LOOKS) == 0:
            looks.append(process_state())
    half = len(looks) // 2
    for what, most in (("memory in MB", LARGEST_MB), ("threads", 0), ("open files", 0)):
        before, after = (min(one[what] for one in part) for part in (looks[:half], looks[half:]))
        yield ("same", "") if after - before <= most else ("grown", f"{what}: {before} {after}")


def process_state() -> dict[str, Any]:
    """Measure this process, after what was cancelled has ended."""
    end = time.monotonic() + _SETTLE_S
    while time.monotonic() < end and any(
        one.name in ("pipeline", "prefetch") for one in threading.enumerate()
    ):
        time.sleep(0.1)
    gc.collect()
    # What the allocator holds for the next detection is no growth.
    give_back()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory in MB": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "threads": threading.active_count(),
        "open files": len(list(Path("/proc/self/fd").iterdir())),
    }
