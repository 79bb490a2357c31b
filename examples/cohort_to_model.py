"""From a folder of healthy scans to a model, by the Python API alone.

    python examples/cohort_to_model.py SCANS MODEL [PATTERN]

SCANS is a folder, a table or a BIDS data set; PATTERN says which of its files are scans. Prints the
thresholds of the model, and how well they hold in single healthy scans.
"""

from __future__ import annotations

import sys
from pathlib import Path

from napari_dino_uad import drain, find_cases, fit, save_model


def main(scans: str, model_file: str, pattern: str | None = None) -> None:
    """Fit and save."""
    cases = find_cases([scans], pattern)
    print(f"{len(cases)} scans")
    steps: list[str] = []

    def tell(progress: object) -> None:
        step = getattr(progress, "step", "")
        if step not in steps:
            steps.append(step)
            print(step)

    # A seed gives the same model on the same machine.
    model = drain(fit(cases, method="dpmm", settings={"components": 100}, seed=0), tell)
    save_model(model, Path(model_file))
    print(model.summary())
    for rate in (0.05, 0.01):
        low, high = model.calibration.interval(rate)
        threshold = model.calibration.threshold(rate)
        print(f"{rate:.0%}: score {threshold:.2f}, {low:.1%} to {high:.1%} in single healthy scans")


if __name__ == "__main__":
    main(*sys.argv[1:])
