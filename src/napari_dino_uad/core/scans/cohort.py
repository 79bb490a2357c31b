"""Which cases are on disk: find scans and pair them with their lesion masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.cases import Case
from napari_dino_uad.core.scans.grids import MaskGeometry, check_mask_geometry
from napari_dino_uad.core.scans.layouts.find import cases_in_layout, check_pattern
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
        Files or folders. A folder in the layout of the BMAD benchmark, MVTec AD or VisA needs no
        patterns: every image is a scan, and its mask is known. A CSV or TSV file is a table of
        scans, see `layouts.table`.
    pattern : str, optional
        Names of scans, such as ``*_flair.nii.gz``; ``*`` is the case name. In a BIDS data set
        also a suffix, with entities in front if these matter, such as ``ses-1_FLAIR``; in a table
        the rows, such as ``split=train``.
    mask_pattern : str, optional
        Names of masks, such as ``*_lesion.nii.gz`` beside the scans, or ``../masks/*.png`` in
        another folder, relative to the scan's; the same ``*`` pairs them. In a BIDS data set
        entities and suffix, such as ``label-lesion_mask``.
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
        If no scan is found, masks are found among the scans, a pattern does not fit, or no mask
        matches.

    Examples
    --------
    >>> [case.name for case in find_cases(["healthy"], pattern="*_flair.nii.gz")]
    ['h0_flair', 'h1_flair', 'h2_flair', 'h3_flair']
    >>> [case] = find_cases(["ill"], "*_flair.nii.gz", "*_lesion.nii.gz")
    >>> case.mask.name
    'p_lesion.nii.gz'
    """
    check_mask_geometry(mask_geometry)
    cases: list[Case] = []
    others: list[Path] = []
    for path in map(Path, paths):
        listed = cases_in_layout(path, pattern, mask_pattern)
        if listed is None:
            others.append(path)
        else:
            cases += listed
    if others or not cases:
        cases += _cases_by_name(others, pattern, mask_pattern, require_masks, leave_out)
    elif mask_pattern is not None and all(case.mask is None for case in cases):
        raise InputError(
            f"None of the {len(cases)} scans has a mask {mask_pattern}; check the mask pattern."
        )
    lacking = [case.name for case in cases if case.mask is None and not case.healthy]
    if require_masks and lacking:
        raise InputError(
            f"Every scan needs a lesion mask here, but {lacking[0]} has none; give --pattern and "
            "--mask-pattern, such as '*_flair.nii.gz' and '*_lesion.nii.gz'."
        )
    return [replace(case, mask_geometry=mask_geometry, volume=volume) for case in cases]


def _cases_by_name(
    paths: list[Path],
    pattern: str | None,
    mask_pattern: str | None,
    require_masks: bool,
    leave_out: Callable[[SortedFiles], None] | None,
) -> list[Case]:
    """Find scans in files and ordinary folders, and their masks by name."""
    check_pattern(pattern)
    check_pattern(mask_pattern)
    if mask_pattern is not None and pattern is None:
        raise InputError(
            "A mask pattern pairs masks with scans by the scans' pattern; give --pattern too, "
            "such as '*_flair.nii.gz'."
        )
    scans = find_scans(paths, pattern)
    if mask_pattern is None or pattern is None:
        return [Case(scan) for scan in _scans_alone(scans, leave_out)]
    masks = {scan: _mask_of(scan, pattern, mask_pattern) for scan in scans}
    # A pattern such as *.nii.gz matches the masks too.
    known = {mask for mask in masks.values() if mask.exists()}
    scans = _scans_alone([scan for scan in scans if _normal(scan) not in known], leave_out)
    lacking = [scan for scan in scans if not masks[scan].exists()]
    if require_masks and lacking:
        raise InputError(
            f"{lacking[0].name} has no mask {masks[lacking[0]]}; every scan needs one here. A mask "
            "pattern starts from the scan's own folder."
        )
    if len(lacking) == len(scans):
        raise InputError(
            f"No mask matches {mask_pattern!r}, relative to the folder of each of the {len(scans)} "
            "scans; check the pattern."
        )
    return [Case(scan, masks[scan] if masks[scan].exists() else None) for scan in scans]


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
