"""The patch grid of a backbone over the slices of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


__all__ = ["PatchGrid"]


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

    @property
    def content(self) -> tuple[int, int]:
        """Number of patches along rows and columns that lie on the slice, not in the padding."""
        rows, columns = (-(-edge // self.stride) for edge in self.content_shape)
        return min(rows, self.shape[0]), min(columns, self.shape[1])

    def patch_at(self, row: int, column: int) -> tuple[int, int]:
        """Return the patch, (i, j), that holds a pixel of the slice."""
        i, j = (
            int((place + 0.5) / size)
            for place, size in zip((row, column), self.patch_pixels, strict=True)
        )
        return min(i, self.content[0] - 1), min(j, self.content[1] - 1)

    def on_pixels(self, patches: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Give every pixel of the slice the value of its patch. (h, w) -> (rows, cols)."""
        places = (
            np.minimum(((np.arange(edge) + 0.5) / size).astype(np.intp), last - 1)
            for edge, size, last in zip(
                self.slice_shape, self.patch_pixels, self.content, strict=True
            )
        )
        return np.asarray(patches[np.ix_(*places)])

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
