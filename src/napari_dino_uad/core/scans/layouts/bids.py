"""BIDS data sets: scans and masks by their entities and suffix.

The Brain Imaging Data Structure, https://bids-specification.readthedocs.io: a scan is
``sub-01/ses-1/anat/sub-01_ses-1_acq-3d_FLAIR.nii.gz``, of entities such as ``acq-3d`` and a suffix,
here FLAIR; masks lie in a folder under ``derivatives``, or beside the scan.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.cases import Case

__all__ = ["bids_cases", "is_bids"]

_DESCRIPTION = "dataset_description.json"
_DERIVATIVES = "derivatives"
_SUFFIXES = (".nii.gz", ".nii")
_ENTITY = re.compile(r"([a-zA-Z0-9]+)-([a-zA-Z0-9+]+)")
_SUFFIX = re.compile(r"[a-zA-Z0-9]+")
# A mask may differ from its scan in these: they say how the mask was made, not of what.
_OF_MASKS = frozenset(("label", "desc", "space", "res", "den", "seg", "atlas"))


@dataclass(frozen=True)
class _Query:
    """Entities and a suffix, as in ``ses-1_FLAIR``."""

    entities: dict[str, str]
    suffix: str

    def matches(self, file: _File) -> bool:
        return file.suffix == self.suffix and all(
            file.entities.get(key) == value for key, value in self.entities.items()
        )


@dataclass(frozen=True)
class _File:
    """An image of a BIDS data set."""

    path: Path
    entities: dict[str, str]
    suffix: str

    def shows(self, scan: _File) -> bool:
        """Return whether this may be a mask of a scan: no entity contradicts it."""
        return self.entities["sub"] == scan.entities["sub"] and all(
            self.entities.get(key, value) == value
            for key, value in scan.entities.items()
            if key not in _OF_MASKS
        )


def is_bids(folder: Path) -> bool:
    """Return whether a folder is the root of a BIDS data set, by its description."""
    try:
        description = json.loads((folder / _DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and "BIDSVersion" in description


def bids_cases(root: Path, pattern: str | None, mask_pattern: str | None) -> list[Case]:
    """List scans of a BIDS data set.

    Parameters
    ----------
    root : Path
        The folder of the data set.
    pattern : str, optional
        Suffix of the scans, with entities in front if these matter: ``FLAIR``,
        ``ses-1_acq-3d_FLAIR``. Not needed if the data set has one kind of scan.
    mask_pattern : str, optional
        Entities and suffix of the masks, such as ``label-lesion_mask``. They are sought in the
        data set and its derivatives; a mask belongs to the scan of its subject whose session, run
        and other entities do not contradict its own.

    Raises
    ------
    InputError
        If there is no such scan, several kinds of scans and no pattern, or several masks of a
        scan.
    """
    present = list(_files(_subjects(root)))
    scans = present
    if pattern is not None:
        query = _query(root, pattern)
        scans = [file for file in scans if query.matches(file)]
    kinds = sorted({file.suffix for file in scans})
    if len(kinds) != 1:
        found = ", ".join(sorted({file.suffix for file in present}))
        if pattern is not None:
            raise InputError(
                f"The BIDS data set {root} has no scan {pattern}; it has {found or 'no scans'}."
            )
        raise InputError(
            f"The BIDS data set {root} has several kinds of scans, {found}; choose one by "
            "--pattern, such as FLAIR or ses-1_FLAIR."
            if kinds
            else f"The BIDS data set {root} has no NIfTI file in a folder sub-*; check the folder."
        )
    masks = [] if mask_pattern is None else _masks(root, mask_pattern)
    return [Case(scan.path, _mask_of(scan, masks)) for scan in scans]


def _subjects(folder: Path) -> Sequence[Path]:
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.name.startswith("sub-") and entry.is_dir()
    ]


def _files(subjects: Sequence[Path]) -> Iterator[_File]:
    """List the images of subjects."""
    for subject in subjects:
        for path in sorted(subject.rglob("sub-*")):
            suffix = next((end for end in _SUFFIXES if path.name.endswith(end)), None)
            if suffix is None:
                continue
            *parts, last = path.name.removesuffix(suffix).split("_")
            entities = [_ENTITY.fullmatch(part) for part in parts]
            if _SUFFIX.fullmatch(last) and all(entities):
                pairs = {found[1]: found[2] for found in entities if found}
                if "sub" in pairs:
                    yield _File(path, pairs, last)


def _masks(root: Path, mask_pattern: str) -> list[_File]:
    query = _query(root, mask_pattern)
    folders = [root]
    if (root / _DERIVATIVES).is_dir():
        folders += [root / _DERIVATIVES]
        folders += [entry for entry in sorted((root / _DERIVATIVES).iterdir()) if entry.is_dir()]
    return [file for folder in folders for file in _files(_subjects(folder)) if query.matches(file)]


def _mask_of(scan: _File, masks: Sequence[_File]) -> Path | None:
    """Return the mask of a scan, if there is one."""
    found = [mask for mask in masks if mask.shows(scan)]
    if len(found) > 1:
        raise InputError(
            f"{scan.path.name} has several masks, such as {found[0].path} and {found[1].path}; "
            "name more of their entities in the mask pattern, such as "
            "desc-manual_label-lesion_mask."
        )
    return found[0].path if found else None


def _query(root: Path, text: str) -> _Query:
    *parts, suffix = text.split("_")
    entities = [_ENTITY.fullmatch(part) for part in parts]
    if not (_SUFFIX.fullmatch(suffix) and all(entities)):
        raise InputError(
            f"{root} is a BIDS data set: a pattern without * is a suffix with entities in front, "
            f"such as FLAIR or ses-1_acq-3d_FLAIR, got {text!r}; change it."
        )
    return _Query({found[1]: found[2] for found in entities if found}, suffix)
