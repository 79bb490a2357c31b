"""Reading and writing of scans under the module's earlier name.

Deprecated: import from `napari_dino_uad` or `napari_dino_uad.core.scans.volume`.
"""

from __future__ import annotations

import warnings

from napari_dino_uad.core.scans.volume import (
    IMAGE_SUFFIXES,
    VOLUME_SUFFIXES,
    WRITABLE_SUFFIXES,
    FileGrid,
    Series,
    Volume,
    case_name,
    find_scans,
    list_series,
    read_series,
    read_stack,
    read_volume,
    to_file_grid,
    volume_from_array,
    write_volume,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "VOLUME_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "FileGrid",
    "Series",
    "Volume",
    "case_name",
    "find_scans",
    "list_series",
    "read_series",
    "read_stack",
    "read_volume",
    "to_file_grid",
    "volume_from_array",
    "write_volume",
]

warnings.warn(
    "napari_dino_uad.core.volume is now napari_dino_uad.core.scans.volume; import from there.",
    DeprecationWarning,
    stacklevel=2,
)
