"""Slices of a volume as network input: plane, intensity scale, foreground and patch grid.

A fitted model saves its `Preprocessing`, so that every scan is prepared the way the healthy scans
were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.crop import tight_box
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_memory, needed_for_map
from napari_dino_uad.core.padding import find_padding

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.volume import Volume

__all__ = [
    "CT_WINDOWS",
    "PLANES",
    "IntensityScale",
    "PatchGrid",
    "Plane",
    "PreparedScan",
    "Preprocessing",
    "from_plane",
    "plane_axis",
    "plane_spacing_mm",
    "prepare",
    "to_plane",
]

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

#: CT windows by name, as (centre, width) in Hounsfield units.
CT_WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (40.0, 80.0),
    "stroke": (35.0, 40.0),
    "lung": (-600.0, 1500.0),
    "abdomen": (50.0, 400.0),
    "bone": (500.0, 2000.0),
}

# ImageNet's channel statistics: every backbone in the table was trained with them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# Voxels sampled to find the intensity scale. Enough that thousands of tissue voxels lie above the
# percentile.
_SAMPLED_VOXELS = 1_000_000

# Largest edge of the network's input in pixels: beyond it, not even one slice fits in memory.
_LARGEST_INPUT = 8192

# Resized slices kept beyond those in use: enough for the neighbours on both sides of a run of
# slices.
_KEPT_SLICES = 8

# For each plane, the order of the volume's axes (S, P, L) as (slice, row, column), and whether
# rows run from feet to head and must be flipped to put the head up.
_AXES: dict[Plane, tuple[tuple[int, int, int], bool]] = {
    "axial": ((0, 1, 2), False),
    "coronal": ((1, 0, 2), True),
    "sagittal": ((2, 0, 1), True),
}


@dataclass(frozen=True)
class Preprocessing:
    """Settings that turn a scan into network input. Saved with the model.

    Attributes
    ----------
    plane : {"axial", "coronal", "sagittal"}
        The plane in which slices are cut.
    input_size : int
        Shorter edge of the network input in pixels, after resampling to square pixels.
    window : tuple of float or None
        Fixed (centre, width), for CT. None scales to `percentile` of the foreground instead.
    percentile : float
        Percentile of the foreground that is scaled to 1 when `window` is None.
    foreground_threshold : float
        Scaled intensity above which a voxel is foreground.
    neighbours : bool
        True puts the previous, the current and the next slice into the three input channels; False
        repeats the current slice.
    """

    plane: Plane = "axial"
    input_size: int = 256
    window: tuple[float, float] | None = None
    percentile: float = 99.5
    foreground_threshold: float = 0.08
    neighbours: bool = True

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise InputError(
                f"The plane must be one of {', '.join(PLANES)}, got {self.plane!r}; choose one."
            )
        if self.input_size < 64:
            raise InputError(
                f"The input size must be at least 64 pixels, got {self.input_size}; raise it."
            )
        if self.input_size > _LARGEST_INPUT:
            raise InputError(
                f"The input size must be at most {_LARGEST_INPUT} pixels, got {self.input_size}."
            )
        if not 0 < self.percentile <= 100:
            raise InputError(f"The percentile lies in (0, 100], got {self.percentile}.")
        if not 0 <= self.foreground_threshold < 1:
            raise InputError(
                f"The foreground threshold lies in [0, 1), got {self.foreground_threshold}."
            )
        if self.window is not None:
            if not np.isfinite(self.window).all():
                raise InputError(f"The window must be two finite numbers, got {self.window}.")
            if self.window[1] <= 0:
                raise InputError(
                    f"The window width must be above 0, got {self.window[1]}; raise it."
                )
            object.__setattr__(self, "window", (float(self.window[0]), float(self.window[1])))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for a file header."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Build the settings from the output of `to_dict`."""
        window = values.get("window")
        return cls(**{**values, "window": None if window is None else tuple(window)})


