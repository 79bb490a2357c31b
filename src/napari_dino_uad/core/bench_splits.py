"""Data sets of the benchmarks, cut into what models learn from, are calibrated on, judged by."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from napari_dino_uad.core.cohort import Case, find_cases
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.volume import read_volume

__all__ = ["Split", "lgg_split", "oct_split"]

# B-scans of each patient in the OCT data, which are numbered through.
_OCT_BSCANS = 11
# Nobody of the first patient has a mask that says there is no fluid.
_OCT_VALID, _OCT_TRAIN, _OCT_TEST = (2,), (3,), (4, 5)


@dataclass(frozen=True)
class Split:
    """Cases of a data set by what they are for.

    Attributes
    ----------
    name : str
        Names the files of the results.
    about : str
        A sentence about the data.
    train, valid, test : tuple of Case
        All of them files.
    """

    name: str
    about: str
    train: tuple[Case, ...]
    valid: tuple[Case, ...]
    test: tuple[Case, ...]

    def digest(self) -> str:
        """Name what is in the files and what they are for, wherever they lie."""
        whole = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            for case in part:
                for path in (case.scan, case.mask):
                    if isinstance(path, Path):
                        with path.open("rb") as file:
                            found = hashlib.file_digest(file, "sha256").hexdigest()
                        whole.update(f"{path.name} {found}\n".encode())
            whole.update(b"--\n")
        return whole.hexdigest()


def lgg_split(data: Path) -> Split:
    """Cut FLAIR head scans of glioma patients as their folders are.

    Parameters
    ----------
    data : Path
        Holds `train`, `valid` and `test` with `*_flair.nii.gz` and `*_lesion.nii.gz`.

    Raises
    ------
    InputError
        If a folder or a mask is missing.
    """
    parts = {}
    for part in ("train", "valid", "test"):
        if not (data / part).is_dir():
            raise InputError(
                f"{data} has no folder {part}; expected train, valid and test with "
                "*_flair.nii.gz and *_lesion.nii.gz."
            )
        found = find_cases([data / part], "*_flair.nii.gz", "*_lesion.nii.gz", require_masks=True)
        parts[part] = tuple(found)
    about = (
        f"FLAIR of glioma patients: the tumour-free slices of {len(parts['train'])} to fit on and "
        f"of {len(parts['valid'])} to calibrate on, all slices of {len(parts['test'])} to test"
    )
    return Split("lgg", about, **parts)


def oct_split(data: Path) -> Split:
    """Cut retinal B-scans with masks of fluid by patient.

    Fitted and calibrated on those whose mask is empty: where a mask is missing nobody has looked.

    Parameters
    ----------
    data : Path
        Holds `img/img_N.png` and `fluid/img_N.png`; 11 consecutive numbers are one patient.

    Raises
    ------
    InputError
        If a folder or a mask of a test patient is missing, or no B-scan is free of fluid.
    """
    if not (data / "img").is_dir():
        raise InputError(f"{data} has no folder img; expected img and fluid with img_*.png.")
    cases = find_cases([data / "img"], "img_*.png", "../fluid/img_*.png")
    test = _of_patients(cases, _OCT_TEST)
    without = [case.name for case in test if case.mask is None]
    if without:
        raise InputError(f"{without[0]} has no mask in {data / 'fluid'}; the test needs them all.")
    train, valid = (
        tuple(case for case in _of_patients(cases, patients) if _is_free(case))
        for patients in (_OCT_TRAIN, _OCT_VALID)
    )
    if not (train and valid and test):
        raise InputError(
            f"{data} lacks B-scans free of fluid, or those of the test: {len(train)} to fit on, "
            f"{len(valid)} to calibrate on, {len(test)} to test."
        )
    about = (
        f"OCT of diabetic macular oedema: {len(train)} B-scans free of fluid of one patient to "
        f"fit on, {len(valid)} of another to calibrate on, all {len(test)} of "
        f"{len(_OCT_TEST)} others to test"
    )
    return Split("oct", about, train, valid, tuple(test))


def _of_patients(cases: list[Case], patients: tuple[int, ...]) -> list[Case]:
    chosen = []
    for case in cases:
        found = re.search(r"\d+$", case.name)
        if found and int(found[0]) // _OCT_BSCANS + 1 in patients:
            chosen.append(case)
    return chosen


def _is_free(case: Case) -> bool:
    """Say whether a mask is there and empty."""
    return isinstance(case.mask, Path) and not (
        read_volume(case.mask, allow_constant=True).array.any()
    )
