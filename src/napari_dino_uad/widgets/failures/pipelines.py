"""What the Failures dock does in threads."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.failures import Outcome
    from napari_dino_uad.core.evaluation.folder import EvaluationFolder, OpenedCase

__all__ = ["Shown", "case_opener", "results_reader", "sheet_maker"]


@dataclass(frozen=True)
class Shown:
    """A case at a rate.

    Attributes
    ----------
    case : OpenedCase
    rate : float
        Nominal false-positive rate.
    threshold : float
    outcome : Outcome
    """

    case: OpenedCase
    rate: float
    threshold: float
    outcome: Outcome


def results_reader(path: Path) -> Callable[[], Generator[Progress, None, EvaluationFolder]]:
    """Read the results of an evaluation."""

    def run() -> Generator[Progress, None, EvaluationFolder]:
        from napari_dino_uad.core.evaluation.folder import read_evaluation

        yield Progress("Reading the results", 0, 1)
        found = read_evaluation(path)
        # Damaged files are told of now.
        _ = found.failures, found.notes()
        return found

    return run


def case_opener(
    folder: EvaluationFolder,
    name: str,
    rate: float,
    scans: Path | None,
    opened: OpenedCase | None = None,
) -> Callable[[], Generator[Progress, None, Shown]]:
    """Read a case, or take an open one, and compare it at a rate."""

    def run() -> Generator[Progress, None, Shown]:
        from napari_dino_uad.core.evaluation.failures import compare_at

        yield Progress("Opening", 0, 1, name)
        case = folder.open(name, scans) if opened is None else opened
        settings = folder.metrics["settings"]
        threshold = folder.levels[rate]
        outcome = compare_at(
            case,
            threshold,
            minimum_size=settings["minimum_size"],
            core=folder.cores.get(rate),
            overlap=settings["lesion_overlap"],
        )
        return Shown(case, rate, threshold, outcome)

    return run


def sheet_maker(
    folder: EvaluationFolder, path: Path, scans: Path | None
) -> Callable[[], Generator[Progress, None, Path]]:
    """Write the contact sheet of the worst cases."""

    def run() -> Generator[Progress, None, Path]:
        from napari_dino_uad.core.evaluation.pictures import contact_sheet

        yield from contact_sheet(folder, path, scans=scans)
        return path

    return run
