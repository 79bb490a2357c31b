"""From a cohort to the figures of an evaluation, by the Python API alone.

    python examples/cohort_to_figure.py HEALTHY ILL OUT

HEALTHY is a folder of healthy scans, ILL one of NAME_flair.nii.gz and NAME_lesion.nii.gz. OUT gets
the model, the results, a report and the curves.
"""

from __future__ import annotations

import sys
from pathlib import Path

from napari_dino_uad import drain, evaluate, find_cases, fit, read_evaluation, save_model
from napari_dino_uad.core.evaluation.page import write_evaluation_report


def main(healthy: str, ill: str, out: str) -> None:
    """Fit, evaluate and write the report."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    # A fifth of the healthy scans is held out and sets the thresholds.
    model = drain(fit(find_cases([healthy]), method="dpmm"))
    save_model(model, folder / "model.safetensors")

    cases = find_cases([ill], "*_flair.nii.gz", "*_lesion.nii.gz", require_masks=True)
    drain(evaluate(cases, model, out=folder / "results"))

    results = read_evaluation(folder / "results")
    for convention, figures in results.metrics["conventions"].items():
        print(f"{convention}: AUROC {figures['auroc']:.3f}, AP {figures['average_precision']:.3f}")
    for failure in results.failures[:5]:
        print(f"{failure.case}: {failure.text()}")
    print(drain(write_evaluation_report(results)))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
