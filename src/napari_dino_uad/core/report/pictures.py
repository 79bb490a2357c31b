"""Pictures of findings: the slice, the heat and the outline."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.slices.planes import plane_axis, plane_spacing_mm, to_plane

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.scans.volume import Volume
    from napari_dino_uad.core.slices.planes import Plane

__all__ = ["draw_outline", "finding_picture", "heat_picture", "png_uri", "slice_picture"]

# Longer edge of a picture in pixels.
_EDGE = 420
# Colours of the heat from the lowest to the highest score, as in the window: the middle of inferno.
_HEAT = np.array(
    [(101, 21, 110), (140, 35, 105), (178, 50, 90), (212, 72, 66), (237, 105, 37), (250, 150, 10)],
    dtype=np.float32,
)
_LOWEST_ALPHA, _HIGHEST_ALPHA = 0.55, 0.9
_OUTLINE, _OTHERS = (0, 230, 255), (200, 200, 200)


def finding_picture(
    anomaly: AnomalyMap,
    labels: NDArray[np.uint8],
    label: int,
    voxel: tuple[int, int, int],
    threshold: float,
    tissue: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.uint8], int]:
    """Draw the slice of a finding with heat and outlines, as radiologists see it.

    Parameters
    ----------
    anomaly : AnomalyMap
    labels : ndarray of uint8, (S, P, L)
    label : int
        The finding; the others get a fainter outline.
    voxel : tuple of int
        Voxel of the finding; the slice is that of the model's first plane.
    threshold : float
        Score at which the heat begins.
    tissue : ndarray of bool, (S, P, L), or None
        Where heat is shown; None is everywhere.

    Returns
    -------
    picture : ndarray of uint8, (rows, cols, 3)
    number : int
        Of the slice.
    """
    volume, plane = anomaly.volume, anomaly.planes[0].plane
    number = voxel[plane_axis(plane)]
    values, found = (to_plane(array, plane)[number] for array in (anomaly.scores, labels))
    anatomy = slice_picture(volume, plane, number, _EDGE)
    top = anomaly.model.calibration.threshold(1e-4)
    within = None if tissue is None else to_plane(tissue, plane)[number]
    picture = heat_picture(anatomy, values, (threshold, top), within)
    draw_outline(picture, (found > 0) & (found != label), _OTHERS)
    draw_outline(picture, found == label, _OUTLINE)
    return picture.astype(np.uint8), number


def heat_picture(
    anatomy: NDArray[np.float32],
    scores: NDArray[np.float32],
    limits: tuple[float, float],
    within: NDArray[np.bool_] | None,
) -> NDArray[np.float32]:
    """Lay heat over a picture of a slice.

    Parameters
    ----------
    anatomy : ndarray of float32, (rows, cols, 3)
        From `slice_picture`.
    scores : ndarray of float32, in the pixels of the slice
    limits : tuple of float
        Scores at which the heat begins and at which it is brightest.
    within : ndarray of bool, in the pixels of the slice, or None
        Where heat is shown; None is everywhere.

    Returns
    -------
    ndarray of float32, (rows, cols, 3)
    """
    size = anatomy.shape[:2]
    low, high = limits
    resized = _resized(scores, size)
    share = np.clip((resized - low) / max(high - low, 1e-6), 0, 1)
    inside = resized > low
    if within is not None:
        inside &= _resized(within.astype(np.float32), size) > 0.5
    alpha = inside * (_LOWEST_ALPHA + share * (_HIGHEST_ALPHA - _LOWEST_ALPHA))
    return anatomy * (1 - alpha[..., None]) + _heat(share) * alpha[..., None]


def slice_picture(volume: Volume, plane: Plane, number: int, edge: int) -> NDArray[np.float32]:
    """Return a slice as it looks: square pixels, in its colours or in the scan's window.

    Parameters
    ----------
    volume : Volume
    plane : {"axial", "coronal", "sagittal"}
    number : int
        Of the slice.
    edge : int
        Longer edge of the picture in pixels.

    Returns
    -------
    ndarray of float32, (rows, cols, 3)
        From 0 to 255.
    """
    values = to_plane(volume.array, plane)[number]
    _, row_mm, col_mm = plane_spacing_mm(volume, plane)
    rows, cols = values.shape
    scale = edge / max(rows * row_mm, cols * col_mm)
    size = max(1, round(rows * row_mm * scale)), max(1, round(cols * col_mm * scale))
    if volume.colour is not None:
        channels = (volume.colour[number, ..., channel] for channel in range(3))
        resized = [_resized(one.astype(np.float32), size) for one in channels]
        return np.clip(np.stack(resized, axis=-1), 0, 255)
    low, high = _window(volume)
    grey = 255 * np.clip((_resized(values, size) - low) / (high - low), 0, 1)
    return np.repeat(grey[..., None], 3, axis=2)


def draw_outline(
    picture: NDArray[np.floating], region: NDArray[np.bool_], colour: tuple[int, int, int]
) -> None:
    """Draw the outline of a region of a slice into its picture.

    Parameters
    ----------
    picture : ndarray, (rows, cols, 3)
        Changed in place.
    region : ndarray of bool, in the pixels of the slice
    colour : tuple of int
        Red, green and blue from 0 to 255.
    """
    from scipy.ndimage import binary_erosion

    mask = _resized(region.astype(np.float32), picture.shape[:2]) > 0.5
    picture[mask & ~binary_erosion(mask, iterations=2)] = colour


def png_uri(picture: NDArray[np.uint8]) -> str:
    """Return a picture (rows, cols, 3) as a PNG within a page."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _window(volume: Volume) -> tuple[float, float]:
    """Return the scan's own window, or the range of its values without the brightest."""
    if volume.window is not None:
        centre, width = volume.window
        return centre - width / 2, centre + width / 2
    sample = volume.array.ravel()[:: max(1, volume.array.size // 2_000_000)]
    low, high = float(sample.min()), float(np.percentile(sample, 99.8))
    return low, high if high > low else low + 1


def _heat(share: NDArray[np.float32]) -> NDArray[np.float32]:
    steps = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(share, steps, _HEAT[:, band]) for band in range(3)], axis=-1)


def _resized(array: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image (rows, cols) bilinearly."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(array, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
