"""Pictures of healthy patches, stored beside a model where the cohort's owner agrees.

They show parts of the healthy scans, so they are never in the model file itself: a file of their
own is made on request, can be left out when the model is passed on, and names no scan.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache, content_digest, open_cache
from napari_dino_uad.core.features.extract import (
    PATCH_FOREGROUND,
    cache_entry,
    extract_features,
)
from napari_dino_uad.core.features.object_mask import within_objects
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.scans.cases import Case, read_cases
from napari_dino_uad.core.slices.healthy import healthy_slices
from napari_dino_uad.core.slices.prepared import PreparedScan, prepare
from napari_dino_uad.core.storage.atomic import staged, writing
from napari_dino_uad.core.storage.strict_json import parse_json
from napari_dino_uad.core.storage.tensor_file import checksum, read_tensors, write_tensors
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, check_tensors, unit_rows

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.slices.patch_grid import PatchGrid

__all__ = [
    "HealthyPictures",
    "collect_pictures",
    "load_pictures",
    "pictures_path",
    "save_pictures",
]

_HEADER = "napari_dino_uad_pictures"
_MODEL_HEADER = "napari_dino_uad"
# Pictures kept around each typical patch: a choice of scans, and 0.6 MB in all.
_EACH = 4
_EDGE = 32
# Patches along the edge of a picture: the patch and what surrounds it.
_AROUND = 5.0


@dataclass(frozen=True)
class HealthyPictures:
    """Healthy patches with their surroundings.

    Attributes
    ----------
    embeddings : torch.Tensor of float16, (N, C)
        Of unit length.
    images : torch.Tensor of uint8, (N, 32, 32)
        Grey pictures, on the scale of intensities of the model.
    """

    embeddings: torch.Tensor
    images: torch.Tensor

    def nearest(
        self, embedding: NDArray[np.floating[Any]], count: int
    ) -> list[tuple[float, NDArray[np.uint8]]]:
        """Return the patches most like an embedding (C,), each as its cosine and its picture."""
        import torch

        wanted = torch.from_numpy(np.asarray(embedding, dtype=np.float32))
        cosines = self.embeddings.float() @ wanted
        best = cosines.topk(min(count, len(cosines)))
        return [
            (float(cosine), np.asarray(self.images[int(index)].numpy()))
            for cosine, index in zip(best.values, best.indices, strict=True)
        ]


def collect_pictures(
    model: FittedModel,
    cases: Sequence[Case],
    backbone: Backbone,
    cache: FeatureCache | bool = True,
) -> Generator[Progress, None, HealthyPictures]:
    """Take pictures of the healthy patches nearest to each typical one.

    Parameters
    ----------
    model : FittedModel
        Its first view is used.
    cases : sequence of Case
        The healthy scans it was fitted on.
    backbone : Backbone
        Of the model.
    cache : FeatureCache or bool
        As in `fit`.

    Yields
    ------
    Progress
        After every slice.

    Returns
    -------
    HealthyPictures

    Raises
    ------
    InputError
        If there is no healthy patch.
    """
    store = open_cache(cache)
    best = _Best(model.views[0].prototypes)
    waiting = Progress("Storing pictures", 0, len(cases))
    yield waiting
    for item in prefetch(read_cases(cases), patience_s=PATIENCE_S):
        if item is None:
            yield waiting
            continue
        number, volume, mask, _ = item
        waiting = Progress("Storing pictures", number, len(cases), volume.name)
        scan = prepare(volume, model.preprocessing)
        indices = healthy_slices(scan, mask, model.preprocessing.plane)
        grid = scan.grid(backbone.spec.stride, backbone.spec.multiple)
        digest = content_digest(volume.content, volume.spacing_mm)
        entry = cache_entry(store, digest, scan, grid, backbone)
        narrowing = Inner(within_objects(scan, grid, backbone, indices, entry=entry))
        for _ in narrowing:
            yield waiting
        scan = narrowing.value
        order = [int(index) for index in indices]
        for batch in extract_features(scan, grid, backbone, order, entry=entry):
            if batch is not None:
                _add_slices(best, model, backbone, scan, grid, *batch)
            yield waiting
    yield Progress("Storing pictures", len(cases), len(cases))
    return best.pictures()


def _add_slices(
    best: _Best,
    model: FittedModel,
    backbone: Backbone,
    scan: PreparedScan,
    grid: PatchGrid,
    indices: list[int],
    maps: NDArray[np.float16],
) -> None:
    """Offer the tissue patches of some slices."""
    import torch

    layout = LayerLayout.of(backbone.spec, grid.shape)
    tissue = grid.to_grid(scan.foreground[indices]) > PATCH_FOREGROUND
    for index, inside, packed in zip(indices, tissue, maps, strict=True):
        places = np.argwhere(inside)
        if not len(places):
            continue
        with torch.inference_mode():
            joined = layout.join(torch.from_numpy(packed[None]))
            seen = model.context.to_unit(model.context.apply(joined, backbone.spec.levels))
            patches = seen[0].permute(1, 2, 0)[torch.from_numpy(inside)]
        picture = scan.values([index])[0]
        best.offer(patches, [_Place(picture, grid, int(i), int(j)) for i, j in places])


@dataclass(frozen=True)
class _Place:
    """A patch of a slice, whose picture is cut when it is wanted."""

    slice_: NDArray[np.float32]
    grid: PatchGrid
    i: int
    j: int

    def cut(self) -> torch.Tensor:
        """Return the patch with its surroundings, (32, 32) of uint8; black beyond the slice."""
        import torch
        import torch.nn.functional as F

        rows, columns = self.slice_.shape
        high, wide = self.grid.patch_pixels
        spots = (np.arange(_EDGE) + 0.5) / _EDGE - 0.5
        down = ((self.i + 0.5) * high + spots * _AROUND * high) / rows * 2 - 1
        across = ((self.j + 0.5) * wide + spots * _AROUND * wide) / columns * 2 - 1
        at = np.stack(np.meshgrid(across, down, indexing="xy"), axis=-1).astype(np.float32)
        image = torch.from_numpy(np.ascontiguousarray(self.slice_))[None, None]
        cut = F.grid_sample(image, torch.from_numpy(at)[None], align_corners=False)
        return (cut[0, 0].clamp(0, 1) * 255).round().byte()


class _Best:
    """The patches nearest to each typical one so far, of different slices."""

    def __init__(self, prototypes: torch.Tensor) -> None:
        self._prototypes = prototypes
        self._kept: list[list[tuple[float, torch.Tensor, torch.Tensor]]] = [[] for _ in prototypes]

    def offer(self, patches: torch.Tensor, places: list[_Place]) -> None:
        """Keep the patch (N, C) of a slice that is nearest to each prototype, if near enough."""
        cosines = patches @ self._prototypes.T
        found = cosines.max(dim=0)
        for kept, cosine, index in zip(
            self._kept, found.values.tolist(), found.indices.tolist(), strict=True
        ):
            if len(kept) == _EACH and cosine <= kept[-1][0]:
                continue
            kept.append((cosine, patches[index].half(), places[index].cut()))
            kept.sort(key=lambda one: -one[0])
            del kept[_EACH:]

    def pictures(self) -> HealthyPictures:
        """Return what was kept."""
        import torch

        kept = list(self._each())
        if not kept:
            raise InputError("The healthy scans hold no patch to take a picture of.")
        embeddings, images = (torch.stack(list(part)) for part in zip(*kept, strict=True))
        return HealthyPictures(embeddings, images)

    def _each(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for kept in self._kept:
            for _, patch, image in kept:
                yield patch, image


# Files ------------------------------------------------------------------------------------


def pictures_path(model_path: Path) -> Path:
    """Return the file of the pictures that belong to a model file."""
    return model_path.with_name(f"{model_path.stem}.pictures.safetensors")


def save_pictures(pictures: HealthyPictures, model_path: Path) -> Path:
    """Write pictures beside a saved model, whole or not at all; return the file.

    Raises
    ------
    InputError
        If there is no model file, or the file cannot be written.
    """
    path = pictures_path(model_path)
    tensors = {"embeddings": pictures.embeddings, "images": pictures.images}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = {"model": _model_checksum(model_path)}
    described = json.dumps(header | {"checksum": checksum(header, tensors)})
    with writing(path), staged(path.parent) as partial:
        write_tensors(partial / path.name, tensors, {_HEADER: described})
    return path


def load_pictures(model_path: Path) -> HealthyPictures | None:
    """Read the pictures beside a model file; None if there are none.

    Raises
    ------
    InputError
        If the file is damaged or belongs to another model.
    """
    path = pictures_path(model_path)
    if not path.is_file():
        return None
    try:
        metadata, tensors = read_tensors(path)
        header = parse_json(metadata.get(_HEADER, ""))
        if not isinstance(header, dict) or header.get("checksum") != checksum(header, tensors):
            raise ValueError("its checksum does not match")
        specs = {
            "embeddings": TensorSpec(("N", "C"), "float16", rule=unit_rows),
            "images": TensorSpec(("N", _EDGE, _EDGE), "uint8", least=0, most=255),
        }
        check_tensors(specs, tensors)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The pictures in {path.name} are damaged: {str(error).rstrip('.')}; copy the file "
            "again, or delete it."
        ) from error
    if header.get("model") != _model_checksum(model_path):
        raise InputError(
            f"The pictures in {path.name} belong to another model than {model_path.name}; delete "
            "the file, or fit again with pictures."
        )
    return HealthyPictures(tensors["embeddings"], tensors["images"])


def _model_checksum(path: Path) -> str:
    """Return the checksum that a model file holds of itself."""
    try:
        header = parse_json(read_tensors(path, owned=False)[0][_MODEL_HEADER])
        return str(header["checksum"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path.name} is no model file with a checksum; save the model again."
        ) from error
