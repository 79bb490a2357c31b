"""Which results of a run over many scans exist already, and the names of its cases."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.image_format import is_folder, regular_file
from napari_dino_uad.core.storage.atomic import blocked
from napari_dino_uad.core.storage.records import are_as_recorded, read_object, read_sealed

__all__ = ["Request", "check_places", "is_finished"]


# Which of several images of one scan to look at.
_CHOICES = ("series", "volume")


@dataclass(frozen=True)
class Request:
    """What was asked for: results of the same request are not computed again.

    Attributes
    ----------
    model_sha256 : str
        Checksum of the model's file.
    false_positive_rate : float
        Share of healthy pixels above the threshold.
    minimum_size : float or None
        Smaller findings are dropped; None for the default of the scan.
    series : str or None
        UID of the DICOM series to look at, where a scan holds several.
    volume : int or None
        Which volume of a file of four dimensions; None for the first.
    """

    model_sha256: str
    false_positive_rate: float
    minimum_size: float | None
    series: str | None = None
    volume: int | None = None

    @classmethod
    def of(
        cls,
        model: Path,
        false_positive_rate: float,
        minimum_size: float | None,
        series: str | None = None,
        volume: int | None = None,
    ) -> Request:
        """Build a request from a model file and options."""
        with model.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(digest, false_positive_rate, minimum_size, series, volume)

    def entries(self, scan: Path) -> dict[str, Any]:
        """Return what a report must say for its case to count as done."""
        asked = {
            key: value
            for key, value in asdict(self).items()
            if key not in _CHOICES or value is not None
        }
        return {**asked, "scan": str(scan.resolve()), "scan_fingerprint": fingerprint(scan)}


def fingerprint(scan: Path) -> str:
    """Return a digest of the names, sizes and times of a scan's files, to detect changes."""
    if is_folder(scan):
        files = sorted(file for file in scan.iterdir() if file.is_file())
    else:
        files = [regular_file(scan)]
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_finished(folder: Path, case: str, scan: Path, request: Request) -> bool:
    """Return whether a case has complete results of the same request.

    Raises
    ------
    InputError
        If the results belong to another scan with the same name.
    """
    from napari_dino_uad.core.results import ResultPaths

    *others, report = ResultPaths.of(folder, case)
    wanted = request.entries(scan)
    claimed = read_object(report) or {}
    told = claimed.get("scan")
    # Only reports of this command have the request.
    if isinstance(told, str) and "scan_fingerprint" in claimed and told != wanted["scan"]:
        raise InputError(
            f"{report} is the result of another scan, {_printable(told)}; choose another folder "
            "for the results, or give --overwrite."
        )
    found = read_sealed(report)
    if found is None or any(found.get(name) != value for name, value in wanted.items()):
        return False
    # A report has an entry for what was chosen, and none where nothing was.
    if any(found.get(name) != getattr(request, name) for name in _CHOICES):
        return False
    return are_as_recorded(folder, found.get("files"), [path.name for path in others])


def _printable(text: str) -> str:
    """Return a text that every terminal can print; lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_places(folder: Path, case: str) -> None:
    """Check that the results of a case can be written, before long work begins.

    Raises
    ------
    InputError
        If a folder has the name of a result.
    """
    from napari_dino_uad.core.results import ResultPaths

    for path in ResultPaths.of(folder, case):
        problem = blocked(path)
        if problem is not None:
            raise problem
