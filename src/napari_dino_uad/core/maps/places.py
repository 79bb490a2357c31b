"""Places of findings in words: which side, front or back, upper or lower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["TissueFrame", "describe_side", "place_mm"]

# Letters of positive and negative R, A and S.
_SIDES = ("RL", "AP", "SI")
# How far from the middle of a scan zero may lie, as a share of its width, to tell right from left.
_CENTRED = 0.1
# A plane across an axis lies within the tissue if it holds this share of the voxels of the fullest
# plane. Noise around a head, in a quarter of 65 FLAIR scans, holds less; the ends of tissue lose
# a few millimetres.
_LEAST_OF_FULLEST = 0.1
# Displacements from the centre, as shares of half the extent.
_MIDLINE, _THIRD = 0.1, 1 / 3

# Size of a head's tissue in mm, right to left and front to back, and their ratio. Air lies around
# a head in nearly all slices, which is not so in a cropped scan of another part of the body.
_HEAD_WIDTH, _HEAD_DEPTH, _HEAD_RATIO = (100.0, 210.0), (130.0, 250.0), (1.02, 1.6)
_TOUCHING = 0.05
# A head fills most of the ellipse that is 0.79 of its box.
_LEAST_FILLED = 0.5


@dataclass(frozen=True)
class TissueFrame:
    """Where the tissue of a scan lies, as the frame for words such as "right front".

    Attributes
    ----------
    volume : Volume
    centre, half : ndarray of float64, (3,)
        Centre of the tissue and half its extent, in mm to the right, front and head; in units of
        the spacing where that is not known.
    head : bool
        Whether the tissue has the shape of a head in axial slices.
    """

    volume: Volume
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    head: bool = False

    @classmethod
    def of(
        cls, volume: Volume, foreground: NDArray[np.bool_] | None, head: bool | None = None
    ) -> TissueFrame:
        """Measure the tissue of a scan.

        Parameters
        ----------
        volume : Volume
        foreground : ndarray of bool, (S, P, L), or None
            The tissue. Without it, or if it is empty, the whole volume counts.
        head : bool, optional
            Whether it is a head; judged from the shape of the tissue if not given.
        """
        bounds = _bounds(volume, foreground)
        low, high = bounds[:, 0], bounds[:, 1]
        centre = np.array(volume.to_ras_mm((low + high) / 2))
        steps = (high - low) / 2 * np.asarray(volume.spacing_mm)
        # Rows of the direction are S, P, L; turned round they are left-right, front-back, up-down.
        half = np.maximum((np.abs(volume.direction) @ steps)[::-1], 1e-6)
        if head is None:
            head = foreground is not None and _is_head(volume, foreground, bounds, half)
        return cls(volume, centre, half, head)

    def side(self, voxel: Sequence[float]) -> str:
        """Describe the place of a voxel within the tissue.

        Parameters
        ----------
        voxel : sequence of 3 floats
            Index along (S, P, L), such as the centroid of a finding.

        Returns
        -------
        str
            Such as "right frontal side", "upper left side, back" or "midline, front". Words of the
            head are used only in heads. It is empty for a scan without known orientation.
        """
        if not self.volume.spacing_known:
            return ""
        right, front, up = (np.array(self.volume.to_ras_mm(voxel)) - self.centre) / self.half
        flat = _flat_axes(self.volume)
        side = "midline" if abs(right) < _MIDLINE else "right" if right > 0 else "left"
        depth = _third(float(front), "front", "back")
        height = _third(float(up), "upper", "lower")
        return _phrase(
            "" if "R" in flat else side,
            "" if "A" in flat else depth,
            "" if "S" in flat else height,
            self.head,
        )


def describe_side(
    volume: Volume,
    centroid: Sequence[float],
    foreground: NDArray[np.bool_] | None,
    head: bool | None = None,
) -> str:
    """Describe where in the tissue a voxel lies; parameters as in `TissueFrame`.

    For several findings of one scan, make the `TissueFrame` once.
    """
    return TissueFrame.of(volume, foreground, head).side(centroid)


def place_mm(volume: Volume, voxel: Sequence[float]) -> str:
    """Return the place of a voxel in mm; empty if the spacing is unknown.

    Letters name the patient's sides, as in "L 89 P 101 S 86 mm", where zero lies in the middle of
    the scan between right and left. A file whose zero is at an edge would call its right side L:
    then these are its bare coordinates to the right, front and head, "RAS -89, -101, 86 mm". One
    scan has one notation.

    Parameters
    ----------
    volume : Volume
    voxel : sequence of float
        Along (S, P, L).
    """
    if not volume.spacing_known:
        return ""
    place = volume.to_ras_mm(voxel)
    if not _names_sides(volume):
        return f"RAS {', '.join(str(round(mm)) for mm in place)} mm"
    sides = zip(_SIDES, place, strict=True)
    return " ".join(f"{side[mm < 0]} {abs(mm):.0f}" for side, mm in sides) + " mm"


def _names_sides(volume: Volume) -> bool:
    """Return whether zero between right and left lies in the middle of a scan."""
    slices, rows, columns = volume.shape
    middle = ((slices - 1) / 2, (rows - 1) / 2)
    right, left = (volume.to_ras_mm((*middle, column))[0] for column in (0, columns - 1))
    return abs(right + left) / 2 <= _CENTRED * abs(right - left)


def _third(share: float, above: str, below: str) -> str:
    return above if share > _THIRD else below if share < -_THIRD else ""


def _phrase(side: str, depth: str, height: str, head: bool) -> str:
    """Join the words for the three axes; an empty one is the middle, or not known."""
    lobe = {"front": "frontal", "back": "occipital"}.get(depth, "") if head else ""
    # The upper back of a head is parietal and its lower front is the face: no lobe is named there.
    if (depth, height) in (("front", "lower"), ("back", "upper")):
        lobe = ""
    place = {"": "", "midline": "midline"}.get(side, f"{side} side")
    if lobe:
        place = {"": f"{lobe} side", "midline": f"{lobe} midline"}.get(side, f"{side} {lobe} side")
        return f"{height} {place}".strip()
    if not place:
        return " ".join(word for word in (height, depth) if word) or "centre"
    whole = f"{height} {place}".strip()
    return f"{whole}, {depth}" if depth else whole


def _flat_axes(volume: Volume) -> str:
    """Return the letters of the axes along which a scan is one voxel thick."""
    axes = np.abs(volume.direction).argmax(axis=0)
    return "".join("SAR"[axes[axis]] for axis in range(3) if volume.shape[axis] == 1)


def _bounds(volume: Volume, foreground: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return the lowest and highest index of the tissue along each axis, (3, 2)."""
    bounds = np.array([(0.0, n - 1.0) for n in volume.shape])
    if foreground is None:
        return bounds
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        counts = np.count_nonzero(foreground, axis=others)
        if not counts.any():
            return bounds
        planes = np.flatnonzero(counts >= _LEAST_OF_FULLEST * counts.max())
        bounds[axis] = planes[0], planes[-1]
    return bounds


def _is_head(
    volume: Volume,
    foreground: NDArray[np.bool_],
    bounds: NDArray[np.float64],
    half: NDArray[np.float64],
) -> bool:
    """Return whether the tissue has the size and shape of a head, with air around it."""
    if not volume.spacing_known or volume.is_2d:
        return False
    width, depth = 2 * half[0], 2 * half[1]
    sizes = ((width, _HEAD_WIDTH), (depth, _HEAD_DEPTH), (depth / width, _HEAD_RATIO))
    if not all(low <= size <= high for size, (low, high) in sizes):
        return False
    edges = (foreground[:, 0], foreground[:, -1], foreground[:, :, 0], foreground[:, :, -1])
    if np.mean([edge.mean() for edge in edges]) > _TOUCHING:
        return False
    middle = foreground[round(float(bounds[0].mean()))]
    (top, bottom), (first, last) = bounds[1:].astype(int)
    return bool(middle[top : bottom + 1, first : last + 1].mean() > _LEAST_FILLED)
