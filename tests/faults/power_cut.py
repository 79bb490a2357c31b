"""Commands whose disk loses power: what carries a final name is whole, and the next run goes on.

Results, model and cache lie on an ext4 image that is mounted by a loop device. A copy of the image
file is what a disk holds when the power fails: writes that only the system's memory has are not in
it. Needs root and loop devices, as in a virtual machine.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from full_disks import write_heads
from sweeps import Outcome, report

__all__ = ["power_cut"]

_MEGABYTES = 192
_SETTINGS = ["--set=components=12", "--set=epochs=2", "--set=max_patches=3000"]


def power_cut(count: int, seed: int) -> int:
    """Cut the power of fit, detect and evaluate at random moments, and right after their end."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        print("power cut: needs root and mkfs.ext4; not tried")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return report("power cut", _cuts(count, seed, Path(folder)))


def _cuts(count: int, seed: int, folder: Path) -> Iterator[Outcome]:
    chance = random.Random(seed)
    write_heads(folder / "healthy")
    image = folder / "disk"
    with image.open("wb") as file:
        file.truncate(_MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    commands = {
        "fit": ["fit", folder / "healthy", *_SETTINGS, "--out", "{}/m.safetensors"],
        "detect": ["detect", folder / "healthy", "-m", folder / "m.safetensors", "-o", "{}/out"],
    }
    with mounted(image, folder / "alone") as place:
        sound = {}
        for name, command in commands.items():
            begun = time.monotonic()
            _finish(_start(command, place))
            sound[name] = (time.monotonic() - begun, _content(place))
            shutil.copy(place / "m.safetensors", folder / "m.safetensors")
    for number in range(count):
        name = chance.choice(list(commands))
        seconds, expected = sound[name]
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        cut = folder / "cut"
        with mounted(image, folder / "running") as place:
            process = _start(commands[name], place)
            # A third right after the end, when nothing has reached the disk by itself.
            if chance.random() < 0.3:
                process.wait()
            else:
                time.sleep(chance.uniform(0, 1.1 * seconds))
            shutil.copy(image, cut)
            process.kill()
            process.wait()
        what = f"{name} number {number}"
        with mounted(cut, folder / "after") as place:
            broken = [one for one in _named(place) if one.stat().st_size == 0]
            if broken:
                yield "empty under a final name", f"{what}: {broken}"
                continue
            told = _finish(_start(commands[name], place))
            if told:
                yield "does not go on", f"{what}: {told}"
                continue
            wrong = _different(_content(place), expected, name)
            yield ("other results", f"{what}: {wrong}") if wrong else ("same", "")


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def _start(command: list, place: Path) -> subprocess.Popen:
    words = [str(one).format(place) for one in command]
    environment = {
        "NAPARI_DINO_UAD_CACHE": str(place / "cache"),
        "NAPARI_DINO_UAD_ENGINE": "torch float32",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "napari_dino_uad", *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(process: subprocess.Popen) -> str:
    """Wait for a command; return what it said if it failed."""
    told, _ = process.communicate()
    return told[-600:] if process.returncode else ""


def _named(place: Path) -> list[Path]:
    """List the files that carry a final name, outside the cache, whose parts have checksums."""
    return [
        path
        for path in place.rglob("*")
        if path.is_file()
        and not any(part.startswith((".napari", "cache", "lost+found")) for part in path.parts)
    ]


def _content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _named(place)}


def _different(found: dict[str, bytes], expected: dict[str, bytes], name: str) -> str:
    """Say what differs from a run that was not disturbed; empty if nothing does."""
    if name == "fit":
        return "" if found["m.safetensors"] == expected["m.safetensors"] else "the model"
    for file, whole in expected.items():
        if file.endswith(".nii.gz") and found.get(file) != whole:
            return file
        if file.endswith(".json"):
            ours, theirs = json.loads(found[file]), json.loads(whole)
            if not np.allclose(ours["threshold"], theirs["threshold"]):
                return file
    return ""
