"""One case of an evaluation: its scored pixels, its row of the table, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.evaluation.failures import list_failures
from napari_dino_uad.core.evaluation.lesions import label_lesions, match_lesions
from napari_dino_uad.core.evaluation.pool import CasePixels
from napari_dino_uad.core.features.cache import content_digest
from napari_dino_uad.core.maps.findings import find_findings, find_regions
from napari_dino_uad.core.metrics import LOWEST
from napari_dino_uad.core.results import ResultPaths, write_results
from napari_dino_uad.core.storage.folders import own_folder
from napari_dino_uad.core.storage.records import (
    are_as_recorded,
    read_sealed,
    record_files,
    write_sealed,
)

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.evaluation.settings import EvaluationSettings
    from napari_dino_uad.core.scans.cases import Case
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["MAPS", "CaseStore", "ScoredCase", "score_case"]

#: Subfolder of the maps of an evaluation, with the files of `write_results`.
MAPS = "maps"

# Share of the tissue whose lowest score is the score of the scan.
_TOP = 0.001
_VERSION = 1


@dataclass(frozen=True)
class ScoredCase:
    """A case with its row and its pixels.

    Attributes
    ----------
    name : str
    row : dict
        Columns of the table of cases.
    froc : list of (int, int)
        Lesions met and false findings at each of `EvaluationSettings.froc_rates`.
    failures : list of dict
        Rows of `Failure.row`, at `EvaluationSettings.finding_rate`.
    seconds : dict of str to float
        Spent on the backbone and the model.
    slices_scored : int
    pixels : Path or CasePixels
        What `count_pixels` takes.
    """

    name: str
    row: dict[str, Any]
    froc: list[tuple[int, int]]
    failures: list[dict[str, Any]]
    seconds: dict[str, float]
    slices_scored: int
    pixels: Any


def score_case(
    name: str,
    case: Case,
    anomaly: AnomalyMap,
    mask: NDArray[np.bool_],
    settings: EvaluationSettings,
    maps: Path | None = None,
) -> ScoredCase:
    """Compare a finished map with its mask.

    Parameters
    ----------
    name : str
        Of the case.
    case : Case
    anomaly : AnomalyMap
    mask : ndarray of bool, (S, P, L)
        Lesions.
    settings : EvaluationSettings
    maps : Path, optional
        Folder to write the map and the findings to.

    Raises
    ------
    InputError
        If no slice has enough tissue, or a file cannot be written.
    """
    calibration, volume = anomaly.model.calibration, anomaly.volume
    pixels = CasePixels.of(name, anomaly, mask)
    thresholds = {rate: calibration.threshold(rate) for rate in settings.rates}
    labels, findings = find_findings(
        anomaly.scores,
        volume,
        calibration.threshold(settings.finding_rate),
        calibration,
        foreground=anomaly.foreground,
        minimum_size=settings.minimum_size,
        core=calibration.core_threshold(settings.finding_rate),
    )
    if maps is not None:
        write_results(maps, anomaly, labels, findings, settings.finding_rate, name)
    lesions, _ = label_lesions(mask)
    match = match_lesions(lesions, labels, settings.lesion_overlap)
    froc = []
    for rate in settings.froc_rates:
        at_rate = match
        if rate != settings.finding_rate:
            regions = find_regions(
                anomaly.scores,
                volume,
                calibration.threshold(rate),
                foreground=anomaly.foreground,
                minimum_size=settings.minimum_size,
                core=calibration.core_threshold(rate),
            )
            at_rate = match_lesions(lesions, regions, settings.lesion_overlap)
        froc.append((sum(at_rate.met), len(at_rate.false)))
    total, ill = pixels.size("tissue")
    whole, whole_ill = pixels.size("all")
    everywhere = pixels.counts("all", ()).metrics({})
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000 if volume.spacing_known else None
    row = {
        "case": name,
        "scan": _path(case.scan),
        "mask": _path(case.mask),
        **{column: groups.get(name, "") for column, groups in settings.groups.items()},
        "slices": pixels.slices,
        "pixels": total,
        "lesion_pixels": ill,
        **_flat(pixels.counts("tissue", thresholds.values()).metrics(thresholds)),
        "all_pixels": whole,
        "all_lesion_pixels": whole_ill,
        **{f"all_{key}": value for key, value in everywhere.items() if key in _WHOLE},
        **match.row(),
        "lesion_ml": None if voxel_ml is None else round(voxel_ml * int(mask.sum()), 4),
        "found_ml": None if voxel_ml is None else round(voxel_ml * int((labels > 0).sum()), 4),
        "scan_score": scan_score(anomaly),
    }
    failures = list_failures(name, volume, anomaly.scores, lesions, labels, match)
    return ScoredCase(
        name,
        row,
        froc,
        [failure.row() for failure in failures],
        dict(anomaly.seconds),
        len(anomaly.scan),
        pixels,
    )


_WHOLE = ("auroc", "average_precision", "aupro", "max_dice")


def scan_score(anomaly: AnomalyMap) -> float:
    """Return the score of a whole scan: the lowest of the highest 0.1 % of its tissue."""
    scores = anomaly.scores[anomaly.foreground]
    return float(np.quantile(scores, 1 - _TOP)) if scores.size else float(LOWEST)


def _path(place: Any) -> str:
    return str(place) if isinstance(place, Path) else ""


def _flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics without nesting, one for each column of a table."""
    out: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            out |= {f"{name}_{rate}": number for rate, number in value.items()}
        else:
            out[name] = value
    return out


