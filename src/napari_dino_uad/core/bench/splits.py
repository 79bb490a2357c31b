"""Data sets of the benchmarks, split for training, calibration and testing."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.cohort import Case, find_cases
from napari_dino_uad.core.scans.grids import MaskGeometry
from napari_dino_uad.core.scans.volume import read_volume

__all__ = ["Split", "lgg_split", "oct_split"]

# B-scans per patient in the OCT data, which are numbered consecutively.
_OCT_BSCANS = 11
# Patient numbers. The first patient has no mask that confirms the absence of fluid.
_OCT_VALID, _OCT_TRAIN, _OCT_TEST = (2,), (3,), (4, 5)


@dataclass(frozen=True)
class Split:
    """Cases of a data set by purpose.

    Attributes
    ----------
    name : str
        Used in the names of the result files.
    about : str
        A sentence about the data.
    train, valid, test : tuple of Case
        All scans and masks are files.
    """

    name: str
    about: str
    train: tuple[Case, ...]
    valid: tuple[Case, ...]
    test: tuple[Case, ...]

    def digest(self) -> str:
        """Return a digest of the files' contents and purposes, independent of their folder."""
        whole = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            for case in part:
                for path in (case.scan, case.mask):
                    if isinstance(path, Path):
                        with path.open("rb") as file:
                            found = hashlib.file_digest(file, "sha256").hexdigest()
                        whole.update(f"{path.name} {found}\n".encode())
                if case.mask_geometry != "check":
                    whole.update(f"mask geometry {case.mask_geometry}\n".encode())
            whole.update(b"--\n")
        return whole.hexdigest()


def lgg_split(data: Path, mask_geometry: MaskGeometry = "check") -> Split:
    """Split FLAIR head scans of glioma patients by folder.

    Parameters
    ----------
    data : Path
        Contains `train`, `valid` and `test` with `*_flair.nii.gz` and `*_lesion.nii.gz`.
    mask_geometry : {"check", "ignore"}
        As in `Case`.

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
        found = find_cases(
            [data / part],
            "*_flair.nii.gz",
            "*_lesion.nii.gz",
            require_masks=True,
            mask_geometry=mask_geometry,
        )
        parts[part] = tuple(found)
    about = (
        f"FLAIR of glioma patients: the tumour-free slices of {len(parts['train'])} to fit on and "
        f"of {len(parts['valid'])} to calibrate on, all slices of {len(parts['test'])} to test"
    )
    return Split("lgg", about, **parts)


def oct_split(data: Path, mask_geometry: MaskGeometry = "check") -> Split:
    """Split retinal B-scans with fluid masks by patient.

    Only B-scans with an empty mask are used for fitting and calibration: a missing mask means that
    nobody has looked.

    Parameters
    ----------
    data : Path
        Contains `img/img_N.png` and `fluid/img_N.png`; 11 consecutive numbers are one patient.
    mask_geometry : {"check", "ignore"}
        As in `Case`.

    Raises
    ------
    InputError
        If a folder or a test patient's mask is missing, or no B-scan is free of fluid.
    """
    if not (data / "img").is_dir():
        raise InputError(f"{data} has no folder img; expected img and fluid with img_*.png.")
    cases = find_cases(
        [data / "img"], "img_*.png", "../fluid/img_*.png", mask_geometry=mask_geometry
    )
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
            f"Expected B-scans free of fluid and test B-scans in {data}, got {len(train)} to fit "
            f"on, {len(valid)} to calibrate on, {len(test)} to test; add the missing ones."
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
    """Return whether the case has an empty mask."""
    return isinstance(case.mask, Path) and not (
        read_volume(case.mask, allow_constant=True, labels=True).array.any()
    )
