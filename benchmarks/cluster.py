"""A cohort embedded by two Dask workers, compared with one.

Each worker has one thread and, where the system allows, one core of its own.

    python benchmarks/cluster.py [--scans 16] [--rounds 2]

The last line is how many times as fast two workers are as one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from distributed import LocalCluster

from napari_dino_uad import Case, drain, load_backbone, write_volume
from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.crew import DaskCrew
from napari_dino_uad.core.features.ahead import embed_ahead
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.scans.phantom import make_phantom
from napari_dino_uad.core.slices.preprocessing import Preprocessing


def pin(core: int) -> None:
    """Keep a process on one core."""
    import os

    import torch

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        # Threads that exist already, such as those of the worker, do not follow.
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        cases = []
        for seed in range(options.scans):
            head = make_phantom(seed).volume
            write_volume(folder / f"h{seed}.nii.gz", head.array, head)
            cases.append(Case(folder / f"h{seed}.nii.gz"))
        backbone = drain(choose_engine(load_backbone()))
        preprocessing = [Preprocessing(input_size=backbone.spec.input_size)]
        best: dict[int, float] = {}
        make_cluster: Any = LocalCluster
        for workers in (1, 2):
            settings = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
            with make_cluster(**settings) as cluster:
                crew = DaskCrew(cluster.scheduler_address)
                addresses = cluster.scheduler_info["workers"]
                for core, address in enumerate(addresses):
                    crew._client.run(pin, core, workers=[address])
                for number in range(options.rounds + 1):
                    cache = FeatureCache(folder / f"cache{workers}{number}")
                    started = time.perf_counter()
                    # The first round loads libraries and backbone in each worker.
                    drain(embed_ahead(crew, [], cases, backbone, preprocessing, cache, 2))
                    if number:
                        took = time.perf_counter() - started
                        best[workers] = min(took, best.get(workers, took))
                crew.close()
            print(f"{workers} worker(s): {best[workers]:.1f} s for {len(cases)} scans")
    print(f"{best[1] / best[2]:.2f}")


if __name__ == "__main__":
    main()