class CaseStore:
    """Keeps scored cases in a folder, so that memory stays small and a stopped run resumes.

    Parameters
    ----------
    folder : Path
        Exists while the evaluation runs.
    maps : Path or None
        Folder of the maps; a case whose maps are not whole is scored again.
    settings : EvaluationSettings
    model : str or None
        Checksum of the model; None if no later run comes back to the folder.
    """

    def __init__(
        self, folder: Path, maps: Path | None, settings: EvaluationSettings, model: str | None
    ) -> None:
        self._folder, self._maps = folder, maps
        self._settings, self._model = settings, model
        own_folder(folder)

    def request(self, volume: Volume, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Return what the figures of a case depend on, in plain values."""
        settings = asdict(self._settings)
        for later in ("bootstrap", "seed"):
            del settings[later]
        return {
            "version": _VERSION,
            "scan": content_digest(volume.content, volume.spacing_mm),
            "mask": content_digest(mask, volume.spacing_mm),
            "model": self._model,
            "settings": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in settings.items()
            },
        }

    def keep(self, scored: ScoredCase, request: Mapping[str, Any]) -> ScoredCase:
        """Move a case to the disk."""
        place = self._folder / f"{scored.name}.npz"
        scored.pixels.save(place)
        write_sealed(
            self._folder / f"{scored.name}.json",
            {
                "request": dict(request),
                "row": scored.row,
                "froc": [list(pair) for pair in scored.froc],
                "failures": scored.failures,
                "seconds": scored.seconds,
                "slices_scored": scored.slices_scored,
                "files": record_files([place]),
            },
        )
        return replace(scored, pixels=place)

    def find(self, name: str, request: Mapping[str, Any]) -> ScoredCase | None:
        """Return a case that a stopped run has finished; None if there is none like it."""
        found = read_sealed(self._folder / f"{name}.json")
        place = self._folder / f"{name}.npz"
        if found is None or found.get("request") != request:
            return None
        if not are_as_recorded(self._folder, found["files"], [place.name]):
            return None
        if self._maps is not None:
            *others, report = ResultPaths.of(self._maps, name)
            written = read_sealed(report)
            names = [path.name for path in others]
            if written is None or not are_as_recorded(self._maps, written.get("files"), names):
                return None
        return ScoredCase(
            name,
            found["row"],
            [(met, false) for met, false in found["froc"]],
            found["failures"],
            found["seconds"],
            found["slices_scored"],
            place,
        )
