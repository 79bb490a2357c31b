"""Cross-validate a method over the patients for fitting and tuning of the LGG benchmark.

Ten validation patients are few to choose settings with. Here, all 50 patients of `train` and
`valid` are dealt into folds: one is tested on, the next chooses epochs and calibrates, the others
are fitted on. The patients of `test` are not read.

    python scripts/cross_validate.py DATA/lgg --method ar --lesions bright --set hidden=64
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_dino_uad import drain, evaluate, fit, load_backbone
from napari_dino_uad.cli.options import parse_settings
from napari_dino_uad.core.backbones.engines.choice import choose_engine
from napari_dino_uad.core.bench.splits import lgg_split
from napari_dino_uad.core.maps.brightness import LESIONS
from napari_dino_uad.core.maps.score_map import MapSettings
from napari_dino_uad.core.normative.methods import KNOWN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with train and valid")
    parser.add_argument("--method", choices=KNOWN, default="dpmm")
    parser.add_argument("--lesions", choices=LESIONS, default=MapSettings.lesions)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    split = lgg_split(options.data)
    cases = [*split.train, *split.valid]
    order = np.random.default_rng(0).permutation(len(cases))
    folds = [[cases[i] for i in order[fold :: options.folds]] for fold in range(options.folds)]
    backbone = drain(choose_engine(load_backbone()))
    pixels, rows = [], []
    for number, test in enumerate(folds):
        others = folds[number + 1 :] + folds[:number]
        model = drain(
            fit(
                [case for fold in others[1:] for case in fold],
                valid=others[0],
                method=options.method,
                settings=parse_settings(options.method, options.set),
                backbone=backbone,
                maps=MapSettings(lesions=options.lesions),
                seed=options.seed,
            )
        )
        found = drain(evaluate(test, model, backbone=backbone))
        pixels.append(found.metrics["conventions"]["tissue"])
        rows += found.cases
        print(f"fold {number + 1}: AP {pixels[-1]['average_precision']:.3f}, {model.summary()}")
    print_means(pixels, rows)


def print_means(pixels: list[dict], rows: list[dict]) -> None:
    """Print means over the folds and over the patients."""
    for name in ("average_precision", "auroc", "max_dice"):
        values = [pixel[name] for pixel in pixels]
        print(f"{name}, mean of folds: {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
    own = np.array([row["average_precision"] for row in rows])
    rates = np.array([row["realised_fpr_0.05"] for row in rows])
    print(f"average precision of a patient: {own.mean():.3f}, {(own < 0.3).sum()} below 0.3")
    print(
        f"patients with 2 to 8 % at nominal 5 %: {((rates >= 0.02) & (rates <= 0.08)).mean():.0%}"
    )
    met = sum(row["largest_lesion_met"] for row in rows)
    print(f"largest lesion met at 1 %: {met} of {len(rows)}")
    print(f"false findings a scan at 1 %: {np.mean([row['false_findings'] for row in rows]):.2f}")


if __name__ == "__main__":
    main()