def to_plane(array: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """View an (S, P, L) array as (slices, rows, cols) of a plane, head or front up.

    Parameters
    ----------
    array : ndarray, (S, P, L)
        On the volume's canonical axes.
    plane : {"axial", "coronal", "sagittal"}
        The plane to cut.

    Returns
    -------
    ndarray
        A view, (slices, rows, cols).
    """
    axes, flip = _AXES[plane]
    view = array.transpose(axes)
    return view[:, ::-1] if flip else view


def from_plane(array: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """Undo `to_plane`."""
    axes, flip = _AXES[plane]
    view = array[:, ::-1] if flip else array
    return view.transpose(tuple(np.argsort(axes)))


def plane_axis(plane: Plane) -> int:
    """Return the axis of the volume (S, P, L) along which a plane's slices are stacked."""
    return _AXES[plane][0][0]


def plane_spacing_mm(volume: Volume, plane: Plane) -> tuple[float, float, float]:
    """Return the spacing along (slices, rows, cols) of a plane in mm."""
    axes, _ = _AXES[plane]
    spacing = volume.spacing_mm
    return spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]


@dataclass(frozen=True)
class IntensityScale:
    """The linear map from voxel values to [0, 1].

    Attributes
    ----------
    low, height : float
        The value that becomes 0, and the height above it that becomes 1.
    padding : ndarray of bool, or None
        Mask of bright padding, in the scan's shape; it becomes 0.
    """

    low: float
    height: float
    padding: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, array: NDArray[np.float32], preprocessing: Preprocessing) -> IntensityScale:
        """Find the scale of a scan.

        A fixed window maps its ends to 0 and 1. Otherwise 0 stays 0 and the chosen percentile of
        the foreground becomes 1. In scans with a negative border, such as standardised ones, the
        border's value becomes 0. Foreground is everything above a share of that percentile, so the
        two are found together by iteration. Bright padding is excluded.

        Parameters
        ----------
        array : ndarray of float32, (slices, rows, cols)
            Voxel values.
        preprocessing : Preprocessing
            Window or percentile, and the foreground threshold.
        """
        low, height = _intensity_range(array, preprocessing)
        padding = find_padding(array, low + preprocessing.foreground_threshold * height)
        # An image of flat areas only would be all padding.
        if padding is None or array[~padding].max(initial=low) <= low:
            return cls(low, height)
        dark = np.where(padding, np.float32(low), array)
        return cls(*_intensity_range(dark, preprocessing), padding)

    def apply(self, array: NDArray[np.float32], part: Any = ...) -> NDArray[np.float32]:
        """Scale a part of the scan to [0, 1].

        Parameters
        ----------
        array : ndarray of float32, (slices, rows, cols)
            The scan's voxel values.
        part : index
            Which slices; default all.

        Returns
        -------
        ndarray of float32
            The scaled part, in its own shape, contiguous.
        """
        scaled = np.subtract(array[part], np.float32(self.low), order="C")
        scaled /= np.float32(self.height)
        if self.padding is not None:
            scaled[self.padding[part]] = 0
        return np.clip(scaled, 0, 1, out=scaled)


