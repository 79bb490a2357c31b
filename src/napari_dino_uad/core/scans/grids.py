"""Compare the grids of two volumes, and bring a mask onto the grid of its scan.

All code that pairs two files or layers uses this module. Voxels are paired by their position in
the patient, never by their array index alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.grouping import axes_of
from napari_dino_uad.core.scans.file_order import from_file_order, to_file_order
from napari_dino_uad.core.scans.geometry import Volume

__all__ = ["MASK_GEOMETRIES", "RESAMPLED", "MaskGeometry", "check_mask_geometry", "match_mask"]

#: Use of a mask's geometry: compare it with the scan's, or ignore it and take the voxels in the
#: order of the scan's own file.
MaskGeometry = Literal["check", "ignore"]
MASK_GEOMETRIES: tuple[str, ...] = get_args(MaskGeometry)

#: How the note on a mask that was resampled begins.
RESAMPLED = "Note: masks of another resolution"

# Share of a voxel's edge by which the corners of two equal grids may differ, along each axis.
# Headers round: a NIfTI quaternion or direction cosines of three decimals move a corner by 0.15 mm
# at most. A mask that lies half a voxel off belongs to other voxels; below a quarter each voxel
# still lies in its own.
_SAME = 0.25

# Tolerance for the outer faces of two boxes of different resolution, as a share of the coarser
# voxel's edge: tools keep the first voxel's centre or its outer edge, and round the size.
_SAME_BOX = 1.0

# Spacings that differ by less are one resolution; another size is then another box.
_SAME_SPACING = 0.01


@dataclass(frozen=True)
class _Grid:
    """Size, spacing, origin and direction of a volume on axes (S, P, L)."""

    shape: NDArray[np.int64]
    spacing: NDArray[np.float64]
    origin: NDArray[np.float64]
    direction: NDArray[np.float64]

    @classmethod
    def of(cls, volume: Volume) -> _Grid:
        return cls(
            np.array(volume.shape),
            np.array(volume.spacing_mm),
            np.array(volume.origin_mm),
            np.array(volume.direction, dtype=np.float64),
        )

    def corners(self, beyond: float = 0.0) -> NDArray[np.float64]:
        """Return the corner voxels' positions in mm, (8, 3), moved outwards by some voxels."""
        ends = np.stack([np.full(3, -beyond), self.shape - 1 + beyond])
        index = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(8, 3)
        moved: NDArray[np.float64] = self.origin + (index * self.spacing) @ self.direction.T
        return moved

    def turned(self, axes: NDArray[np.int64], flips: NDArray[np.bool_]) -> _Grid:
        """Return the same voxels with the axes in another order, some of them reversed."""
        shape, spacing = self.shape[axes], self.spacing[axes]
        direction = self.direction[:, axes]
        origin = self.origin + direction @ (np.where(flips, shape - 1, 0) * spacing)
        return _Grid(shape, spacing, origin, direction * np.where(flips, -1.0, 1.0))


def check_mask_geometry(value: str) -> MaskGeometry:
    """Return the use of the geometry of masks, once checked.

    Raises
    ------
    InputError
        If it is neither check nor ignore.
    """
    if value not in MASK_GEOMETRIES:
        raise InputError(f"Mask geometry: expected check or ignore, got {value!r}.")
    return value  # type: ignore[return-value]  # it is one of them


def match_mask(
    mask: Volume, scan: Volume, geometry: MaskGeometry = "check"
) -> tuple[NDArray[np.float32], str]:
    """Bring a mask onto the canonical grid of its scan.

    Parameters
    ----------
    mask, scan : Volume
        Both volumes, as read.
    geometry : {"check", "ignore"}
        Whether the mask must have the position of the scan. If ignored, the voxels of the
        mask's file are taken as those of the scan's file, in order.

    Returns
    -------
    array : ndarray of float32
        The mask's values in the shape of ``scan.array``.
    note : str
        Note for the user that the mask was resampled, or empty.

    Raises
    ------
    InputError
        If the mask lies elsewhere, or its size does not fit.
    """
    if geometry == "ignore":
        return _in_file_order(mask, scan), ""
    if not (mask.spacing_known and scan.spacing_known):
        return _without_geometry(mask, scan), ""
    if scan.grid.missing and not mask.grid.missing:
        return _across_gaps(mask, scan)
    return _brought(mask, scan, _Grid.of(scan))


def _across_gaps(mask: Volume, scan: Volume) -> tuple[NDArray[np.float32], str]:
    """Match a mask on the even grid of a scan with missing slices, and leave those slices out."""
    axis, count = scan.grid.axes.index(0), len(scan.grid.missing)
    target = _Grid.of(scan)
    target.shape[axis] += count
    array, note = _brought(mask, scan, target)
    missing = np.array(scan.grid.missing)
    if scan.grid.flips[axis]:
        missing = target.shape[axis] - 1 - missing
    return np.delete(array, missing, axis=axis), note


