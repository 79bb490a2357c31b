"""The fastest engine on the CPU compared with torch in single precision, on the same slices.

Uses ViT-S/14 at 448 pixels with random weights, which do not change its time. Engines run in turn.
The best round of each counts, because other programs may be running.

    python benchmarks/engines.py [--backbone dinov2-vits14] [--rounds 5]

The last line is the speed-up by the fastest engine that gives the same embeddings.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial

import torch
from detect_overhead import best, head, in_thread, place

from napari_dino_uad.core.backbones.backbone import Backbone
from napari_dino_uad.core.backbones.engines.choice import available_engines, choose_engine
from napari_dino_uad.core.backbones.engines.measurement import SMALLEST_COSINE
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import drain
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

_SLICES = 8


def embed_all(backbone: Backbone, batches: list[torch.Tensor], _: int) -> None:
    """Embed all slices; the round is ignored."""
    in_thread(lambda: [backbone.embed(images) for images in batches])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="dinov2-vits14")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_DINO_UAD_CACHE"] = folder
        reference = place(options.backbone, "torch float32")
        spec = reference.spec
        scan = prepare(head(40, 240, 0), Preprocessing(input_size=spec.input_size))
        grid = scan.grid(spec.stride, spec.multiple)
        batches = [scan.images([number, number + 1], grid) for number in range(16, 16 + _SLICES, 2)]
        expected = [reference.embed(images) for images in batches]
        placed = {}
        for engine in available_engines("cpu"):
            wish = f"{engine.library} {engine.precision}"
            try:
                placed[wish] = drain(choose_engine(reference, "cpu", wish))
            except InputError as error:
                print(f"{wish}: {error}")
        seconds = best(
            {wish: partial(embed_all, one, batches) for wish, one in placed.items()},
            options.rounds,
        )
        same = {}
        for wish, backbone in placed.items():
            cosine = min(
                float(torch.cosine_similarity(backbone.embed(images), one, dim=1).min())
                for images, one in zip(batches, expected, strict=True)
            )
            print(f"{wish}: {seconds[wish] / _SLICES:.3f} s per slice, min cosine {cosine:.5f}")
            if cosine >= SMALLEST_COSINE:
                same[wish] = seconds[wish]
    fastest = min(same, key=lambda wish: same[wish])
    print(f"fastest engine with the same embeddings: {fastest}")
    print(f"ratio: {same['torch float32'] / same[fastest]:.2f}")


if __name__ == "__main__":
    main()
