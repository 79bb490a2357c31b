"""Which cases are on disk: scans are found and paired with their lesion masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.bmad import bmad_images
from napari_dino_uad.core.scans.cases import Case
from napari_dino_uad.core.scans.grids import MaskGeometry, check_mask_geometry
from napari_dino_uad.core.scans.sorting import LabelsAmongScansError, SortedFiles, sort_files
from napari_dino_uad.core.scans.volume import find_scans

__all__ = ["Case", "find_cases"]


def find_cases(
    paths: Sequence[Path | str],
    pattern: str | None = None,
    mask_pattern: str | None = None,
    require_masks: bool = False,
    mask_geometry: MaskGeometry = "check",
    leave_out: Callable[[SortedFiles], None] | None = None,
    volume: int | None = None,
) -> list[Case]:
    """Find scans and pair them with their masks.

    Parameters
    ----------
    paths : sequence of path
        Files or folders. A folder in one of the layouts of the BMAD benchmark needs no patterns:
        every image is a scan, and its label is known.
    pattern : str, optional
        Names of scans, such as ``*_flair.nii.gz``; ``*`` is the case name.
    mask_pattern : str, optional
        Names of masks, such as ``*_lesion.nii.gz`` beside the scans, or ``../masks/*.png`` in
        another folder, relative to the scan's; the same ``*`` pairs them.
    require_masks : bool
        Whether every scan must have a mask.
    mask_geometry : {"check", "ignore"}
        As in `Case`.
    leave_out : callable, optional
        Called with what was found where masks or earlier results lie among the scans, which are
        then left out. Without it they are refused: what has a mask may have a lesion.
    volume : int, optional
        As in `Case`, for all scans.

    Returns
    -------
    list of Case

    Raises
    ------
    InputError
        If no scan is found, masks are found among the scans, a pattern has no single ``*``, or
        no mask matches.
    """
    check_mask_geometry(mask_geometry)
    for text in (pattern, mask_pattern):
        if text is not None and text.count("*") != 1:
            raise InputError(f"A pattern needs one * for the case name, got {text!r}; change it.")
    if mask_pattern is not None and pattern is None:
        raise InputError(
            "A mask pattern pairs masks with scans by the scans' pattern; give --pattern too, "
            "such as '*_flair.nii.gz'."
        )
    places = [Path(path) for path in paths]
    if pattern is None:
        cases = _cases_without_pattern(places, mask_geometry, leave_out)
        lacking = [case.name for case in cases if case.mask is None and not case.healthy]
        if require_masks and lacking:
            raise InputError(
                f"Every scan needs a lesion mask here, but {lacking[0]} has none; give --pattern "
                "and --mask-pattern, such as '*_flair.nii.gz' and '*_lesion.nii.gz'."
            )
        return [replace(case, volume=volume) for case in cases]
    scans = find_scans(places, pattern)
    if mask_pattern is None:
        return [Case(scan, volume=volume) for scan in _scans_alone(scans, leave_out)]
    masks = {scan: _mask_of(scan, pattern, mask_pattern) for scan in scans}
    # A pattern such as *.nii.gz matches the masks too.
    known = {mask for mask in masks.values() if mask.exists()}
    scans = _scans_alone([scan for scan in scans if _normal(scan) not in known], leave_out)
    cases = []
    for scan in scans:
        mask = masks[scan]
        if require_masks and not mask.exists():
            raise InputError(
                f"{scan.name} has no mask {mask}; every scan needs one here. A mask pattern starts "
                "from the scan's own folder."
            )
        known_mask = mask if mask.exists() else None
        cases.append(Case(scan, known_mask, mask_geometry=mask_geometry, volume=volume))
    if all(case.mask is None for case in cases):
        raise InputError(
            f"No mask matches {mask_pattern!r}, relative to the folder of each of the {len(cases)} "
            "scans; check the pattern."
        )
    return cases


def _mask_of(scan: Path, pattern: str, mask_pattern: str) -> Path:
    """Return the path of a scan's mask by the patterns; the file need not exist."""
    head, tail = pattern.split("*")
    if not (scan.name.startswith(head) and scan.name.endswith(tail)):
        raise InputError(
            f"{scan.name} does not match the pattern {pattern!r}, so its mask cannot be found."
        )
    case_name = scan.name[len(head) : len(scan.name) - len(tail)]
    return _normal(scan.parent / mask_pattern.replace("*", case_name))


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _scans_alone(
    found: Sequence[Path], leave_out: Callable[[SortedFiles], None] | None
) -> list[Path]:
    """Return the scans among files; report masks and leave them out, or refuse them."""
    files = sort_files(found)
    if files.masks:
        if leave_out is None or not files.scans:
            raise LabelsAmongScansError(files)
        leave_out(files)
    return list(files.scans)


def _cases_without_pattern(
    paths: list[Path],
    mask_geometry: MaskGeometry,
    leave_out: Callable[[SortedFiles], None] | None,
) -> list[Case]:
    cases, others = [], []
    for path in paths:
        images = bmad_images(path) if path.is_dir() else []
        cases += [Case(image, label, healthy, mask_geometry) for image, label, healthy in images]
        if not images:
            others.append(path)
    if not others:
        return cases
    return cases + [Case(scan) for scan in _scans_alone(find_scans(others), leave_out)]
