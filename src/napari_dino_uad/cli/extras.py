"""What `detect` writes beside map, findings and record: a report, and DICOM objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_dino_uad.cli.resume import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.findings import Finding

__all__ = ["Extras"]


class Extras(NamedTuple):
    """What is asked for.

    Attributes
    ----------
    report : bool
        An HTML page.
    dicom : bool
        A DICOM segmentation and a parametric map, of scans that are DICOM series.
    """

    report: bool = False
    dicom: bool = False

    def there(self, out: Path, name: str) -> bool:
        """Return whether a case has what is asked for; DICOM is made again where it can be."""
        return not self.dicom and (not self.report or _page(out, name).is_file())

    def write(
        self,
        out: Path,
        name: str,
        anomaly: AnomalyMap,
        labels: NDArray[np.uint8],
        findings: Sequence[Finding],
        request: Request,
    ) -> list[str]:
        """Write what is asked for of one case; return notes for the user.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        from napari_dino_uad.core.maps.finding_rows import finding_rows

        if not (self.report or self.dicom):
            return []
        rows = finding_rows(findings, anomaly.tissue_frame)
        if self.report:
            from napari_dino_uad.core.report import CaseFacts, write_report

            facts = CaseFacts(request.false_positive_rate, request.minimum_size)
            write_report(_page(out, name), anomaly, labels, rows, facts)
        if self.dicom:
            from napari_dino_uad.core.dicom_export import (
                DicomPaths,
                why_no_dicom,
                write_dicom_map,
                write_dicom_segmentation,
            )

            if why := why_no_dicom(anomaly.volume):
                return [f"Note: {name}: {why}"]
            places = DicomPaths.of(out, name)
            write_dicom_map(places.parametric_map, anomaly)
            if rows:
                write_dicom_segmentation(places.segmentation, anomaly, labels, rows)
        return []


def _page(out: Path, name: str) -> Path:
    return out / f"{name}_report.html"
