"""Turns volumes into layer data: the one place that defines how scans are shown."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.contrast import first_limits

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Volume

__all__ = [
    "AXIS_LABELS",
    "METADATA",
    "PIXEL_AXIS_LABELS",
    "PIXEL_UNITS",
    "UNITS",
    "labels_layer",
    "lies_on",
    "shown_volumes",
    "volume_layer",
]

#: Key of this plugin's entry in the metadata of a layer.
METADATA = "napari_dino_uad"

#: Canonical axes: superior, posterior, left.
AXIS_LABELS = ("S", "P", "L")
UNITS = "mm"

#: For images without spacing and orientation.
PIXEL_AXIS_LABELS = ("slice", "row", "column")
PIXEL_UNITS = "pixel"

# Volumes that layers were made of, as long as one of them is there.
_SHOWN: weakref.WeakValueDictionary[int, Volume] = weakref.WeakValueDictionary()


def volume_layer(volume: Volume) -> tuple[NDArray[Any], dict[str, Any], str]:
    """Return the layer data of a scan, on canonical axes in mm, or in pixels without spacing.

    The layer has only scale and translation, because napari shows no rotation in 2D. The true
    geometry of an oblique scan is kept in the volume, in the metadata.

    Parameters
    ----------
    volume : Volume
        The scan.

    Returns
    -------
    tuple of (ndarray, dict, str)
        Data (S, P, L), or (P, L) of a 2D image, with colours last if it has any; keywords; and
        "image".
    """
    if volume.colour is not None:
        data, keywords = _placed(volume, volume.colour)
        return (
            data,
            keywords
            | {
                "name": volume.name,
                "rgb": True,
                "metadata": _metadata(volume),
            },
            "image",
        )
    data, keywords = _placed(volume, volume.array)
    keywords |= {
        "name": volume.name,
        "colormap": "gray",
        "contrast_limits": first_limits(volume),
        "metadata": _metadata(volume),
    }
    return data, keywords, "image"


def labels_layer(
    volume: Volume, labels: NDArray[Any], name: str
) -> tuple[NDArray[Any], dict[str, Any], str]:
    """Return the layer data of labels (S, P, L) on the grid of a scan, in a small integer type.

    napari redraws edited labels of 8 bits fifty times as fast as those of 32 bits.
    """
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=0))
    kinds = (np.uint8, np.uint16, np.int32)
    kind = next(
        one for one in kinds if np.iinfo(one).min <= lowest and highest <= np.iinfo(one).max
    )
    data, keywords = _placed(volume, labels.astype(kind))
    keywords |= {"name": name, "metadata": _metadata(volume)}
    return data, keywords, "labels"


def _metadata(volume: Volume) -> dict[str, Any]:
    return {METADATA: {"volume": volume, "notices": volume.notices}}


def shown_volumes() -> list[Volume]:
    """Return the volumes that layers were made of and that are still in use."""
    return list(_SHOWN.values())


def lies_on(
    volume: Volume, shape: Sequence[int], scale: Sequence[float], translate: Sequence[float]
) -> bool:
    """Say whether a layer has the shape and place that the layer of a volume has.

    Parameters
    ----------
    volume : Volume
        A scan.
    shape, scale, translate : sequence
        Of the layer, in two or three dimensions.
    """
    ndim = 2 if volume.is_2d else 3
    return tuple(shape) == volume.shape[-ndim:] and bool(
        np.allclose(scale, volume.spacing_mm[-ndim:], rtol=1e-5)
        and np.allclose(translate, volume.origin_mm[-ndim:], atol=1e-3)
    )


def _placed(volume: Volume, array: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    _SHOWN[id(volume)] = volume
    ndim = 2 if volume.is_2d else 3
    labels = AXIS_LABELS if volume.spacing_known else PIXEL_AXIS_LABELS
    return array[0] if volume.is_2d else array, {
        "scale": volume.spacing_mm[-ndim:],
        "translate": volume.origin_mm[-ndim:],
        "units": (UNITS if volume.spacing_known else PIXEL_UNITS,) * ndim,
        "axis_labels": labels[-ndim:],
    }
