"""The object in each slice, apart from its background, by the first principal component.

For pictures whose background is not dark, where a threshold of intensity finds no foreground: a
tissue section on white glass, a part on a table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.features.extract import extract_features

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.features.cache import CacheEntry
    from napari_dino_uad.core.slices.patch_grid import PatchGrid
    from napari_dino_uad.core.slices.prepared import PreparedScan

__all__ = ["object_patches", "within_objects"]

_AROUND = np.ones((3, 3), dtype=bool)


def object_patches(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Separate the object from its background in one image.

    The first principal component of the image's embeddings is divided in two by Otsu's threshold,
    and the part that holds less of the image's border is the object. Gaps are closed and holes
    are filled, since an anomaly may look like neither. After AnomalyDINO (Damm et al., WACV 2025),
    whose fixed threshold is for embeddings that are not normalised.

    Parameters
    ----------
    embeddings : ndarray of float32, (C, h, w)
        Embeddings of the patches on the image, without padding.

    Returns
    -------
    ndarray of bool, (h, w)
        All True if the image's patches are all alike.
    """
    import SimpleITK as sitk
    from sklearn.decomposition import PCA

    channels, height, width = embeddings.shape
    rows = embeddings.reshape(channels, -1).T.astype(np.float64)
    if len(rows) < 2 or np.ptp(rows, axis=0).max() == 0:
        return np.ones((height, width), dtype=bool)
    solver = "covariance_eigh" if channels <= len(rows) else "full"
    first = PCA(1, svd_solver=solver).fit_transform(rows).reshape(height, width)
    apart = sitk.GetArrayFromImage(sitk.OtsuThreshold(sitk.GetImageFromArray(first))) > 0
    edge = np.concatenate([apart[0], apart[-1], apart[1:-1, 0], apart[1:-1, -1]])
    inside = ~apart if edge.mean() > 0.5 else apart
    padded = ndimage.binary_closing(np.pad(inside, 1, mode="edge"), _AROUND)[1:-1, 1:-1]
    return np.asarray(ndimage.binary_fill_holes(padded | inside))


def within_objects(
    scan: PreparedScan,
    grid: PatchGrid,
    backbone: Backbone,
    indices: NDArray[np.int64],
    batch: int = 2,
    entry: CacheEntry | None = None,
) -> Generator[None, None, PreparedScan]:
    """Restrict the foreground of some slices to the object, if the settings ask for that.

    Without a cache the slices are embedded here, and again where they are scored.

    Parameters
    ----------
    scan, grid, backbone, batch, entry
        As in `extract_features`.
    indices : ndarray of int64
        Slice numbers. The foreground of other slices stays as it is.

    Yields
    ------
    None
        After every batch and every tenth of a second.

    Returns
    -------
    PreparedScan
    """
    import torch

    if not scan.preprocessing.object_mask:
        return scan
    layout = LayerLayout.of(backbone.spec, grid.shape)
    height, width = grid.content
    foreground = scan.foreground.copy()
    for item in extract_features(scan, grid, backbone, indices.tolist(), batch, entry=entry):
        if item is not None:
            embeddings = layout.join(torch.from_numpy(item[1])).float().numpy()
            for index, one in zip(item[0], embeddings, strict=True):
                foreground[index] &= grid.on_pixels(object_patches(one[:, :height, :width]))
        yield
    return dataclasses.replace(scan, foreground=foreground)
