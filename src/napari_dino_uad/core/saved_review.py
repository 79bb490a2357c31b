"""Reviews on disk: a scan's map, settings, corrections and decisions, without a new detection.

`NAME.review.json` says which scan and model the review belongs to, with their checksums, and has
the settings and decisions. `NAME.review.safetensors` has the scores on the patch grid, from which
the map is made again exactly, the corrections and the regions of the decisions. A model that has
no file of its own is written beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.backbone import backbone_spec
from napari_dino_uad.core.detect import AnomalyMap, PlaneMap
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import content_digest
from napari_dino_uad.core.maps.finding_settings import FindingSettings
from napari_dino_uad.core.maps.findings import MOST_FINDINGS
from napari_dino_uad.core.maps.review import REVIEW_ENDING, Judgement, Review
from napari_dino_uad.core.maps.score_map import ScanLevel
from napari_dino_uad.core.model_file import load_model, model_checksum, save_model
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.scans.several import list_volumes
from napari_dino_uad.core.scans.volume import read_volume
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.storage.atomic import json_text, staged, writing
from napari_dino_uad.core.storage.records import (
    are_as_recorded,
    read_sealed,
    record_files,
    sealed,
)
from napari_dino_uad.core.storage.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["OpenedReview", "open_review", "save_review"]

_TENSORS, _MODEL = ".review.safetensors", ".model.safetensors"
_VERSION = 1
# Volumes of a file of four dimensions that are tried.
_MOST_VOLUMES = 50


@dataclass(frozen=True)
class OpenedReview:
    """A review read from disk.

    Attributes
    ----------
    anomaly : AnomalyMap
        With its scan and its model.
    settings : FindingSettings
    review : Review
    model_name : str
    scan : int or None
        Which of the scans that were open it belongs to; None if the scan was read from its file.
    numbered : ndarray of uint8, (S, P, L), or None
        A voxel of each corrected finding with its number, for `edit_findings`; None if nothing was
        corrected.
    """

    anomaly: AnomalyMap
    settings: FindingSettings
    review: Review
    model_name: str
    scan: int | None
    numbered: NDArray[np.uint8] | None = None


def save_review(
    path: Path,
    anomaly: AnomalyMap,
    settings: FindingSettings,
    review: Review,
    model_name: str,
    labels: NDArray[np.uint8] | None = None,
) -> list[Path]:
    """Save the review of a scan, all files or none.

    Parameters
    ----------
    path : Path
        File to write; its name ends in `.review.json`.
    anomaly : AnomalyMap
    settings : FindingSettings
    review : Review
    model_name : str
        What the model is called in the window.
    labels : ndarray of uint8, (S, P, L), optional
        The findings; corrected ones have the same numbers when the review is opened.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    InputError
        If the name has another ending, or a file cannot be written.
    """
    if not path.name.endswith(REVIEW_ENDING):
        raise InputError(f"Expected a name that ends in {REVIEW_ENDING}, got {path.name}.")
    stem = path.name.removesuffix(REVIEW_ENDING)
    volume, model = anomaly.volume, anomaly.model
    checksum = model_checksum(model)
    source = volume.path.resolve() if volume.path is not None else None
    values = {
        "format_version": _VERSION,
        "scan": {
            "name": volume.name,
            "path": None if source is None else str(source),
            "series": None if volume.series is None else volume.series.uid,
            "shape": list(volume.shape),
            "digest": content_digest(volume.content, volume.spacing_mm),
        },
        "model": {
            "name": model_name,
            "path": None if model.path is None else str(model.path.resolve()),
            "checksum": checksum,
        },
        "settings": {
            "rate": settings.rate,
            "minimum_size": settings.minimum_size,
            "tissue_only": settings.tissue_only,
            "without_scalp": settings.without_scalp,
        },
        "judgements": [{"decision": one.decision, "note": one.note} for one in review.judgements],
        "numbers": {} if labels is None or settings.edits is None else _numbers(labels),
        "seconds": anomaly.seconds,
    }
    with writing(path), staged(path.parent, last=path.name) as partial:
        tensors = partial / f"{stem}{_TENSORS}"
        write_tensors(tensors, _tensors(anomaly, settings, review), {"napari_dino_uad": "review"})
        written = [tensors]
        if not _has_file(model, checksum):
            save_model(model, partial / f"{stem}{_MODEL}")
            written.append(partial / f"{stem}{_MODEL}")
        values["files"] = record_files([tensors])
        (partial / path.name).write_text(json_text(sealed(values)), encoding="utf-8")
    return [path.parent / one.name for one in written] + [path]


def _numbers(labels: NDArray[np.uint8]) -> dict[str, int]:
    """Return the first voxel of each finding in the flat grid, by number."""
    numbers, first = np.unique(labels, return_index=True)
    pairs = zip(numbers.tolist(), first.tolist(), strict=True)
    return {str(number): voxel for number, voxel in pairs if number}


def _numbered(numbers: Any, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return labels of the voxels that `_numbers` has chosen; raises ValueError for others."""
    if not numbers:
        return None
    labels = np.zeros(shape, dtype=np.uint8)
    for number, voxel in numbers.items():
        if not 1 <= int(number) <= MOST_FINDINGS or not 0 <= int(voxel) < labels.size:
            raise ValueError("numbers of other findings")
        labels.ravel()[int(voxel)] = int(number)
    return labels


