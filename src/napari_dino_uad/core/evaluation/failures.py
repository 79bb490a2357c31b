"""Where a model fails: lesions without a finding, and findings without a lesion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.evaluation.lesions import LesionMatch, label_lesions, match_lesions
from napari_dino_uad.core.maps.findings import find_regions, size_unit
from napari_dino_uad.core.metrics import LOWEST, pixel_metrics

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.folder import OpenedCase
    from napari_dino_uad.core.scans.volume import Volume

__all__ = [
    "FALSE",
    "FOUND",
    "MISSED",
    "OUTCOMES",
    "Failure",
    "Outcome",
    "compare_at",
    "failure_of_row",
    "list_failures",
    "rank_failures",
]

Kind = Literal["missed lesion", "false alarm"]

#: Values of the voxels in `Outcome.labels`.
FOUND, FALSE, MISSED = 1, 2, 3
OUTCOMES = {
    FOUND: "lesion, marked",
    FALSE: "marked, no lesion",
    MISSED: "lesion, not marked",
}


@dataclass(frozen=True)
class Failure:
    """A lesion that is missed, or a false alarm.

    Attributes
    ----------
    case : str
        Name of the case.
    kind : {"missed lesion", "false alarm"}
    voxels : int
        Size in voxels.
    size : float
        In `unit`.
    unit : str
        Of the size: ml, mm², or pixels or voxels without a spacing.
    peak : float
        Highest score inside.
    voxel : tuple of int
        Voxel (S, P, L) to look at: the highest score of the slice with the largest part.
    low, high : tuple of int
        Lowest and highest voxel (S, P, L).
    """

    case: str
    kind: Kind
    voxels: int
    size: float
    unit: str
    peak: float
    voxel: tuple[int, int, int]
    low: tuple[int, int, int]
    high: tuple[int, int, int]

    def row(self) -> dict[str, Any]:
        """Return plain values for a table; places are numbers separated by spaces."""
        values = asdict(self)
        for name in ("voxel", "low", "high"):
            values[name] = " ".join(map(str, values[name]))
        return values

    @property
    def size_text(self) -> str:
        """The size with its unit."""
        digits = 1 if self.unit == "ml" else 0
        return f"{self.size:.{digits}f} {self.unit}"

    def text(self) -> str:
        """Describe the failure in words."""
        return f"{self.kind}, {self.size_text}"


def failure_of_row(row: dict[str, str]) -> Failure:
    """Read a row of `Failure.row`.

    Raises
    ------
    ValueError
        If a value is not what it should be.
    """
    if row["kind"] not in get_args(Kind):
        raise ValueError(f"the kind {row['kind']!r} is unknown")
    places = {}
    for name in ("voxel", "low", "high"):
        s, p, l = (int(part) for part in row[name].split())  # noqa: E741 - the axes S, P, L
        places[name] = (s, p, l)
    return Failure(
        row["case"],
        row["kind"],  # type: ignore[arg-type]
        int(row["voxels"]),
        float(row["size"]),
        row["unit"],
        float(row["peak"]),
        **places,
    )


def list_failures(
    case: str,
    volume: Volume,
    scores: NDArray[np.float32],
    lesions: NDArray[np.int32],
    findings: NDArray[np.uint8],
    match: LesionMatch,
) -> list[Failure]:
    """List the failures of a case.

    Parameters
    ----------
    case : str
    volume : Volume
    scores : ndarray of float32, (S, P, L)
    lesions : ndarray of int32, (S, P, L)
        From `label_lesions`.
    findings : ndarray of uint8, (S, P, L)
    match : LesionMatch
        The two compared.
    """
    missed = [number for number, met in enumerate(match.met, start=1) if not met]
    kinds: tuple[tuple[Kind, NDArray[np.integer], Sequence[int]], ...] = (
        ("missed lesion", lesions, missed),
        ("false alarm", findings, match.false),
    )
    return [
        failure
        for kind, labels, wanted in kinds
        for failure in _described(case, kind, volume, scores, labels, wanted)
    ]


def _described(
    case: str,
    kind: Kind,
    volume: Volume,
    scores: NDArray[np.float32],
    labels: NDArray[np.integer],
    wanted: Sequence[int],
) -> Iterable[Failure]:
    if not wanted:
        return
    from scipy.ndimage import find_objects

    unit = size_unit(volume)
    boxes = find_objects(labels.astype(np.int32, copy=False))
    for number in wanted:
        box = boxes[number - 1]
        inside = labels[box] == number
        values = np.where(inside, scores[box], -np.inf)
        largest = int(inside.sum(axis=(1, 2)).argmax())
        place = np.unravel_index(int(values[largest].argmax()), values[largest].shape)
        start = [part.start for part in box]
        count = int(inside.sum())
        yield Failure(
            case,
            kind,
            count,
            count * unit.voxel,
            unit.name,
            float(values.max()),
            (start[0] + largest, start[1] + int(place[0]), start[2] + int(place[1])),
            (start[0], start[1], start[2]),
            (box[0].stop - 1, box[1].stop - 1, box[2].stop - 1),
        )


def rank_failures(failures: Iterable[Failure]) -> list[Failure]:
    """Sort failures, the worst first: by size, missed lesions before false alarms of equal size."""
    return sorted(failures, key=lambda one: (-one.size, one.kind == "false alarm", one.case))


@dataclass(frozen=True)
class Outcome:
    """A case at one threshold.

    Attributes
    ----------
    labels : ndarray of uint8, (S, P, L)
        `FOUND`, `FALSE` or `MISSED` where findings or lesions are, else 0.
    dice : float
        Of all pixels above the threshold, small regions too, as in the table of cases.
    average_precision : float or None
        As in the table of cases.
    lesions, met, false : int
        Number of lesions, of those met, and of false findings.
    """

    labels: NDArray[np.uint8]
    dice: float
    average_precision: float | None
    lesions: int
    met: int
    false: int


def compare_at(
    case: OpenedCase,
    threshold: float,
    *,
    minimum_size: float | None = None,
    core: float | None = None,
    overlap: float = 0.0,
) -> Outcome:
    """Compare findings at a threshold with the lesions of a case.

    Parameters
    ----------
    case : OpenedCase
    threshold : float
        Score above which a voxel is abnormal.
    minimum_size, overlap
        As in `EvaluationSettings`.
    core : float, optional
        As in `find_findings`.
    """
    findings = find_regions(
        case.scores,
        case.volume,
        threshold,
        foreground=case.foreground,
        minimum_size=minimum_size,
        core=core,
    )
    marked = findings > 0
    labels = np.zeros(marked.shape, dtype=np.uint8)
    labels[marked & case.mask] = FOUND
    labels[marked & ~case.mask] = FALSE
    labels[case.mask & ~marked] = MISSED
    lesions, count = label_lesions(case.mask)
    match = match_lesions(lesions, findings, overlap)
    values = np.where(case.foreground, case.scores, LOWEST)[case.counted]
    metrics = pixel_metrics(case.mask[case.counted], values, {0.0: threshold})
    return Outcome(
        labels,
        metrics["dice_at_fpr"]["0"],
        metrics["average_precision"],
        count,
        sum(match.met),
        len(match.false),
    )
