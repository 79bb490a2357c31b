"""Reading and writing of scans under the module's earlier name.

Deprecated: import from `napari_dino_uad` or `napari_dino_uad.core.scans.volume`.
"""

from __future__ import annotations

import warnings
from typing import Any

from napari_dino_uad.core.scans import volume as _volume

warnings.warn(
    "napari_dino_uad.core.volume is now napari_dino_uad.core.scans.volume; import from there.",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    return getattr(_volume, name)