def _has_file(model: FittedModel, checksum: str) -> bool:
    """Return whether the file a model was loaded from still holds it."""
    if model.path is None or not model.path.is_file():
        return False
    try:
        return model_checksum(load_model(model.path)) == checksum
    except InputError:
        return False


def _tensors(anomaly: AnomalyMap, settings: FindingSettings, review: Review) -> dict[str, Any]:
    import torch

    arrays: dict[str, NDArray[Any]] = {}
    for number, one in enumerate(anomaly.planes):
        arrays[f"planes.{number}.scores"] = one.scores
        arrays[f"planes.{number}.distances"] = one.distances
        own = (one.own_level.level, one.own_level.divisor)
        arrays[f"planes.{number}.own_level"] = np.array(own, dtype=np.float64)
    if anomaly.scan.preprocessing.object_mask:
        arrays["tissue"] = np.packbits(anomaly.scan.foreground)
    if settings.edits is not None:
        arrays["edits"] = settings.edits
    for number, judgement in enumerate(review.judgements):
        arrays[f"runs.{number}"] = judgement.runs
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def open_review(
    path: Path,
    scans: Sequence[Callable[[], Volume]] = (),
    models: Mapping[str, FittedModel] | None = None,
) -> Generator[Progress, None, OpenedReview]:
    """Open a review that `save_review` wrote, after checking that scan and model are the same.

    Parameters
    ----------
    path : Path
        A file whose name ends in `.review.json`.
    scans : sequence of callable
        Make the volumes that are open; one of the review's content is used before any file.
    models : mapping of str to FittedModel, optional
        Models that are open, likewise.

    Yields
    ------
    Progress

    Raises
    ------
    InputError
        If a file is missing, damaged or not the one the review was made with.
    """
    yield Progress("Opening the review", 0, 3, path.name)
    values = read_sealed(path)
    if values is None or values.get("format_version") != _VERSION:
        raise InputError(
            f"{path.name} is no review, was changed or is of another version; choose a file that "
            f"Save review wrote, whose name ends in {REVIEW_ENDING}."
        )
    stem = path.name.removesuffix(REVIEW_ENDING)
    tensors = path.parent / f"{stem}{_TENSORS}"
    if not are_as_recorded(path.parent, values["files"], [tensors.name]):
        raise InputError(
            f"{tensors.name} is not beside {path.name}, or not as it was saved; copy both again."
        )
    model = _find_model(values["model"], path.parent / f"{stem}{_MODEL}", models or {})
    yield Progress("Opening the review", 1, 3, path.name)
    volume, scan = _find_scan(values["scan"], path, scans)
    yield Progress("Opening the review", 2, 3, path.name)
    _, arrays = read_tensors(tensors)
    found = {name: tensor.numpy() for name, tensor in arrays.items()}
    try:
        anomaly = _anomaly(volume, model, found, values["seconds"])
        review = Review(
            [
                Judgement.from_dict({**one, "runs": found[f"runs.{number}"]}, volume.array.size)
                for number, one in enumerate(values["judgements"])
            ]
        )
        edits = found.get("edits")
        if edits is not None and (edits.shape != volume.shape or edits.dtype != np.int8):
            raise ValueError("corrections of another shape")
        numbered = _numbered(values.get("numbers"), volume.shape)
    except (KeyError, ValueError) as error:
        raise InputError(f"{tensors.name} does not fit {path.name}; copy both again.") from error
    # Computed here, in the thread.
    _ = anomaly.scores, anomaly.foreground
    settings = FindingSettings(**values["settings"], edits=edits)
    return OpenedReview(anomaly, settings, review, values["model"]["name"], scan, numbered)


