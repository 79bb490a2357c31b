"""Which slices of a scan are healthy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.slices.planes import Plane, to_plane
from napari_dino_uad.core.slices.prepared import PreparedScan

__all__ = ["LESION_MARGIN", "MINIMUM_TISSUE", "healthy_slices", "tissue_slices"]

# A slice with less tissue than this share (4,000 pixels of 256 x 256) is a cap of the head or
# air, and says nothing of normal anatomy.
MINIMUM_TISSUE = 4000 / 256**2
# Slices this near to a lesion slice may show its edge or its swelling.
LESION_MARGIN = 2


def tissue_slices(scan: PreparedScan) -> NDArray[np.bool_]:
    """Return which slices hold enough tissue to be modelled, (slices,) of bool.

    A single slice needs only some: whoever made it chose it.
    """
    if len(scan) == 1:
        return np.asarray(scan.foreground.any(axis=(1, 2)))
    return np.asarray(scan.foreground.mean(axis=(1, 2)) > MINIMUM_TISSUE)


def healthy_slices(
    scan: PreparedScan, mask: NDArray[np.bool_] | None, plane: Plane
) -> NDArray[np.int64]:
    """List the slices with enough tissue that lie clear of any lesion.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    mask : ndarray of bool, (S, P, L), or None
        Lesions on the volume's canonical grid.
    plane : str
        The plane of the scan's slices.

    Returns
    -------
    ndarray of int64
        Slice numbers.
    """
    healthy = tissue_slices(scan)
    if mask is not None:
        lesion = np.flatnonzero(to_plane(mask, plane).any(axis=(1, 2)))
        for index in lesion:
            healthy[max(0, index - LESION_MARGIN) : index + LESION_MARGIN + 1] = False
    return np.flatnonzero(healthy)
