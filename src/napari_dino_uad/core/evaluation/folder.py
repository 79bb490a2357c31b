"""Results of an evaluation on disk."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.failures import Failure, failure_of_row
from napari_dino_uad.core.evaluation.histograms import Histograms, HistogramSet
from napari_dino_uad.core.evaluation.scoring import MAPS
from napari_dino_uad.core.results import ResultPaths
from napari_dino_uad.core.scans.cases import read_mask
from napari_dino_uad.core.scans.grids import match_mask
from napari_dino_uad.core.scans.volume import read_volume
from napari_dino_uad.core.slices.healthy import tissue_slices
from napari_dino_uad.core.slices.planes import from_plane, to_plane
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.storage.atomic import csv_text, json_text, staged, write_text, writing
from napari_dino_uad.core.storage.records import read_object, read_sealed, sealed
from napari_dino_uad.core.storage.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from napari_dino_uad.core.evaluation.record import Evaluation
    from napari_dino_uad.core.scans.volume import Volume

__all__ = ["EvaluationFolder", "OpenedCase", "read_evaluation", "write_evaluation"]

_METRICS, _CASES, _CURVES = "metrics.json", "cases.csv", "curves.json"
_HISTOGRAMS, _NOTES, _FAILURES = "histograms.safetensors", "notes.csv", "failures.csv"
_VERSION = 1
# As in `Failure`.
_FAILURE_COLUMNS = [field.name for field in fields(Failure)]
_ARRAYS = ("edges", "healthy", "lesion", "shares", "regions")


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write an evaluation into a folder, all files or none.

    `metrics.json` has the figures, `cases.csv` a row for each case, `curves.json` the curves,
    `failures.csv` missed lesions and false alarms, and `histograms.safetensors` the scores of each
    case. A scan without metrics has a row in `cases.csv` with its path and the reason.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    import torch

    failed = [{"case": path, "error": reason} for path, reason in evaluation.failed.items()]
    with writing(folder / _METRICS), staged(folder, last=_METRICS) as partial:
        texts = {
            _METRICS: json_text(sealed({"version": _VERSION, **evaluation.metrics})),
            _CASES: csv_text([*evaluation.cases[0], "error"], [*evaluation.cases, *failed]),
            _CURVES: json_text(evaluation.curves),
            _FAILURES: csv_text(_FAILURE_COLUMNS, evaluation.failures),
        }
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8", newline="")
        tensors = {
            f"{convention}.{array}": torch.from_numpy(np.array(getattr(found, array)))
            for convention, found in evaluation.histograms.items()
            for array in _ARRAYS
        }
        if tensors:
            write_tensors(partial / _HISTOGRAMS, tensors, {"version": str(_VERSION)})


@dataclass(frozen=True)
class OpenedCase:
    """A case of an evaluation, read from disk.

    Attributes
    ----------
    name : str
    volume : Volume
        The scan.
    mask : ndarray of bool, (S, P, L)
        Lesions.
    scores : ndarray of float32, (S, P, L)
        The anomaly map.
    findings : ndarray of uint8, (S, P, L)
        Findings at the rate of the evaluation.
    foreground : ndarray of bool, (S, P, L)
        Tissue.
    counted : ndarray of bool, (S, P, L)
        Pixels that the convention "tissue" counts.
    """

    name: str
    volume: Volume
    mask: NDArray[np.bool_]
    scores: NDArray[np.float32]
    findings: NDArray[np.uint8]
    foreground: NDArray[np.bool_]
    counted: NDArray[np.bool_]


@dataclass(frozen=True)
class EvaluationFolder:
    """A folder of `write_evaluation`.

    Attributes
    ----------
    path : Path
    metrics : dict
        The content of `metrics.json`.
    rows : list of dict
        Rows of `cases.csv` with metrics; numbers are numbers, empty cells None.
    failed : dict of str to str
        Scans without metrics and the reason.
    """

    path: Path
    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    failed: dict[str, str]

    @cached_property
    def curves(self) -> dict[str, Any]:
        """The content of `curves.json`; empty if it is missing."""
        return read_object(self.path / _CURVES) or {}

    @cached_property
    def histograms(self) -> HistogramSet:
        """Scores of each case by convention.

        Raises
        ------
        InputError
            If the file is missing or damaged.
        """
        place = self.path / _HISTOGRAMS
        if not place.is_file():
            raise InputError(f"{place} is missing; evaluate again into this folder.")
        _, tensors = read_tensors(place)
        names = {name.partition(".")[0] for name in tensors}
        try:
            return {
                name: Histograms(*(tensors[f"{name}.{array}"].numpy() for array in _ARRAYS))
                for name in sorted(names)
            }
        except KeyError as error:
            raise InputError(f"{place} lacks {error}; evaluate again into this folder.") from error

    @property
    def has_maps(self) -> bool:
        """Whether the folder has the maps of the cases."""
        return (self.path / MAPS).is_dir()

    @property
    def thresholds(self) -> dict[float, float]:
        """Score threshold by nominal false-positive rate."""
        levels = self.metrics["levels"]
        return {rate: levels[f"{rate:g}"] for rate in self.metrics["settings"]["rates"]}

    @property
    def levels(self) -> dict[float, float]:
        """Score threshold by nominal rate, for more rates than `thresholds`."""
        return {float(rate): level for rate, level in self.metrics["levels"].items()}

    @property
    def cores(self) -> dict[float, float]:
        """Score above which a finding has its minimum size, by nominal rate.

        Empty in folders of earlier versions, where it was the threshold.
        """
        cores = self.metrics.get("cores", {})
        return {float(rate): level for rate, level in cores.items()}

    @cached_property
    def failures(self) -> list[Failure]:
        """Missed lesions and false alarms at the rate of the evaluation, the worst first.

        Raises
        ------
        InputError
            If the file is missing or damaged.
        """
        place = self.path / _FAILURES
        try:
            with place.open(encoding="utf-8", newline="") as file:
                return [failure_of_row(row) for row in csv.DictReader(file)]
        except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The failures {place} cannot be read: {_why_unread(error)}; evaluate again into "
                "this folder."
            ) from error

    def largest_failure(self, name: str) -> Failure | None:
        """Return the largest failure of a case; None if it has none."""
        return next((one for one in self.failures if one.case == name), None)

    def row(self, name: str) -> dict[str, Any]:
        """Return the row of a case."""
        return next(row for row in self.rows if row["case"] == name)

    def open(self, name: str, scans: Path | None = None) -> OpenedCase:
        """Read a case: its scan, its mask and its map.

        Parameters
        ----------
        name : str
            A case of `rows`.
        scans : Path, optional
            Where scans and masks are now, if not where they were: a folder with files of the same
            names, in it or below.

        Raises
        ------
        InputError
            If a file is missing or unreadable, or lies elsewhere than the scan.
        """
        row = self.row(name)
        paths = ResultPaths.of(self.path / MAPS, name)
        if not paths.anomaly.is_file():
            raise InputError(
                f"{self.path} has no map of {name}; evaluate again with maps to look at cases."
            )
        data = self.metrics["data"]
        volume = read_volume(_where(row["scan"], scans, name), volume=data["volume"])
        mask = np.zeros(volume.shape, dtype=bool)
        if row["mask"]:
            mask = read_mask(_where(row["mask"], scans, name), volume, data["mask_geometry"])
        scores, _ = match_mask(read_volume(paths.anomaly, allow_constant=True), volume)
        findings, _ = match_mask(
            read_volume(paths.findings, allow_constant=True, labels=True), volume
        )
        preprocessing = Preprocessing.from_dict(self.metrics["model"]["preprocessing"])
        prepared = prepare(volume, preprocessing)
        if preprocessing.object_mask:
            place = ResultPaths.tissue_of(self.path / MAPS, name)
            found, _ = match_mask(read_volume(place, allow_constant=True, labels=True), volume)
            foreground = to_plane(found > 0, preprocessing.plane)
            prepared = dataclasses.replace(prepared, foreground=foreground)
        tissue = np.ascontiguousarray(from_plane(prepared.foreground, preprocessing.plane))
        counted = tissue | mask
        to_plane(counted, preprocessing.plane)[~tissue_slices(prepared)] = False
        return OpenedCase(name, volume, mask, scores, findings.astype(np.uint8), tissue, counted)

    def notes(self) -> dict[str, str]:
        """Read the notes of cases."""
        place = self.path / _NOTES
        if not place.is_file():
            return {}
        try:
            with place.open(encoding="utf-8-sig", newline="") as file:
                return {row["case"]: row["note"] or "" for row in csv.DictReader(file)}
        except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
            raise InputError(
                f"The notes {place} cannot be read: {_why_unread(error)}; repair or move the file."
            ) from error

    def write_note(self, name: str, note: str) -> None:
        """Keep a note of a case; an empty one removes it.

        Raises
        ------
        InputError
            If the notes cannot be read or written.
        """
        notes = self.notes() | {name: note.strip()}
        rows = [{"case": case, "note": text} for case, text in notes.items() if text]
        write_text(self.path / _NOTES, csv_text(["case", "note"], rows))


def _where(recorded: str, scans: Path | None, name: str) -> Path:
    """Return where a scan or mask is now."""
    if not recorded:
        raise InputError(
            f"The scan of {name} was open in a window, not read from a file; evaluate the file."
        )
    place = Path(recorded)
    if scans is not None:
        # Of files with equal names, the one in folders with equal names.
        found = sorted(scans.rglob(place.name), key=lambda path: -_alike(path, place))
        place = found[0] if found else place
    if not place.exists():
        raise InputError(
            f"The file of {name} is not at {recorded} any more; say where the scans are now."
        )
    return place


def _alike(one: Path, other: Path) -> int:
    """Count the folder names that two paths share, from the end."""
    count = 0
    for mine, theirs in zip(one.parts[::-1], other.parts[::-1], strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def read_evaluation(folder: Path) -> EvaluationFolder:
    """Read the results of an evaluation.

    Raises
    ------
    InputError
        If the folder has none, or its files are damaged.

    Examples
    --------
    >>> folder = read_evaluation(Path("results"))
    >>> [row["case"] for row in folder.rows]
    ['p_flair']
    >>> folder.open("p_flair").scores.shape
    (28, 232, 200)
    """
    metrics = read_sealed(folder / _METRICS)
    if metrics is None or metrics.get("version") != _VERSION:
        raise InputError(
            f"{folder} has no results of an evaluation, or they were changed; expected a folder "
            "that napari-dino-uad evaluate wrote."
        )
    try:
        with (folder / _CASES).open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{folder / _CASES} cannot be read: {error}.") from error
    texts = {"case", "scan", "mask", "error", *metrics["groups"]}
    rows = [
        {name: value if name in texts else _number(value) for name, value in row.items()}
        for row in table
    ]
    return EvaluationFolder(
        folder,
        metrics,
        [row for row in rows if not row["error"]],
        {row["case"]: row["error"] for row in rows if row["error"]},
    )


def _why_unread(error: Exception) -> str:
    """Return a clause on why a table of the folder cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return "its text is not in UTF-8"
    if isinstance(error, KeyError):
        return f"it has no column {error.args[0]}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "a row has too few or other values"


def _number(text: str | None) -> Any:
    if text is None or text == "":
        return None
    if text in ("True", "False"):
        return text == "True"
    value = float(text)
    return int(value) if value.is_integer() and "." not in text and "e" not in text else value
