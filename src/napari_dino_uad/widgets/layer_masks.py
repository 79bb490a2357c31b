"""Lesion masks from labels layers, brought onto the grid of their scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.widgets.layers import scan_shape, volume_of

if TYPE_CHECKING:
    from napari.components import LayerList
    from napari.layers import Layer

    from napari_dino_uad.core.scans.cohort import Case
    from napari_dino_uad.core.scans.grids import MaskGeometry
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["MASK_ENDING", "LayerMask", "LayerScan", "find_mask", "layer_cases", "mask_reader"]

#: The name of a mask's layer is the name of its scan followed by this.
MASK_ENDING = " mask"

#: Brings a mask onto the canonical grid of its scan; returns it with a note for the user.
LayerMask = Callable[["MaskGeometry"], tuple[NDArray[np.bool_], str]]

#: Functions that read the scan of an image layer and its mask; None without a mask.
LayerScan = tuple[Callable[[], "Volume"], LayerMask | None]


def layer_cases(layers: Sequence[LayerScan], geometry: MaskGeometry) -> tuple[list[Case], str]:
    """Read the scans and masks of layers; return them with a note on the masks for the user.

    Raises
    ------
    InputError
        If a scan cannot be used or a mask lies elsewhere.
    """
    from napari_dino_uad.core.scans.cohort import Case

    cases, said = [], ""
    for read, bring in layers:
        mask, note = (None, "") if bring is None else bring(geometry)
        cases.append(Case(read(), mask))
        said = said or note
    return cases, said


def find_mask(layers: LayerList, scan: Image) -> Labels | None:
    """Return the labels layer that is the mask of a scan, or None without one.

    Raises
    ------
    InputError
        If the layer of that name is not a labels layer.
    """
    name = f"{scan.name}{MASK_ENDING}"
    if name not in layers:
        return None
    mask = layers[name]
    if not isinstance(mask, Labels):
        raise InputError(
            f"The layer {name!r} should be the mask of {scan.name!r}: expected a labels layer, got "
            f"one of type {type(mask).__name__.lower()}; convert it to labels, or rename it."
        )
    return mask


def mask_reader(mask: Labels, scan: Image) -> LayerMask:
    """Return a function that brings the mask of a labels layer onto its scan.

    If both layers were opened from files, the geometry of the files counts, otherwise the place
    of the layers in the viewer.

    Parameters
    ----------
    mask : Labels
        A 2D or 3D labels layer.
    scan : Image
        Its scan.

    Returns
    -------
    callable
        It does not use the layers, so it may be called in a thread. It raises `InputError` if
        the mask does not lie on the scan.

    Raises
    ------
    InputError
        If the mask has too many dimensions.
    """
    if mask.ndim not in (2, 3):
        raise InputError(
            f"The layer {mask.name!r}: expected 2D or 3D labels, got {mask.ndim} dimensions; "
            "take one volume of them."
        )
    data = np.asarray(mask.data)
    own, of_scan = _file_volume(mask), _file_volume(scan)
    if own is not None and of_scan is not None:
        ours, theirs = replace(own, path=None, name=mask.name), of_scan
    else:
        ours, theirs = _placed_volume(mask), _placed_volume(scan)

    def read(geometry: MaskGeometry) -> tuple[NDArray[np.bool_], str]:
        from napari_dino_uad.core.scans.grids import match_mask

        array = (data > 0).astype(np.float32).reshape(ours.shape)
        matched, note = match_mask(replace(ours, array=array), theirs, geometry)
        return matched > 0, note

    return read


def _file_volume(layer: Layer) -> Volume | None:
    """Return the volume of the file that a layer was opened from, or None without one."""
    volume = volume_of(layer)
    shape = scan_shape(layer)
    return volume if volume is not None and volume.shape[-len(shape) :] == shape else None


def _placed_volume(layer: Layer) -> Volume:
    """Make a volume of zeros at the place of a layer in the viewer."""
    from napari_dino_uad.core.scans.volume import FileGrid, Volume

    missing = 3 - layer.ndim
    shape = (1,) * missing + scan_shape(layer)
    start = np.zeros(layer.ndim)
    origin = np.asarray(layer.data_to_world(start), dtype=np.float64)
    steps = [np.asarray(layer.data_to_world(one)) - origin for one in np.eye(layer.ndim)]
    axes = np.eye(3)
    axes[missing:, missing:] = np.stack(steps, axis=1)
    spacing = np.linalg.norm(axes, axis=0)
    direction = axes / spacing
    place = np.concatenate([np.zeros(missing), origin])
    return Volume(
        array=np.broadcast_to(np.float32(0), shape),
        spacing_mm=tuple(spacing.tolist()),
        origin_mm=tuple(place.tolist()),
        direction=direction,
        grid=FileGrid(
            shape[::-1],
            tuple(spacing[::-1].tolist()),
            tuple(place[::-1].tolist()),
            tuple(direction[::-1, ::-1].ravel().tolist()),
        ),
        name=layer.name,
        is_2d=shape[0] == 1,
    )
