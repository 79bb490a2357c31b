"""The writers for napari: save images and labels on the grid of the file they are from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.layer_data import METADATA, lies_on, shown_volumes
from napari_dino_uad.notifications import show_notices

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Volume

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
        The layer's attributes. If their metadata have the volume of a scan, or the layer lies on
        the layer of an open scan, the data are saved on the grid of that scan's file, otherwise
        with the layer's scale and translation.

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
    volume = _scan_of(data, attributes)
    if volume is None:
        scale = (1.0,) * missing + tuple(abs(float(one)) for one in attributes["scale"])
        origin = (0.0,) * missing + tuple(float(one) for one in attributes["translate"])
        volume = volume_from_array(
            np.asarray(array), scale, origin, attributes["name"], allow_constant=True
        )
    write_volume(path, array, volume)
    return [path]


def _scan_of(data: NDArray[Any], attributes: dict[str, Any]) -> Volume | None:
    """Find the scan that a layer lies on, and say so where it lies on none.

    napari's own "New labels" makes a layer of the shape, scale and place of a scan's layer, but
    without its metadata, where the true geometry of an oblique scan is.
    """
    own = attributes.get("metadata", {}).get(METADATA, {}).get("volume")
    if own is not None and own.shape[-data.ndim :] == data.shape:
        return own
    scans = _open_scans()
    found = [
        scan
        for scan in scans
        if not _is_turned(attributes)
        and lies_on(scan, data.shape, attributes["scale"], attributes["translate"])
    ]
    if len(_grids(found)) > 1:
        # napari names such a layer after the one that it was made over.
        named = [scan for scan in found if attributes["name"].startswith(scan.name)]
        found = [scan for scan in named if len(scan.name) == max(len(one.name) for one in named)]
    if len(_grids(found)) == 1:
        return found[0]
    if scans or own is not None:
        which = "several open scans" if found else "no open scan"
        show_notices(
            (
                f"The layer {attributes['name']} lies on the grid of {which}, so it is saved as it "
                "lies in the viewer, without the geometry of a scan's file.",
            )
        )
    return None


def _open_scans() -> list[Volume]:
    """Return the scans of the viewer's layers, or without a viewer those that layers have."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        return shown_volumes()
    volumes = (layer.metadata.get(METADATA, {}).get("volume") for layer in viewer.layers)
    return list({id(volume): volume for volume in volumes if volume is not None}.values())


def _grids(scans: list[Volume]) -> set[Any]:
    """Return the different grids of scans."""
    return {scan.grid for scan in scans}


def _is_turned(attributes: dict[str, Any]) -> bool:
    """Say whether a layer was turned or sheared by hand."""
    for name in ("rotate", "affine"):
        matrix = np.atleast_2d(attributes.get(name, 1.0))
        if not np.allclose(matrix, np.eye(len(matrix))):
            return True
    return bool(np.any(np.abs(attributes.get("shear", 0.0)) > 1e-9))
