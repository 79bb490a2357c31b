"""Skull and scalp of a head, from the dark ring between scalp and brain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_dino_uad.core.slices.prepared import PreparedScan

__all__ = ["dark_rings", "has_skull", "scalp"]

# Part of the tissue's height, from its foot, where an axial slice of a head shows skull and brain,
# and how many slices of it are looked at.
_HEIGHTS, _SLICES = (0.45, 0.8), 6
# Rings below the surface in mm, of which the outermost is the edge of the tissue itself.
_RINGS = np.arange(4.0, 21.0, 2.0)
# Scaled intensity below which bone is dark.
_DARK = 0.2
# Dark share of the darkest ring. 25 whole heads (FLAIR) have 0.19 to 0.78, six skull-stripped ones
# of T1 and FLAIR 0.01 to 0.07.
_STRIPPED, _WHOLE = 0.1, 0.16
# The scalp ends at the darkest ring, at this depth in mm at most.
_DEEPEST_SCALP = 10.0


def has_skull(scan: PreparedScan) -> bool | None:
    """Return whether a head has its skull and scalp.

    Parameters
    ----------
    scan : PreparedScan
        In axial slices, of a head.

    Returns
    -------
    bool or None
        None if it cannot be told.
    """
    shares = dark_rings(scan)
    if not shares.size:
        return None
    darkest = float(shares.max())
    return False if darkest < _STRIPPED else True if darkest > _WHOLE else None


def scalp(scan: PreparedScan) -> NDArray[np.bool_] | None:
    """Find the scalp of a head: what lies less deep than the middle of its skull.

    The depth is that of the darkest ring, one figure for the whole head, so that some of the
    surface of the brain is taken away where the skull is thin. In 15 patients with gliomas 98.9 %
    of the lesions' voxels stay on average, 93 % in the worst case, and a third of the tissue goes.

    Parameters
    ----------
    scan : PreparedScan
        In axial slices, of a head.

    Returns
    -------
    ndarray of bool, (slices, rows, cols), or None
        None if there is no skull, or it cannot be told.
    """
    from scipy import ndimage

    if not has_skull(scan):
        return None
    depth = min(float(_RINGS[dark_rings(scan).argmax()]) + 1, _DEEPEST_SCALP)
    found = np.zeros(scan.foreground.shape, dtype=bool)
    for index, tissue in enumerate(scan.foreground):
        head = _outline(tissue)
        if head is None:
            found[index] = tissue
            continue
        inside = ndimage.distance_transform_edt(head, sampling=scan.spacing_mm[1:])
        found[index] = tissue & (inside <= depth)
    return found


def dark_rings(scan: PreparedScan) -> NDArray[np.float64]:
    """Return the dark share of rings at growing depth below the surface of a head.

    Returns
    -------
    ndarray of float64
        One share for each ring of 2 mm between 4 and 20 mm; empty without tissue.
    """
    from scipy import ndimage

    occupied = np.flatnonzero(scan.foreground.any(axis=(1, 2)))
    if not occupied.size:
        return np.zeros(0)
    low, high = occupied[0], occupied[-1]
    heights = low + np.linspace(*_HEIGHTS, _SLICES) * (high - low)
    profiles = []
    for index in np.unique(heights.round().astype(int)):
        head = _outline(scan.foreground[index])
        if head is None:
            continue
        depth = ndimage.distance_transform_edt(head, sampling=scan.spacing_mm[1:])
        values = scan.scale.apply(scan.slices, (slice(index, index + 1),))[0]
        rings = [(depth >= ring) & (depth < ring + 2) for ring in _RINGS[:-1]]
        if all(ring.any() for ring in rings):
            profiles.append([float(np.mean(values[ring] < _DARK)) for ring in rings])
    return np.mean(profiles, axis=0) if profiles else np.zeros(0)


def _outline(tissue: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return the largest region of a slice with its holes filled; None if there is none."""
    from scipy import ndimage

    filled = ndimage.binary_fill_holes(ndimage.binary_opening(tissue, iterations=2))
    regions, count = ndimage.label(filled)
    if not count:
        return None
    largest = int(np.bincount(regions.ravel())[1:].argmax()) + 1
    outline: NDArray[np.bool_] = regions == largest
    return outline
