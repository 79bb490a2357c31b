"""Slices of a volume as network input: plane, intensity scale, foreground and patch grid.

A fitted model saves its `Preprocessing`, so that every scan is prepared the way the healthy scans
were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_memory, needed_for_map
from napari_dino_uad.core.slices.crop import tight_box
from napari_dino_uad.core.slices.intensity import IntensityScale
from napari_dino_uad.core.slices.patch_grid import PatchGrid
from napari_dino_uad.core.slices.planes import plane_spacing_mm, to_plane
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.slices.usual_brightness import UsualBrightness

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["PreparedScan", "prepare"]


# ImageNet's channel statistics, means and deviations: every backbone in the table was trained with
# them.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


# Slices longer than this, as a multiple of their width, have a wrong spacing.
_LONGEST = 32

# Resized slices kept beyond those in use: enough for the neighbours on both sides of a run of
# slices.
_KEPT_SLICES = 8

# Slices that suffice to measure the brightness of a scan's tissue.
_USUAL_SLICES = 32


@dataclass(frozen=True)
class PreparedScan:
    """A scan cut into slices, ready for the backbone.

    Attributes
    ----------
    slices : ndarray of float32, (slices, rows, cols)
        A view of the scan's own voxels. Slices are scaled on demand: a scaled copy of a large CT
        would take as much memory as all the rest of detection.
    scale : IntensityScale
        Maps the slices to [0, 1].
    foreground : ndarray of bool, (slices, rows, cols)
        True in tissue.
    spacing_mm : tuple of float
        Spacing along (slices, rows, cols). If the scan's spacing is unknown, it is in pixels of
        the network input, so that it means the same at any resolution.
    preprocessing : Preprocessing
        The settings used.
    colour : ndarray of uint8, (slices, rows, cols, 3), or None
        Red, green and blue of a picture in colour; its slices hold the luminance.
    """

    slices: NDArray[np.float32]
    scale: IntensityScale
    foreground: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    preprocessing: Preprocessing
    colour: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.slices)

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns that enclose the tissue of all slices."""
        rows, columns = tight_box(np.asarray(self.foreground.any(axis=0)))
        return rows, columns

    def values(self, part: slice | Sequence[int]) -> NDArray[np.float32]:
        """Return the intensities of the given slices, scaled to [0, 1], (B, rows, cols)."""
        return self.scale.apply(self.slices, part)

    def grid(self, stride: int, multiple: int) -> PatchGrid:
        """Return the patch grid of a backbone over the slices."""
        return PatchGrid.fit(
            (self.slices.shape[1], self.slices.shape[2]),
            (self.spacing_mm[1], self.spacing_mm[2]),
            self.preprocessing.input_size,
            stride,
            multiple,
        )

    def brightness(self, indices: Sequence[int], grid: PatchGrid) -> NDArray[np.float32]:
        """Return the mean intensity of the tissue in each patch of the given slices.

        Parameters
        ----------
        indices : sequence of int
            Slice numbers, B of them.
        grid : PatchGrid
            From `grid`.

        Returns
        -------
        ndarray of float32, (B, h, w)
            In [0, 1]; 0 where a patch has no tissue.
        """
        foreground = self.foreground[indices]
        share = grid.to_grid(foreground)
        total = grid.to_grid(self.values(indices) * foreground)
        return np.asarray(np.divide(total, share, out=np.zeros_like(total), where=share > 0))

    @cached_property
    def usual_brightness(self) -> UsualBrightness | None:
        """The brightness of the scan's tissue, from at most some dozens of its slices."""
        told = np.flatnonzero(self.foreground.any(axis=(1, 2)))
        told = told[:: max(1, len(told) // _USUAL_SLICES)]
        values = [self.values([index])[0][self.foreground[index]] for index in told.tolist()]
        return UsualBrightness.of(np.concatenate(values)) if values else None

    def images(
        self,
        indices: Sequence[int],
        grid: PatchGrid,
        resized: dict[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Build the network input for the given slices.

        Parameters
        ----------
        indices : sequence of int
            Slice numbers, B of them.
        grid : PatchGrid
            From `grid`.
        resized : dict of torch.Tensor (1 or 3, H, W), optional
            Cache of slices at input size, by number. Missing slices are added; the oldest ones no
            longer needed are removed. Pass the same dict to consecutive calls, so that each slice
            is resized only once.

        Returns
        -------
        torch.Tensor of float32, (B, 3, H, W)
            Normalised with the mean and standard deviation of ImageNet, unless the settings say
            otherwise.
        """
        import torch

        sources = [self._sources(index) for index in indices]
        needed = {number for source in sources for number, _ in source}
        resized = {} if resized is None else resized
        missing = sorted(needed - resized.keys())
        if missing:
            slices = grid.to_input(torch.from_numpy(self._channels(missing)))
            resized.update(zip(missing, slices, strict=True))
        means, deviations = _IMAGENET if self.preprocessing.imagenet else _PLAIN
        out = torch.empty(len(sources), 3, *grid.input_shape)
        for image, source in zip(out, sources, strict=True):
            for channel, (number, part), mean, std in zip(
                image, source, means, deviations, strict=True
            ):
                torch.sub(resized[number][part], mean, out=channel).div_(std)
        for number in [number for number in resized if number not in needed][:-_KEPT_SLICES]:
            del resized[number]
        return out

    def _sources(self, index: int) -> list[tuple[int, int]]:
        """Return slice and channel that each of the three input channels is made of."""
        if self.colour is not None:
            return [(index, channel) for channel in range(3)]
        around = (-1, 0, 1) if self.preprocessing.neighbours else (0, 0, 0)
        return [(min(max(index + step, 0), len(self) - 1), 0) for step in around]

    def _channels(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Return slices in [0, 1], (B, channels, rows, cols); colours are not rescaled."""
        if self.colour is None:
            return self.values(numbers)[:, None]
        channels = self.colour[numbers].transpose(0, 3, 1, 2).astype(np.float32, order="C")
        return np.divide(channels, np.float32(255), out=channels)


def prepare(volume: Volume, preprocessing: Preprocessing) -> PreparedScan:
    """Cut a volume into slices along a plane, scale its intensities and find its foreground.

    Parameters
    ----------
    volume : Volume
        The scan.
    preprocessing : Preprocessing
        The model's settings.

    Returns
    -------
    PreparedScan

    Raises
    ------
    InputError
        If the volume is a single 2D image and the plane is not axial, is in colour where the model
        is not, or the other way round, or needs more memory than the machine has.
    """
    if volume.is_2d and preprocessing.plane != "axial":
        raise InputError(
            f"{volume.name} is a single 2D image, which has no {preprocessing.plane} plane; "
            "use a model of the axial plane."
        )
    _check_colour(volume, preprocessing)
    _check_memory(volume, preprocessing)
    slices = to_plane(volume.array, preprocessing.plane)
    scale = IntensityScale.of(volume.array, preprocessing)
    if scale.padding is not None:
        padding = to_plane(scale.padding, preprocessing.plane)
        scale = dataclasses.replace(scale, padding=padding)
    limit = np.float32(scale.low + preprocessing.foreground_threshold * scale.height)
    foreground = np.greater(slices, limit, order="C")
    if scale.padding is not None:
        foreground &= ~scale.padding
    return PreparedScan(
        slices=slices,
        scale=scale,
        foreground=foreground,
        spacing_mm=_spacing(volume, preprocessing),
        preprocessing=preprocessing,
        colour=volume.colour,
    )


def _check_colour(volume: Volume, preprocessing: Preprocessing) -> None:
    """Refuse a grey scan where colours are expected, and the other way round."""
    if (volume.colour is not None) != preprocessing.colour:
        kinds = ("a grey image", "a picture in colour")
        known, given = kinds[preprocessing.colour], kinds[not preprocessing.colour]
        raise InputError(
            f"{volume.name} is {given}, but {known} is expected, as in the scans that the model "
            "was fitted on; use a model of the same kind."
        )


def _check_memory(volume: Volume, preprocessing: Preprocessing) -> None:
    """Refuse a scan whose input, patches and map do not fit into memory.

    What makes them large is not the number of voxels, but edges of very different lengths.
    """
    shape = to_plane(volume.array, preprocessing.plane).shape
    spacing = plane_spacing_mm(volume, preprocessing.plane)
    edges_mm = shape[1] * spacing[1], shape[2] * spacing[2]
    ratio = max(edges_mm) / min(edges_mm)
    if ratio > _LONGEST:
        raise InputError(
            f"{volume.name} has {preprocessing.plane} slices {ratio:.0f} times as long as wide, "
            f"but at most {_LONGEST} times is expected; check its spacing, or crop it."
        )
    check_memory(
        needed_for_map(shape, preprocessing.input_size**2 * ratio),
        f"Analysing {volume.name}, with {preprocessing.plane} slices of "
        f"{edges_mm[0]:g} x {edges_mm[1]:g} {'mm' if volume.spacing_known else 'pixels'},",
        "check its spacing, crop it, or use a model with a smaller input",
    )


def _spacing(volume: Volume, preprocessing: Preprocessing) -> tuple[float, float, float]:
    spacing = plane_spacing_mm(volume, preprocessing.plane)
    if volume.spacing_known:
        return spacing
    _, rows, cols = to_plane(volume.array, preprocessing.plane).shape
    scale = preprocessing.input_size / min(rows * spacing[1], cols * spacing[2])
    return spacing[0] * scale, spacing[1] * scale, spacing[2] * scale
