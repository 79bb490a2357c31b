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
    held_out = len(model.calibration.scan_rates)
    for rate in (0.05, 0.01):
        low, high = model.calibration.interval(rate)
        line = f"{rate:.0%}: score {model.calibration.threshold(rate):.2f}"
        # One scan has no spread.
        spread = f", {low:.1%} to {high:.1%} in single healthy scans" if held_out > 1 else ""
        print(line + spread)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
