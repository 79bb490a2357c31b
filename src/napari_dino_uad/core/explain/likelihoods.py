"""Log-likelihood of a scan's patches under single components of its mixture, on disk."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.explain.overlays import explain_scan, place_on_volume
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.scans.volume import write_volume
from napari_dino_uad.core.storage.atomic import staged, writing

if TYPE_CHECKING:
    from napari_dino_uad.core.explain.slices import Explainer

__all__ = ["ComponentLikelihood", "read_likelihoods", "write_likelihoods"]


@dataclass(frozen=True)
class ComponentLikelihood:
    """A component and the map written for it.

    Attributes
    ----------
    component : int
        Counted from 1, the most common of the cohort; as in ``CASE_components.nii.gz``.
    weight : float
        Its weight in the mixture.
    patches : int
        Patches of the scan's tissue that are nearest to it.
    file : str
        Name of the map, in nats; outside the tissue it has the lowest value of the tissue.
    """

    component: int
    weight: float
    patches: int
    file: str


def read_likelihoods(folder: Path, name: str) -> list[ComponentLikelihood]:
    """Return the table of a case, which is written after all its maps; empty without one."""
    try:
        with _table(folder, name).open(encoding="utf-8", newline="") as file:
            return [
                ComponentLikelihood(
                    int(row["component"]), float(row["weight"]), int(row["patches"]), row["file"]
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError):
        return []


def _table(folder: Path, name: str) -> Path:
    return folder / f"{name}_likelihoods.csv"


def write_likelihoods(
    explainer: Explainer, folder: Path, name: str, count: int
) -> Generator[Progress, None, list[ComponentLikelihood]]:
    """Write log p(x | k) of the components that most of a scan's tissue is nearest to.

    Parameters
    ----------
    explainer : Explainer
        Of a map whose model has a mixture.
    folder : Path
        Folder to write ``NAME_likelihood_K.nii.gz``, one for each component k, and
        ``NAME_likelihoods.csv`` to.
    name : str
        Name of the case.
    count : int
        Largest number of components.

    Yields
    ------
    Progress

    Returns
    -------
    list of ComponentLikelihood
        The most frequent first.

    Raises
    ------
    InputError
        If the model has no mixture, or a file cannot be written.
    """
    mixture = explainer.mixture
    if mixture is None:
        raise InputError("The model has no mixture, and so no components; use the method dpmm.")
    nearest = yield from explain_scan(explainer, "component")
    numbers = np.bincount(nearest.array.astype(np.intp).ravel())
    numbers[0] = 0
    chosen = np.argsort(-numbers, kind="stable")[: min(count, np.count_nonzero(numbers))]
    anomaly, grid = explainer.anomaly, explainer.grid
    # A typed view of the mixture would need its class here, below the table of methods.
    weights = mixture.mixture.log_weights.exp().tolist()  # type: ignore[attr-defined]
    maps = np.full((len(chosen), len(anomaly.scan), *grid.content), np.nan, dtype=np.float32)
    scored = explainer.scored
    done = 0
    for item in explainer.embedded(scored):
        if item is not None:
            index, seen = item
            found = mixture.explain(seen, (chosen - 1).tolist())  # type: ignore[call-arg]
            values = found["component_log_likelihood"][0].numpy()
            tissue = explainer.tissue(index)
            values = np.where(tissue, values, np.nan)
            maps[:, index] = values[:, : grid.content[0], : grid.content[1]]
            done += 1
        yield Progress("Likelihoods of components", done, len(scored), anomaly.volume.name)
    rows = [
        ComponentLikelihood(
            int(k), weights[k - 1], int(numbers[k]), f"{name}_likelihood_{k}.nii.gz"
        )
        for k in chosen
    ]
    table = _table(folder, name)
    with writing(table), staged(folder, last=table.name) as partial:
        for row, one in zip(rows, maps, strict=True):
            write_volume(partial / row.file, _on_voxels(explainer, one), anomaly.volume)
        with (partial / table.name).open("w", encoding="utf-8", newline="") as file:
            fields = [field.name for field in dataclasses.fields(ComponentLikelihood)]
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(dataclasses.asdict(row) for row in rows)
    return rows


def _on_voxels(explainer: Explainer, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the value of the nearest patch at each voxel of tissue, the lowest elsewhere."""
    anomaly = explainer.anomaly
    overlay = place_on_volume("likelihood", patches, explainer)
    values = overlay.on_voxels(anomaly.volume.shape)
    known = np.isfinite(values) & anomaly.foreground
    low = values[known].min() if known.any() else np.float32(0)
    return np.where(known, values, low)