def _intensity_range(
    array: NDArray[np.float32], preprocessing: Preprocessing
) -> tuple[float, float]:
    """Return the value that becomes 0, and the height above it that becomes 1."""
    if preprocessing.window is not None:
        centre, width = preprocessing.window
        return centre - width / 2, width
    border = np.concatenate(
        [array[..., 0, :], array[..., -1, :], array[..., :, 0], array[..., :, -1]], axis=-1
    )
    low = min(0.0, float(np.median(border)))
    # Percentiles of a subsample are close enough; sorting all voxels would dominate the run time.
    sample = array.ravel()[:: max(1, array.size // _SAMPLED_VOXELS)] - np.float32(low)
    top = float(np.percentile(sample[sample > sample.mean()], preprocessing.percentile))
    for _ in range(5):
        inside = sample[sample > preprocessing.foreground_threshold * top]
        new_top = float(np.percentile(inside, preprocessing.percentile)) if inside.size else top
        if abs(new_top - top) <= 1e-4 * top:
            break
        top = new_top
    return low, top


@dataclass(frozen=True)
class PatchGrid:
    """The patch grid over a slice, and the resizing in between.

    Attributes
    ----------
    slice_shape : tuple of int
        (rows, cols) of the slice.
    content_shape : tuple of int
        (height, width) of the slice after resizing, before padding.
    input_shape : tuple of int
        (height, width) of the network input: the content, padded at the bottom and right.
    stride : int
        Input pixels between patch centres.
    """

    slice_shape: tuple[int, int]
    content_shape: tuple[int, int]
    input_shape: tuple[int, int]
    stride: int

    @classmethod
    def fit(
        cls,
        slice_shape: tuple[int, int],
        pixel_mm: tuple[float, float],
        input_size: int,
        stride: int,
        multiple: int,
    ) -> PatchGrid:
        """Compute the grid for slices of one shape.

        Parameters
        ----------
        slice_shape : tuple of int
            (rows, cols).
        pixel_mm : tuple of float
            Pixel size along rows and columns in mm; the input has square pixels.
        input_size : int
            Shorter edge of the input in pixels.
        stride : int
            Input pixels between patch centres.
        multiple : int
            The input's edges are rounded up to a multiple of this.
        """
        height_mm = slice_shape[0] * pixel_mm[0]
        width_mm = slice_shape[1] * pixel_mm[1]
        pixels_per_mm = input_size / min(height_mm, width_mm)
        content = (
            max(1, round(height_mm * pixels_per_mm)),
            max(1, round(width_mm * pixels_per_mm)),
        )
        padded = tuple(-(-edge // multiple) * multiple for edge in content)
        return cls(slice_shape, content, (padded[0], padded[1]), stride)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of patches along rows and columns, (h, w)."""
        return self.input_shape[0] // self.stride, self.input_shape[1] // self.stride

    @property
    def patch_pixels(self) -> tuple[float, float]:
        """Slice pixels between patch centres along rows and columns."""
        return (
            self.stride * self.slice_shape[0] / self.content_shape[0],
            self.stride * self.slice_shape[1] / self.content_shape[1],
        )

    def to_input(self, images: torch.Tensor) -> torch.Tensor:
        """Resize and pad slices to the input. (B, C, rows, cols) -> (B, C, H, W)."""
        import torch.nn.functional as F

        if tuple(images.shape[-2:]) != self.content_shape:
            images = F.interpolate(
                images, size=self.content_shape, mode="bicubic", antialias=True
            ).clamp_(0, 1)
        bottom = self.input_shape[0] - self.content_shape[0]
        right = self.input_shape[1] - self.content_shape[1]
        return F.pad(images, (0, right, 0, bottom)) if bottom or right else images

    def to_slices(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample maps bilinearly from the patch grid to the slices.

        Parameters
        ----------
        maps : ndarray of float32, (B, h, w)
            One value for each patch.

        Returns
        -------
        ndarray of float32, (B, rows, cols)
        """
        import torch

        down, across = (
            torch.from_numpy(_pixel_shares(*sizes))
            for sizes in zip(
                self.shape, self.input_shape, self.content_shape, self.slice_shape, strict=True
            )
        )
        grid = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))
        return np.asarray((down @ (grid @ across.T)).numpy())

    def to_grid(self, masks: NDArray[Any]) -> NDArray[np.float32]:
        """Average slices over each patch.

        Parameters
        ----------
        masks : ndarray, (B, rows, cols)
            A mask or image.

        Returns
        -------
        ndarray of float32, (B, h, w)
            The mean over each patch (for a mask, the covered share); 0 in the padding.
        """
        import torch

        # In torch, because `sharing_cores` limits its threads; it cannot limit numpy's.
        down, across = map(torch.from_numpy, self._shares)
        out = torch.empty(len(masks), *self.shape)
        for image, grid in zip(masks, out, strict=True):
            values = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
            torch.matmul(down, values @ across.T, out=grid)
        return np.asarray(out.numpy())

    def may_exceed(self, masks: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
        """Return which masks can have a value above `share` in `to_grid`, without computing it.

        Parameters
        ----------
        masks : ndarray of bool, (B, rows, cols)
            Masks of slices.
        share : float
            The share to exceed.

        Returns
        -------
        ndarray of bool, (B,)
            False only where every patch is certain to stay at or below `share`.
        """
        down, across = self._shares
        most = float(down.max() * across.max())
        counts = np.array([np.count_nonzero(mask) for mask in masks])
        return np.asarray(counts * most > share)

    @property
    def _shares(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight of each row in each row of patches, (h, rows), and the same for columns."""
        down, across = (
            _patch_shares(*sizes, self.stride)
            for sizes in zip(self.slice_shape, self.content_shape, self.input_shape, strict=True)
        )
        return down, across


@lru_cache(maxsize=32)
def _patch_shares(pixels: int, content: int, padded: int, stride: int) -> NDArray[np.float32]:
    """Return the weight of each pixel along an axis in the mean of each patch, (patches, pixels).

    Parameters
    ----------
    pixels, content, padded : int
        Pixels of the slice, after resizing, and after padding.
    stride : int
        Input pixels in a patch.
    """
    # Adaptive pooling, whose windows may overlap, then the mean over each patch. This equals the
    # result of torch for unit vectors, which take gigabytes for a wide image.
    shares = np.zeros((padded // stride, pixels), dtype=np.float32)
    for place in range(min(content, len(shares) * stride)):
        first, last = place * pixels // content, -(-(place + 1) * pixels // content)
        shares[place // stride, first:last] += np.float32(1) / np.float32(last - first)
    shares /= np.float32(stride)
    return shares


@lru_cache(maxsize=32)
def _pixel_shares(patches: int, padded: int, content: int, pixels: int) -> NDArray[np.float32]:
    """Return the weight of each patch along an axis in the value of each pixel, (pixels, patches).

    The counterpart of `_patch_shares`: enlarge to the input, crop the padding, and resize to the
    slice, linearly.
    """
    import torch
    import torch.nn.functional as F

    units = torch.eye(patches)[:, None]
    full = F.interpolate(units, padded, mode="linear", align_corners=False)[..., :content]
    return np.ascontiguousarray(
        F.interpolate(full, pixels, mode="linear", align_corners=False)[:, 0].T.numpy()
    )


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
    """

    slices: NDArray[np.float32]
    scale: IntensityScale
    foreground: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    preprocessing: Preprocessing

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
        resized : dict of torch.Tensor (H, W), optional
            Cache of slices at input size, by number. Missing slices are added; the oldest ones no
            longer needed are removed. Pass the same dict to consecutive calls, so that each slice
            is resized only once.

        Returns
        -------
        torch.Tensor of float32, (B, 3, H, W)
            Normalised with the mean and standard deviation of ImageNet.
        """
        import torch

        around = (-1, 0, 1) if self.preprocessing.neighbours else (0, 0, 0)
        last = len(self) - 1
        channels = [[min(max(index + step, 0), last) for step in around] for index in indices]
        needed = {number for numbers in channels for number in numbers}
        resized = {} if resized is None else resized
        missing = sorted(needed - resized.keys())
        if missing:
            slices = grid.to_input(torch.from_numpy(self.values(missing))[:, None])[:, 0]
            resized.update(zip(missing, slices, strict=True))
        out = torch.empty(len(channels), 3, *grid.input_shape)
        for image, numbers in zip(out, channels, strict=True):
            for channel, number, mean, std in zip(
                image, numbers, _IMAGENET_MEAN, _IMAGENET_STD, strict=True
            ):
                torch.sub(resized[number], mean, out=channel).div_(std)
        for number in [number for number in resized if number not in needed][:-_KEPT_SLICES]:
            del resized[number]
        return out


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
        If the volume is a single 2D image and the plane is not axial, or the scan needs more
        memory than the machine has.
    """
    if volume.is_2d and preprocessing.plane != "axial":
        raise InputError(
            f"{volume.name} is a single 2D image, which has no {preprocessing.plane} plane; "
            "use a model of the axial plane."
        )
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
    )


def _check_memory(volume: Volume, preprocessing: Preprocessing) -> None:
    """Refuse a scan whose input, patches and map do not fit into memory.

    What makes them large is not the number of voxels, but edges of very different lengths.
    """
    shape = to_plane(volume.array, preprocessing.plane).shape
    spacing = plane_spacing_mm(volume, preprocessing.plane)
    edges_mm = shape[1] * spacing[1], shape[2] * spacing[2]
    ratio = max(edges_mm) / min(edges_mm)
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