def _anomaly(
    volume: Volume, model: FittedModel, found: Mapping[str, Any], seconds: dict[str, float]
) -> AnomalyMap:
    """Make the map again from its scores on the patch grid."""
    spec = backbone_spec(model.backbone_key)
    scans = [prepare(volume, view.preprocessing) for view in model.views]
    planes = []
    for number, (seen, view) in enumerate(zip(scans, model.views, strict=True)):
        grid = seen.grid(spec.stride, spec.multiple)
        scores, distances = found[f"planes.{number}.scores"], found[f"planes.{number}.distances"]
        own = found[f"planes.{number}.own_level"]
        if scores.shape != (len(seen), *grid.shape) or distances.shape != scores.shape:
            raise ValueError("scores of another shape")
        level = ScanLevel(*own.tolist())
        planes.append(PlaneMap(view.preprocessing.plane, scores, grid, distances, level))
    scan = scans[0]
    if model.preprocessing.object_mask:
        # Found by the embeddings, which are not at hand.
        flat = np.unpackbits(found["tissue"], count=scan.foreground.size).astype(bool)
        tissue = flat.reshape(scan.foreground.shape)
        scan = dataclasses.replace(scan, foreground=tissue)
    return AnomalyMap(volume, model, tuple(planes), scan, dict(seconds))


def _find_model(
    wanted: Mapping[str, Any], beside: Path, models: Mapping[str, FittedModel]
) -> FittedModel:
    """Find the model of a review among those open, at its path, or beside the review."""
    for model in models.values():
        if model_checksum(model) == wanted["checksum"]:
            return model
    places = [Path(wanted["path"])] if wanted["path"] else []
    places += [beside, *(beside.parent / place.name for place in places)]
    for place in places:
        if place.is_file() and model_checksum(model := load_model(place)) == wanted["checksum"]:
            return model
    where = wanted["path"] or beside
    raise InputError(
        f"The model {wanted['name']} of this review is not at {where} any more, or was changed; "
        "load it in Detect, then open the review again."
    )


def _find_scan(
    wanted: Mapping[str, Any], review: Path, scans: Sequence[Callable[[], Volume]]
) -> tuple[Volume, int | None]:
    """Find the scan of a review among those open, at its path, or beside the review."""

    def same(volume: Volume) -> bool:
        return list(volume.shape) == wanted["shape"] and wanted["digest"] == content_digest(
            volume.content, volume.spacing_mm
        )

    for number, make in enumerate(scans):
        if same(volume := make()):
            return volume, number
    if wanted["path"] is None:
        raise InputError(
            f"The scan {wanted['name']} of this review has no file; open it in the viewer, then "
            "open the review again."
        )
    there = Path(wanted["path"])
    places = [place for place in (there, review.parent / there.name) if place.exists()]
    for place in places:
        for volume in _volumes(place, wanted["series"]):
            if same(volume):
                return volume, None
    if places:
        raise InputError(
            f"{places[0]} is not the scan this review was made on: its voxels differ; put the "
            "original scan back."
        )
    raise InputError(
        f"The scan of this review is not at {there} any more; put it back, or open it in the "
        "viewer, then open the review again."
    )


def _volumes(path: Path, series: str | None) -> Iterator[Volume]:
    """Read the volumes of a file one after another; of DICOM, the series only."""
    if series is not None:
        yield read_volume(path, series)
        return
    for number in range(1, min(len(list_volumes(path)), _MOST_VOLUMES) + 1):
        yield read_volume(path, volume=number)
