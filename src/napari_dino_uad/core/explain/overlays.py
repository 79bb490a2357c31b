"""Explanations of a whole scan, to lay over it on the patch grid."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.slices.planes import Plane, from_plane

if TYPE_CHECKING:
    from napari_dino_uad.core.explain.slices import Explainer, SliceExplanation

__all__ = ["OVERLAYS", "Overlay", "explain_scan", "kinds_of", "patch_placement", "place_on_volume"]

#: What can be laid over a scan: each kind with its name for the user.
OVERLAYS: dict[str, str] = {
    "component": "Same kind of tissue",
    "colours": "Embeddings as colours",
    "observed": "Observed, as colours",
    "expected": "Expected, as colours",
    "residual": "Observed against expected",
    "mirror": "Left against right",
}

# Slices explained in one go; a place that is asked for meanwhile comes in between.
_AT_ONCE = 8


@dataclass(frozen=True)
class Overlay:
    """One explanation of all slices.

    Attributes
    ----------
    kind : str
        A key of `OVERLAYS`.
    array : ndarray, (S', P', L') or (S', P', L', 4)
        On the canonical axes of the volume, on the patch grid within the slices. Components are
        uint16, counted from 1, with 0 outside the tissue; colours are uint8 and
        transparent outside the tissue; distances float32.
    step : tuple of float
        Voxels between patches along the axes.
    first : tuple of float
        Position of the first patch in voxels.
    """

    kind: str
    array: NDArray[Any]
    step: tuple[float, float, float]
    first: tuple[float, float, float]

    def on_voxels(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the value of the nearest patch at every voxel of the volume, (S, P, L)."""
        places = [
            np.clip(np.rint((np.arange(count) - first) / step), 0, patches - 1).astype(int)
            for count, first, step, patches in zip(
                shape, self.first, self.step, self.array.shape[:3], strict=True
            )
        ]
        return self.array[np.ix_(*places)]


def kinds_of(slice_: SliceExplanation) -> list[str]:
    """List the overlays that a model offers, by the explanation of one of its slices."""
    return [kind for kind in OVERLAYS if getattr(slice_, kind) is not None]


def explain_scan(explainer: Explainer, kind: str) -> Generator[Progress, None, Overlay]:
    """Explain all slices of a scan.

    Parameters
    ----------
    explainer : Explainer
    kind : str
        A key of `OVERLAYS` that the model offers.

    Yields
    ------
    Progress
        After every slice.

    Returns
    -------
    Overlay
        Slices without tissue, and patches outside it, are 0.
    """
    anomaly, grid = explainer.anomaly, explainer.grid
    count, scored = len(anomaly.scan), explainer.scored
    step_name, name = f"Explaining: {OVERLAYS[kind].lower()}", anomaly.volume.name
    yield Progress(step_name, 0, len(scored), name)
    full: NDArray[Any] | None = None
    done = 0
    for start in range(0, len(scored), _AT_ONCE):
        for one in explainer.slices(scored[start : start + _AT_ONCE]):
            if one is not None:
                part = _part(one, kind)[: grid.content[0], : grid.content[1]]
                if full is None:
                    full = np.zeros((count, *part.shape), dtype=part.dtype)
                full[one.index] = part
                done += 1
            yield Progress(step_name, done, len(scored), name)
    if full is None:
        full = np.zeros((count, *grid.content), dtype=np.float32)
    return place_on_volume(kind, full, explainer)


def place_on_volume(kind: str, patches: NDArray[Any], explainer: Explainer) -> Overlay:
    """Bring a map of an explained scan from slices, (slices, h, w[, 4]), to the volume's axes."""
    grid, plane = explainer.grid, explainer.anomaly.planes[0].plane
    shape = explainer.anomaly.volume.shape
    step, first = patch_placement(shape, grid.patch_pixels, grid.content, plane)
    return Overlay(kind, np.ascontiguousarray(_from_plane(patches, plane)), step, first)


def _part(one: SliceExplanation, kind: str) -> NDArray[Any]:
    """Return one map of a slice, 0 outside the tissue."""
    values: NDArray[Any] = getattr(one, kind)
    if kind == "component":
        values = (values + 1).astype(np.uint16)
    if values.ndim == 3:
        return np.concatenate([values, np.uint8(255) * one.tissue[..., None]], axis=-1)
    return np.where(one.tissue, values, values.dtype.type(0))


def _from_plane(array: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """Undo `to_plane`; a last axis of colours stays the last."""
    if array.ndim == 3:
        return from_plane(array, plane)
    return np.stack([from_plane(array[..., one], plane) for one in range(array.shape[-1])], -1)


def patch_placement(
    shape: tuple[int, ...],
    pixels: tuple[float, float],
    patches: tuple[int, int],
    plane: Plane,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return where the patches of a plane lie on the voxels of a volume.

    Parameters
    ----------
    shape : tuple of int
        Of the volume, (S, P, L).
    pixels : tuple of float
        Pixels between patches along rows and columns of a slice.
    patches : tuple of int
        Number of patches along rows and columns.
    plane : {"axial", "coronal", "sagittal"}

    Returns
    -------
    step, first : tuple of float
        Voxels between patches, and the voxel position of the first patch, along (S, P, L).
    """
    # A ramp along each axis of the plane, brought back to the axes of the volume, tells where the
    # plane's axes went and which of them are flipped.
    ramps = np.meshgrid(*(np.arange(2),) * 3, indexing="ij")
    step, first = [0.0] * 3, [0.0] * 3
    for axis, ramp in enumerate(ramps):
        back = from_plane(ramp, plane)
        [to] = [one for one in range(3) if np.ptp(back, axis=one).any()]
        flipped = bool(back.flat[0])
        width = 1.0 if axis == 0 else pixels[axis - 1]
        count = shape[to] if axis == 0 else patches[axis - 1]
        start = 0.5 * width - 0.5
        if flipped:
            start = shape[to] - 1 - ((count - 0.5) * width - 0.5)
        step[to], first[to] = width, start
    return (step[0], step[1], step[2]), (first[0], first[1], first[2])
