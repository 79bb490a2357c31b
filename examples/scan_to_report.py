"""From a scan and a model to a report on the scan, by the Python API alone.

    python examples/scan_to_report.py SCAN MODEL OUT

OUT gets the map and the findings on the grid of the scan's file, and a page with pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from napari_dino_uad import detect, drain, load_model, read_volume
from napari_dino_uad.core.maps.finding_rows import finding_rows
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.report.page import CaseFacts, write_report
from napari_dino_uad.core.results import write_results

FALSE_ALARMS = 0.01


def main(scan: str, model_file: str, out: str) -> None:
    """Detect and write the results."""
    model, folder = load_model(model_file), Path(out)
    anomaly = drain(detect(read_volume(scan), model))
    labels, findings = find_findings(
        anomaly.scores,
        anomaly.volume,
        model.calibration.threshold(FALSE_ALARMS),
        model.calibration,
        foreground=anomaly.foreground,
        core=model.calibration.core_threshold(FALSE_ALARMS),
    )
    for path in write_results(folder, anomaly, labels, findings, FALSE_ALARMS):
        print(path)
    rows = finding_rows(findings, anomaly.tissue_frame)
    for row in rows:
        print(f"{row.label}: {row.size:.1f} {row.unit}, {row.side}")
    write_report(folder / "report.html", anomaly, labels, rows, CaseFacts(FALSE_ALARMS))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
