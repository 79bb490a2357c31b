"""Peak memory and time of detection on a CT of 512 x 512, by number of slices.

Each run has its own process: it reads from NIfTI, detects with the embedded backbone and writes.
It is compared with a process that only loads torch.

    python benchmarks/memory.py [--slices 100 200 400]

The last line is the time per slice of the largest volume divided by that of the smallest: 1 if the
time is proportional to the number of slices.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_WINDOW = (40.0, 400.0)


def peak_gb() -> float:
    """Return the peak memory of this process in GB (1e9 bytes)."""
    status = Path("/proc/self/status")
    if status.is_file():
        # On Linux, `ru_maxrss` is inherited from the parent process.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def detection(scan: Path, model: Path, out: Path) -> None:
    from detect_overhead import whole

    from napari_dino_uad import choose_engine, drain, load_backbone, load_model

    fitted = load_model(model)
    backbone = drain(choose_engine(load_backbone(fitted.backbone_key)))
    started = time.perf_counter()
    whole(scan, fitted, backbone, out)
    print(json.dumps({"gb": peak_gb(), "seconds": time.perf_counter() - started}))


def with_torch() -> None:
    import timm  # noqa: F401
    import torch  # noqa: F401

    print(json.dumps({"gb": peak_gb()}))


def run(*arguments: str) -> dict[str, float]:
    """Run this script in its own process and return its measurements."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *arguments],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        detection(*map(Path, options.one)) if options.one else with_torch()
        return
    from detect_overhead import head

    from napari_dino_uad import Case, drain, fit, save_model, write_volume
    from napari_dino_uad.core.slices.preprocessing import Preprocessing

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NAPARI_DINO_UAD_CACHE"] = str(folder / "cache")
        cases = [Case(head(12, 512, seed)) for seed in range(3)]
        preprocessing = Preprocessing(input_size=512, window=_WINDOW)
        save_model(
            drain(fit(cases, preprocessing=preprocessing, settings={"epochs": 1}, cache=False)),
            folder / "model.safetensors",
        )
        base = run("--one")["gb"]
        print(f"torch loaded: {base:.2f} GB")
        found = {}
        for slices in options.slices:
            scan = folder / f"{slices}.nii.gz"
            volume = head(slices, 512, 100)
            write_volume(scan, volume.array.astype("int16"), volume)
            del volume
            model, out = str(folder / "model.safetensors"), str(folder / "out")
            found[slices] = run("--one", str(scan), model, out)
            print(
                f"{slices} slices: {found[slices]['gb'] - base:.2f} GB above that, "
                f"{found[slices]['seconds']:.1f} s",
                flush=True,
            )
    per_slice = [found[slices]["seconds"] / slices for slices in options.slices]
    print(f"ratio: {per_slice[-1] / per_slice[0]:.2f}")


if __name__ == "__main__":
    main()