def _brought(mask: Volume, scan: Volume, target: _Grid) -> tuple[NDArray[np.float32], str]:
    """Bring a mask onto a grid of its scan."""
    place = _Grid.of(mask)
    turn = _turn_onto(place, target)
    if turn is None:
        raise _elsewhere(mask, scan)
    axes, flips = turn
    place = place.turned(axes, flips)
    array = mask.array.transpose(axes)[
        tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    ]
    if _is_same(place, target):
        return np.ascontiguousarray(array), ""
    laid = _frames_on(array, place, mask, target)
    if laid is not None:
        return laid, ""
    if not _is_same_box(place, target):
        raise _elsewhere(mask, scan)
    note = (
        f"{RESAMPLED} are resampled by nearest neighbour; "
        f"{_name(mask)} has {_mm(mask.grid.spacing)}, its scan {_mm(scan.grid.spacing)}."
    )
    return _resample(array, place, target), note


def _frames_on(
    array: NDArray[np.float32], place: _Grid, mask: Volume, target: _Grid
) -> NDArray[np.float32] | None:
    """Lay the frames of a DICOM segmentation on the slices of its scan; None if they do not fit.

    A segmentation has no frame where a slice is empty, so its own grid says little.
    """
    frames = () if mask.series is None else mask.series.frames
    if not frames or any(not frame.segment or frame.place is None for frame in frames):
        return None
    # Positions of DICOM run x, y, z; those of volumes z, y, x.
    corners = np.array([frame.place for frame in frames])[:, ::-1]
    normal = axes_of(frames[0])[::-1, 2]
    along = int(np.abs(target.direction.T @ normal).argmax())
    within = [axis for axis in range(3) if axis != along]
    extent = np.linalg.norm(target.shape * target.spacing)
    tolerance = _SAME * target.spacing
    if np.linalg.norm(place.direction - target.direction) * extent > tolerance.min():
        return None
    start = (place.origin - target.origin) @ target.direction
    if not np.array_equal(place.shape[within], target.shape[within]) or not (
        (np.abs(start) <= tolerance)[within].all()
        and np.allclose(place.spacing[within], target.spacing[within], rtol=_SAME_SPACING)
    ):
        return None
    way = target.direction[:, along]
    own = np.rint((corners - place.origin) @ way / place.spacing[along]).astype(int)
    steps = (corners - target.origin) @ way / target.spacing[along]
    there = np.rint(steps).astype(int)
    fits = np.abs(steps - there).max() <= _SAME and there.min() >= 0
    if not fits or there.max() >= target.shape[along]:
        return None
    out = np.zeros(target.shape, dtype=np.float32)
    np.moveaxis(out, along, 0)[there] = np.moveaxis(array, along, 0)[own]
    return out


