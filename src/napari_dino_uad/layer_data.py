"""From a volume to what napari makes a layer of: the one place that says how scans are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_dino_uad.core.volume import Volume

__all__ = [
    "AXIS_LABELS",
    "METADATA",
    "PIXEL_AXIS_LABELS",
    "PIXEL_UNITS",
    "UNITS",
    "labels_layer",
    "volume_layer",
]

#: Key under which the plugin keeps its own things in a layer's metadata.
METADATA = "napari_dino_uad"

#: Canonical axes run towards the head, the back and the patient's left.
AXIS_LABELS = ("S", "P", "L")
UNITS = "mm"

#: Of images that tell neither their spacing nor how the patient lay.
PIXEL_AXIS_LABELS = ("slice", "row", "column")
PIXEL_UNITS = "pixel"

# Share of the brightest voxels that may be clipped where a scan has no window of its own.
_BRIGHT_PERCENTILE = 99.8
_SAMPLE = 2_000_000


def volume_layer(volume: Volume) -> tuple[NDArray[Any], dict[str, Any], str]:
    """Return the layer data of a scan, on canonical axes in mm, or in pixels without spacing.

    The layer has scale and translation alone: napari shows no rotation in 2D, so the true
    geometry of an oblique scan stays in the volume, which goes along in the metadata.

    Parameters
    ----------
    volume : Volume
        The scan.

    Returns
    -------
    tuple of (ndarray, dict, str)
        Data (S, P, L), or (P, L) of a 2D image; keywords; and "image".
    """
    data, keywords = _placed(volume, volume.array)
    keywords |= {
        "name": volume.name,
        "colormap": "gray",
        "contrast_limits": _contrast_limits(volume),
        "metadata": {METADATA: {"volume": volume}},
    }
    return data, keywords, "image"


def labels_layer(
    volume: Volume, labels: NDArray[Any], name: str
) -> tuple[NDArray[Any], dict[str, Any], str]:
    """Return the layer data of labels (S, P, L) on the grid of a scan, in few bits.

    napari redraws edited labels of eight bits fifty times as fast as those of 32.
    """
    kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
    data, keywords = _placed(volume, labels.astype(kind))
    keywords |= {"name": name, "metadata": {METADATA: {"volume": volume}}}
    return data, keywords, "labels"


def _placed(volume: Volume, array: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    ndim = 2 if volume.is_2d else 3
    labels = AXIS_LABELS if volume.spacing_known else PIXEL_AXIS_LABELS
    return array[0] if volume.is_2d else array, {
        "scale": volume.spacing_mm[-ndim:],
        "translate": volume.origin_mm[-ndim:],
        "units": (UNITS if volume.spacing_known else PIXEL_UNITS,) * ndim,
        "axis_labels": labels[-ndim:],
    }


def _contrast_limits(volume: Volume) -> tuple[float, float]:
    """Take the scan's own window, or leave out the few brightest voxels."""
    if volume.window is not None:
        centre, width = volume.window
        return centre - width / 2, centre + width / 2
    sample = volume.array.ravel()[:: max(1, volume.array.size // _SAMPLE)]
    low = float(sample.min())
    high = float(np.percentile(sample, _BRIGHT_PERCENTILE))
    return low, high if high > low else float(volume.array.max())
