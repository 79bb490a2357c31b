"""Repeated detection, with cached embeddings, compared with the first detection.

Detects in a scan of 155 slices of 240 x 240 with ViT-S/14 at 448 pixels and random weights, from
the volume to the scores of its voxels.

    python benchmarks/cache.py [--engine auto] [--rounds 2]

The last line is the time of a repeated detection as a share of the first.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from detect_overhead import head, place, seconds_of, small_model

from napari_dino_uad import detect, drain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="dinov2-vits14")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_DINO_UAD_CACHE"] = folder
        backbone = place(options.backbone, options.engine)
        model = small_model(backbone)
        volume = head(155, 240, 100)
        print(backbone.words)

        def detection() -> None:
            # Access `scores`, because voxels are computed on demand.
            _ = drain(detect(volume, model, backbone=backbone)).scores

        first, again = [], []
        for number in range(options.rounds):
            os.environ["NAPARI_DINO_UAD_CACHE"] = str(Path(folder) / str(number))
            first.append(seconds_of(detection))
            again += [seconds_of(detection) for _ in range(5)]
            print(f"first {first[-1]:.2f} s, again {min(again[-5:]):.2f} s", flush=True)
    print(f"ratio: {min(again) / min(first):.4f}")


if __name__ == "__main__":
    main()
