"""What the Evaluate dock does in threads."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.session import session

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.folder import EvaluationFolder
    from napari_dino_uad.core.maps.finding_settings import FindingSettings
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.widgets.layer_masks import LayerMask
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["Compared", "Evaluated", "cohort_evaluator", "reporter", "scan_evaluator"]


@dataclass(frozen=True)
class Compared:
    """A detection compared with a mask.

    Attributes
    ----------
    detection : Detection
    mask_name : str
        Name of the labels layer.
    settings : FindingSettings
        Threshold, smallest size, tissue and corrections.
    row : dict
        As a row of `Evaluation.cases`.
    note : str
        What the user should know of the mask, or nothing.
    """

    detection: Detection
    mask_name: str
    settings: FindingSettings
    row: dict[str, Any]
    note: str


def scan_evaluator(
    detection: Detection, mask_name: str, bring: LayerMask
) -> Callable[[], Generator[Progress, None, Compared]]:
    """Compare a finished map with a labels layer, at the rate of the detection."""
    settings, anomaly = detection.settings, detection.anomaly

    def run() -> Generator[Progress, None, Compared]:
        from napari_dino_uad.core.evaluation.scoring import score_case
        from napari_dino_uad.core.evaluation.settings import EvaluationSettings
        from napari_dino_uad.core.scans.cases import Case

        if anomaly is None:
            raise InputError("The scan has no finished map; press Detect first.")
        yield Progress("Comparing", 0, 1, mask_name)
        mask, note = bring("check")
        wanted = EvaluationSettings(
            rates=(settings.rate,),
            finding_rate=settings.rate,
            froc_rates=(),
            minimum_size=settings.minimum_size,
            bootstrap=0,
        )
        scored = score_case(anomaly.volume.name, Case(anomaly.volume), anomaly, mask, wanted)
        return Compared(detection, mask_name, settings, scored.row, note)

    return run


@dataclass(frozen=True)
class Evaluated:
    """An evaluation that was written, read back: the panel shows what the files say.

    Attributes
    ----------
    folder : EvaluationFolder
    model_name : str
    """

    folder: EvaluationFolder
    model_name: str


def cohort_evaluator(
    scans: Path, patterns: tuple[str | None, str | None], model_name: str, out: Path
) -> Callable[[], Generator[Progress, None, Evaluated]]:
    """Evaluate a model of the session on a folder, as the command line does."""
    model: FittedModel = session().models[model_name]

    def run() -> Generator[Progress, None, Evaluated]:
        from napari_dino_uad.core.evaluate import evaluate
        from napari_dino_uad.core.evaluation.folder import read_evaluation
        from napari_dino_uad.core.scans.cohort import find_cases

        yield Progress("Looking for scans", 0, 1)
        cases = find_cases([scans], *patterns, require_masks=True)
        backbone = yield from session().backbone_of(model)
        yield from evaluate(cases, model, backbone=backbone, out=out)
        return Evaluated(read_evaluation(out), model_name)

    return run


def reporter(folder: EvaluationFolder) -> Callable[[], Generator[Progress, None, Path]]:
    """Write the report of an evaluation."""

    def run() -> Generator[Progress, None, Path]:
        from napari_dino_uad.core.evaluation.page import write_evaluation_report

        return (yield from write_evaluation_report(folder))

    return run