def _turn_onto(place: _Grid, target: _Grid) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Find the order and signs of axes that align a grid best with another one.

    Canonical axes usually match already; they may not if a scan is rotated by 45 degrees.
    """
    cosines = target.direction.T @ place.direction
    axes = np.abs(cosines).argmax(axis=1)
    if len(set(axes.tolist())) < 3:
        return None
    return axes, cosines[np.arange(3), axes] < 0


def _offsets(place: _Grid, target: _Grid, beyond: float) -> NDArray[np.float64]:
    """Return the distance of corners in mm along each axis of the target, (3,)."""
    apart = place.corners(beyond) - target.corners(beyond)
    most: NDArray[np.float64] = np.abs(apart @ target.direction).max(axis=0)
    return most


def _is_same(place: _Grid, target: _Grid) -> bool:
    """Return whether two grids have the same voxels."""
    if not np.array_equal(place.shape, target.shape):
        return False
    return bool((_offsets(place, target, 0.0) <= _SAME * target.spacing).all())


def _is_same_box(place: _Grid, target: _Grid) -> bool:
    """Return whether two grids divide the same box into voxels of different size."""
    resized = place.shape != target.shape
    ratio = place.spacing / target.spacing
    if (resized & (np.abs(np.log(ratio)) < _SAME_SPACING)).any():
        return False
    coarser = np.maximum(place.spacing, target.spacing)
    # Resampling goes axis by axis, so the axes must be parallel.
    extent = np.linalg.norm(target.shape * target.spacing)
    if np.linalg.norm(place.direction - target.direction) * extent > _SAME * coarser.min():
        return False
    allowed = np.where(resized, _SAME_BOX * coarser, _SAME * target.spacing)
    return bool((_offsets(place, target, 0.5) <= allowed).all())


def _resample(array: NDArray[np.float32], place: _Grid, target: _Grid) -> NDArray[np.float32]:
    """Take the nearest voxel of an array at each voxel of a grid of the same box."""
    start = (target.origin - place.origin) @ place.direction
    nearest = [
        np.clip(np.floor((start[axis] + step * np.arange(count)) / size + 0.5), 0, held - 1)
        for axis, (count, step, size, held) in enumerate(
            zip(target.shape, target.spacing, place.spacing, place.shape, strict=True)
        )
    ]
    return np.ascontiguousarray(array[np.ix_(*(index.astype(np.int64) for index in nearest))])


def _in_file_order(mask: Volume, scan: Volume) -> NDArray[np.float32]:
    """Take the voxels of a mask's file as those of the scan's file, in order."""
    if tuple(mask.grid.size) != tuple(scan.grid.size):
        raise _other_size(mask, scan)
    stored = to_file_order(mask.array, mask.grid)
    return np.ascontiguousarray(from_file_order(stored, scan.grid))


def _without_geometry(mask: Volume, scan: Volume) -> NDArray[np.float32]:
    """Pair voxels by index: PNG and TIFF images have no geometry to compare."""
    if mask.shape != scan.shape:
        raise _other_size(mask, scan)
    if (mask.grid.axes, mask.grid.flips) != (scan.grid.axes, scan.grid.flips):
        # One of them has a geometry, and it turned the array.
        raise _elsewhere(mask, scan)
    return mask.array


def _other_size(mask: Volume, scan: Volume) -> InputError:
    return InputError(
        f"{_name(mask)} does not fit {_name(scan)}: expected the scan's shape {_shape(scan)}, "
        f"got {_shape(mask)}; choose the mask of this scan."
    )


def _elsewhere(mask: Volume, scan: Volume) -> InputError:
    """Return the error for a mask on another grid, with the differences in mm."""
    same_size = tuple(mask.grid.size) == tuple(scan.grid.size)
    default = same_size and (_is_default(mask, scan) or _is_default(scan, mask))
    advice = (
        "save it with the scan's geometry, or, if its voxels are in the order of the scan's own "
        "file, set the mask geometry to ignore (--mask-geometry ignore)"
        if default
        else "choose the mask of this scan, or resample it onto the scan's grid"
    )
    return InputError(
        f"{_name(mask)} does not lie on {_name(scan)}: expected the scan's grid, got "
        f"{_differences(mask, scan)}; {advice}."
    )


def _is_default(volume: Volume, other: Volume) -> bool:
    """Return whether a header has no real position: a tool filled in all or part of it."""
    if not volume.spacing_known or not np.any(volume.grid.origin):
        return True
    ours, theirs = volume.grid, other.grid
    # SimpleITK writes the identity, nibabel the one of NIfTI's own axes.
    plain = np.array_equal(np.abs(np.reshape(ours.direction, (3, 3))), np.eye(3))
    turned = not np.allclose(ours.direction, theirs.direction, atol=1e-3)
    return plain and turned and bool(np.allclose(ours.origin, theirs.origin, atol=1e-3))


def _differences(mask: Volume, scan: Volume) -> str:
    """Describe the differences between two grids, with their distance."""
    for volume in (mask, scan):
        if not volume.spacing_known:
            return f"no geometry in {_name(volume)}, whose voxels may be in another order"
    ours, theirs = mask.grid, scan.grid
    parts = []
    if tuple(ours.size) != tuple(theirs.size):
        parts.append(f"the shape {_shape(mask)} instead of {_shape(scan)}")
    if not np.allclose(ours.spacing, theirs.spacing, rtol=_SAME_SPACING):
        parts.append(f"voxels of {_mm(ours.spacing)} instead of {_mm(theirs.spacing)}")
    if not np.allclose(ours.origin, theirs.origin, atol=1e-2):
        parts.append(f"the origin ({_list(ours.origin)}) mm instead of ({_list(theirs.origin)}) mm")
    if not np.allclose(ours.direction, theirs.direction, atol=1e-3):
        parts.append(f"axes to {_axes(ours.direction)} instead of {_axes(theirs.direction)}")
    apart = _Grid.of(mask).corners()[:, None] - _Grid.of(scan).corners()
    distance = float(np.linalg.norm(apart, axis=2).min(axis=1).max())
    parts.append(f"corners up to {distance:.3g} mm from the scan's")
    return ", ".join(parts)


def _axes(direction: Sequence[float]) -> str:
    """Describe the directions of a file's axes, such as LPS, and their rotation."""
    matrix = np.reshape(direction, (3, 3))
    names = [
        ("RL", "AP", "IS")[row][int(matrix[row, column] > 0)]
        for column, row in enumerate(np.abs(matrix).argmax(axis=0))
    ]
    lean = np.degrees(np.arccos(np.clip(np.abs(matrix).max(axis=0).min(), 0, 1)))
    return "".join(names) + (f" turned by {lean:.1f} degrees" if lean > 0.05 else "")


def _name(volume: Volume) -> str:
    return volume.path.name if volume.path is not None else volume.name


def _shape(volume: Volume) -> str:
    return " x ".join(map(str, volume.grid.size))


def _mm(values: Sequence[float]) -> str:
    return f"{' x '.join(f'{value:.3g}' for value in values)} mm"


def _list(values: Sequence[Any]) -> str:
    return ", ".join(f"{value + 0.0:.4g}" for value in values)
