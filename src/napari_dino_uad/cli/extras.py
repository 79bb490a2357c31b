"""What `detect` writes beside map, findings and record: a report, DICOM objects, components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_dino_uad.cli.resume import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.features.cache import FeatureCache
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
    components : bool
        The nearest component of a mixture at every voxel of tissue, as labels.
    likelihoods : int
        Number of components whose log-likelihood is written.
    named : bool
        Whether the page names the scan.
    """

    report: bool = False
    dicom: bool = False
    components: bool = False
    likelihoods: int = 0
    named: bool = False

    def there(self, out: Path, name: str) -> bool:
        """Return whether a case has what is asked for.

        DICOM is made again where it can be, and so are named pages, which may be without the name.
        """
        if self.dicom or self.named:
            return False
        pages = [path(out, name) for path, asked in self._files().items() if asked]
        if self.likelihoods and not _likelihoods_there(out, name, self.likelihoods):
            return False
        return all(path.is_file() for path in pages)

    def _files(self) -> dict[Callable[[Path, str], Path], bool]:
        return {_page: self.report, _components: self.components}

    def write(
        self,
        out: Path,
        name: str,
        anomaly: AnomalyMap,
        labels: NDArray[np.uint8],
        findings: Sequence[Finding],
        request: Request,
        backbone: Backbone,
        cache: FeatureCache | bool,
    ) -> list[str]:
        """Write what is asked for of one case; return notes for the user.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        from napari_dino_uad.core.maps.finding_rows import finding_rows

        if self.components:
            _write_components(_components(out, name), anomaly, backbone, cache)
        if self.likelihoods:
            from napari_dino_uad.core.explain.likelihoods import write_likelihoods
            from napari_dino_uad.core.explain.slices import Explainer
            from napari_dino_uad.core.progress import drain

            explainer = Explainer(anomaly, backbone, cache)
            drain(write_likelihoods(explainer, out, name, self.likelihoods))
        if not (self.report or self.dicom):
            return []
        rows = finding_rows(findings, anomaly.tissue_frame)
        if self.report:
            from napari_dino_uad.core.report import CaseFacts, write_report

            facts = CaseFacts(
                request.false_positive_rate,
                request.minimum_size,
                scan_name=anomaly.volume.name if self.named else "",
            )
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


def _components(out: Path, name: str) -> Path:
    return out / f"{name}_components.nii.gz"


def _likelihoods_there(out: Path, name: str, count: int) -> bool:
    """Return whether a case has its maps of as many components."""
    from napari_dino_uad.core.explain.likelihoods import read_likelihoods

    rows = read_likelihoods(out, name)
    return len(rows) == count and all((out / row.file).is_file() for row in rows)


def _write_components(
    path: Path, anomaly: AnomalyMap, backbone: Backbone, cache: FeatureCache | bool
) -> None:
    """Write the nearest component of each voxel of tissue, counted from 1, on the file's grid."""
    from napari_dino_uad.core.explain.overlays import explain_scan
    from napari_dino_uad.core.explain.slices import Explainer
    from napari_dino_uad.core.progress import drain
    from napari_dino_uad.core.scans.volume import write_volume

    overlay = drain(explain_scan(Explainer(anomaly, backbone, cache), "component"))
    voxels = overlay.on_voxels(anomaly.volume.shape)
    write_volume(path, voxels * anomaly.foreground, anomaly.volume)
