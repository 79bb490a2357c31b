"""The scored pixels of cases, kept on disk, and the counts over many of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.lesions import region_shares
from napari_dino_uad.core.metrics import LOWEST, Counts
from napari_dino_uad.core.slices.healthy import tissue_slices
from napari_dino_uad.core.slices.planes import to_plane

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap

__all__ = ["CasePixels", "count_pixels", "opened"]

_PARTS = ("healthy", "lesion", "shares")


@dataclass(frozen=True)
class CasePixels:
    """The scored pixels of a case, by convention.

    Attributes
    ----------
    healthy : dict of str to ndarray of float32
        Scores of healthy foreground pixels in "tissue" slices, and in the "other" slices, which
        have hardly any tissue.
    lesion : dict of str to ndarray of float32
        Scores of lesion pixels; those outside the foreground have the lowest.
    shares : dict of str to ndarray of float32
        Share of each lesion pixel in its region.
    regions : dict of str to int
        Number of regions.
    background : int
        Healthy pixels outside the foreground.
    slices : int
        Number of slices with enough tissue.
    """

    healthy: dict[str, NDArray[np.float32]]
    lesion: dict[str, NDArray[np.float32]]
    shares: dict[str, NDArray[np.float32]]
    regions: dict[str, int]
    background: int
    slices: int

    @classmethod
    def of(cls, name: str, anomaly: AnomalyMap, mask: NDArray[np.bool_]) -> CasePixels:
        """Take the pixels of a finished map.

        Parameters
        ----------
        name : str
            Name of the case.
        anomaly : AnomalyMap
        mask : ndarray of bool, (S, P, L)
            Lesions.

        Raises
        ------
        InputError
            If no slice has enough tissue.
        """
        kept = tissue_slices(anomaly.scan)
        if not kept.any():
            raise InputError(
                f"{name} has no slice with enough tissue; check the window and plane of the model."
            )
        plane = anomaly.model.preprocessing.plane
        scores, lesion = to_plane(anomaly.scores, plane), to_plane(mask, plane)
        inside = anomaly.scan.foreground
        shares, regions = region_shares(lesion)
        parts: dict[str, dict[str, NDArray[np.float32]]] = {part: {} for part in _PARTS}
        for which, slices in (("tissue", kept), ("other", ~kept)):
            ill, tissue, values = lesion[slices], inside[slices], scores[slices]
            parts["healthy"][which] = values[tissue & ~ill]
            parts["lesion"][which] = np.where(tissue[ill], values[ill], LOWEST)
            parts["shares"][which] = shares[slices][ill]
        return cls(
            **parts,
            regions={"tissue": int(regions[kept].sum()), "other": int(regions[~kept].sum())},
            background=int((~inside & ~lesion).sum()),
            slices=int(kept.sum()),
        )

    def save(self, path: Path) -> None:
        """Write to a file that `open` reads a part at a time."""
        plain: dict[str, Any] = {
            f"{part}.{which}": value for part in _PARTS for which, value in self._of(part)
        }
        counts = [self.regions["tissue"], self.regions["other"], self.background, self.slices]
        with path.open("wb") as file:
            np.savez(file, counts=np.array(counts, dtype=np.int64), **plain)

    @classmethod
    def load(cls, path: Path) -> CasePixels:
        """Read a file of `save`."""
        with np.load(path, allow_pickle=False) as file:
            tissue, other, background, slices = file["counts"].tolist()
            parts = {
                part: {which: file[f"{part}.{which}"] for which in ("tissue", "other")}
                for part in _PARTS
            }
        return cls(
            **parts,
            regions={"tissue": tissue, "other": other},
            background=background,
            slices=slices,
        )

    def _of(self, part: str) -> Iterable[tuple[str, NDArray[np.float32]]]:
        found: dict[str, NDArray[np.float32]] = getattr(self, part)
        return found.items()

    def take(self, part: str, convention: str) -> NDArray[np.float32]:
        """Return "healthy", "lesion" or "shares" of a convention, without the background."""
        found: dict[str, NDArray[np.float32]] = getattr(self, part)
        if convention == "tissue" or not len(found["other"]):
            return found["tissue"]
        return np.concatenate([found["tissue"], found["other"]])

    def region_count(self, convention: str) -> int:
        """Return the number of regions of a convention."""
        return self.regions["tissue"] + (self.regions["other"] if convention == "all" else 0)

    def background_of(self, convention: str) -> int:
        """Return how many healthy background pixels a convention counts."""
        return self.background if convention == "all" else 0

    def counts(self, convention: str, thresholds: Iterable[float]) -> Counts:
        """Count the pixels of this case."""
        return count_pixels([self], convention, thresholds)

    def size(self, convention: str) -> tuple[int, int]:
        """Return the numbers of all pixels and of lesion pixels of a convention."""
        lesion = len(self.take("lesion", convention))
        healthy = len(self.take("healthy", convention)) + self.background_of(convention)
        return lesion + healthy, lesion


def count_pixels(cases: Sequence[Any], convention: str, thresholds: Iterable[float]) -> Counts:
    """Count the pixels of many cases exactly, holding the healthy ones of one at a time.

    Parameters
    ----------
    cases : sequence of CasePixels or Path
        In memory, or files of `CasePixels.save`, which are read twice.
    convention : {"tissue", "all"}
    thresholds : iterable of float
        As in `Counts.of`.
    """
    lesion, shares, regions, background = [], [], 0, 0
    for case in opened(cases):
        lesion.append(case.take("lesion", convention))
        shares.append(case.take("shares", convention))
        regions += case.region_count(convention)
        background += case.background_of(convention)
    return Counts.of(
        np.concatenate(lesion),
        (case.take("healthy", convention) for case in opened(cases)),
        shares=np.concatenate(shares),
        regions=regions,
        background=background,
        thresholds=thresholds,
    )


def opened(cases: Sequence[Any]) -> Iterator[CasePixels]:
    """Go through cases in memory or in files."""
    for case in cases:
        yield case if isinstance(case, CasePixels) else CasePixels.load(case)
