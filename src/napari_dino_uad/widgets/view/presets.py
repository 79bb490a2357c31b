"""Contrast of scans: what the file recommends, and limits from the scan's own values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.hounsfield import is_ct
from napari_dino_uad.widgets.layers import volume_of

if TYPE_CHECKING:
    from napari.layers import Image


__all__ = ["auto_limits", "file_limits", "shows_ct"]

_SAMPLE = 1_000_000
# Share of the brightest tissue that may be clipped.
_BRIGHT = 99.5


def shows_ct(scan: Image) -> bool:
    """Return whether the values of a scan are Hounsfield units."""
    volume = volume_of(scan)
    return is_ct(_sample(scan), None if volume is None else volume.modality)


def file_limits(scan: Image) -> tuple[float, float] | None:
    """Return the window that the file recommends, if it has one."""
    volume = volume_of(scan)
    if volume is None or volume.window is None:
        return None
    centre, width = volume.window
    return centre - width / 2, centre + width / 2


def auto_limits(scan: Image) -> tuple[float, float]:
    """Return limits from the scan's values: all but the brightest, background left out."""
    sample = _sample(scan)
    if not sample.size:
        return 0.0, 1.0
    low = float(sample.min())
    # The background is often half of the picture, and has the lowest value.
    tissue = sample[sample > low]
    high = float(np.percentile(tissue, _BRIGHT)) if tissue.size else low
    return low, high if high > low else low + 1.0


def _sample(scan: Image) -> NDArray[Any]:
    data = scan.data
    # A stride that shares no factor with the edges visits all rows and columns.
    step = max(1, data.size // _SAMPLE) | 1
    sample = np.asarray(data).reshape(-1)[::step]
    return sample[np.isfinite(sample)]
