"""Commands on disks that are soon full: each says so in a sentence, and ends with 2."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeps import Outcome, report

__all__ = ["full_disk", "write_heads"]


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
    write_heads(folder / "healthy")
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


def write_heads(folder: Path) -> None:
    from napari_dino_uad.core.scans.phantom import make_phantom
    from napari_dino_uad.core.scans.volume import volume_from_array, write_volume

    folder.mkdir()
    for number in range(3):
        head = make_phantom(number, lesions=0).volume
        middle = len(head.array) // 2
        volume = volume_from_array(head.array[middle - 4 : middle + 4], head.spacing_mm)
        write_volume(folder / f"s{number}.nii.gz", volume.array, volume)
