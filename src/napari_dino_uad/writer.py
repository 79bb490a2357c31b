"""The writers for napari: save images and labels on the grid of the file they are from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.layer_data import METADATA

__all__ = ["write_image", "write_labels"]


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer.

    Parameters
    ----------
    path : str
        Ends in .nii, .nii.gz, .nrrd, .mha or .mhd.
    data : array
        The layer's data, 2D or 3D.
    attributes : dict
        The layer's attributes. If their metadata have the volume of a scan, the data are saved on
        the grid of its file, otherwise with the layer's scale and translation.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    InputError
        If the layer is not 2D or 3D, or the file cannot be written.
    """
    return _write(path, np.asarray(data), attributes)


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a labels layer, in the smallest integer type for its labels."""
    labels = np.asarray(data)
    return _write(path, labels.astype(np.min_scalar_type(int(labels.max(initial=0)))), attributes)


def _write(path: str, data: NDArray[Any], attributes: dict[str, Any]) -> list[str]:
    from napari_dino_uad.core.scans.volume import volume_from_array, write_volume

    if data.ndim not in (2, 3):
        raise InputError(
            f"A scan has 2 or 3 dimensions, but this layer has {data.ndim}; save one volume of it."
        )
    missing = 3 - data.ndim
    array = data[np.newaxis] if missing else data
    if array.dtype == bool:
        array = array.astype(np.uint8)
    volume = attributes.get("metadata", {}).get(METADATA, {}).get("volume")
    if volume is None or volume.shape != array.shape:
        scale = (1.0,) * missing + tuple(abs(float(one)) for one in attributes["scale"])
        origin = (0.0,) * missing + tuple(float(one) for one in attributes["translate"])
        volume = volume_from_array(np.asarray(array), scale, origin, attributes["name"])
    write_volume(path, array, volume)
    return [path]
