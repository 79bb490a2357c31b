"""Findings as a DICOM segmentation, and the map as a DICOM parametric map, of a DICOM series."""

from __future__ import annotations

from napari_dino_uad.core.dicom_export.objects import (
    DicomPaths,
    write_dicom_map,
    write_dicom_segmentation,
)
from napari_dino_uad.core.dicom_export.source import why_no_dicom

__all__ = ["DicomPaths", "why_no_dicom", "write_dicom_map", "write_dicom_segmentation"]
