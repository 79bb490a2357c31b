"""Cases on disk: scans, their lesion masks, and which slices are healthy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.bmad import bmad_images
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.slices import Plane, PreparedScan, to_plane
from napari_dino_uad.core.volume import Volume, find_scans, read_volume

__all__ = ["Case", "find_cases", "healthy_slices", "read_mask", "tissue_slices"]

# A slice with less tissue than this share (4,000 pixels of 256 x 256) is a cap of the head or
# air, and says nothing of normal anatomy.
MINIMUM_TISSUE = 4000 / 256**2

# Slices this near to a lesion slice may show its edge or its swelling.
LESION_MARGIN = 2


@dataclass(frozen=True)
class Case:
    """One scan and, where there is one, its lesion mask.

    Attributes
    ----------
    scan : Path or Volume
        A file or folder, or a scan already open.
    mask : Path, ndarray or None
        A mask of the same grid; non-zero is lesion.
    healthy : bool
        Whether the scan is known to have no lesion, and so needs no mask.
    """

    scan: Path | Volume
    mask: Path | NDArray[np.generic] | None = None
    healthy: bool = False

    @property
    def name(self) -> str:
        """Name of the scan without its ending."""
        if isinstance(self.scan, Volume):
            return self.scan.name
        return self.scan.name.split(".")[0] if self.scan.is_file() else self.scan.name

    def read(self) -> Volume:
        """Read the scan."""
        return self.scan if isinstance(self.scan, Volume) else read_volume(self.scan)

    def read_mask(self, volume: Volume) -> NDArray[np.bool_] | None:
        """Read the mask on the scan's canonical grid, or return None where there is none."""
        if self.mask is not None:
            return read_mask(self.mask, volume)
        return np.zeros(volume.shape, dtype=bool) if self.healthy else None


def read_mask(mask: Path | NDArray[np.generic], volume: Volume) -> NDArray[np.bool_]:
    """Bring a lesion mask onto a scan's canonical grid.

    Parameters
    ----------
    mask : path or ndarray
        A file on the same grid as the scan's, or an array on its canonical axes.
    volume : Volume
        The scan.

    Returns
    -------
    ndarray of bool
        The shape of `volume.array`.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if isinstance(mask, Path):
        name, array = mask.name, read_volume(mask, allow_constant=True).array
    else:
        name, array = "the mask", np.asarray(mask)
        if array.ndim == 2:
            array = array[np.newaxis]
    if array.shape != volume.array.shape:
        raise InputError(
            f"The mask must have the scan's shape: {volume.name} is "
            f"{' x '.join(map(str, volume.array.shape))}, {name} is "
            f"{' x '.join(map(str, array.shape))}; choose the mask of this scan."
        )
    return array > 0


def find_cases(
    paths: Sequence[Path | str],
    pattern: str | None = None,
    mask_pattern: str | None = None,
    require_masks: bool = False,
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
        another folder, as seen from the scan's own; the same ``*`` pairs them.
    require_masks : bool
        Whether every scan must have a mask.

    Returns
    -------
    list of Case

    Raises
    ------
    InputError
        If no scan is found, a pattern has no single ``*``, or no mask matches.
    """
    for text in (pattern, mask_pattern):
        if text is not None and text.count("*") != 1:
            raise InputError(f"A pattern holds one * for the case name, but {text!r} came.")
    if mask_pattern is not None and pattern is None:
        raise InputError(
            "A mask pattern pairs masks with scans by the scans' pattern; give --pattern too, "
            "such as '*_flair.nii.gz'."
        )
    if pattern is None:
        cases = _cases_without_pattern([Path(path) for path in paths])
        lacking = [case.name for case in cases if case.mask is None and not case.healthy]
        if require_masks and lacking:
            raise InputError(
                f"Every scan needs a lesion mask here, but {lacking[0]} has none; give --pattern "
                "and --mask-pattern, such as '*_flair.nii.gz' and '*_lesion.nii.gz'."
            )
        return cases
    scans = find_scans([Path(path) for path in paths], pattern)
    if mask_pattern is None:
        return [Case(scan) for scan in scans]
    head, tail = pattern.split("*")
    cases = []
    for scan in scans:
        if not (scan.name.startswith(head) and scan.name.endswith(tail)):
            raise InputError(
                f"{scan.name} does not match the pattern {pattern!r}, so its mask cannot be found."
            )
        case_name = scan.name[len(head) : len(scan.name) - len(tail)]
        mask = Path(os.path.normpath(scan.parent / mask_pattern.replace("*", case_name)))
        if require_masks and not mask.exists():
            raise InputError(
                f"{scan.name} has no mask {mask}; every scan needs one here. A mask pattern starts "
                "from the scan's own folder."
            )
        cases.append(Case(scan, mask if mask.exists() else None))
    if all(case.mask is None for case in cases):
        raise InputError(
            f"No mask matches {mask_pattern!r}, seen from the folder of each of the {len(cases)} "
            "scans; check the pattern."
        )
    return cases


def _cases_without_pattern(paths: list[Path]) -> list[Case]:
    cases, others = [], []
    for path in paths:
        images = bmad_images(path) if path.is_dir() else []
        cases += [Case(image, label, healthy) for image, label, healthy in images]
        if not images:
            others.append(path)
    return cases + [Case(scan) for scan in find_scans(others)] if others else cases


def tissue_slices(scan: PreparedScan) -> NDArray[np.bool_]:
    """Say which slices hold enough tissue to be worth modelling, (slices,) of bool.

    A single slice needs only some: whoever made it chose it.
    """
    if len(scan) == 1:
        return np.asarray(scan.foreground.any(axis=(1, 2)))
    return np.asarray(scan.foreground.mean(axis=(1, 2)) > MINIMUM_TISSUE)


def healthy_slices(
    scan: PreparedScan, mask: NDArray[np.bool_] | None, plane: Plane
) -> NDArray[np.int64]:
    """List the slices with enough tissue that lie clear of any lesion.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    mask : ndarray of bool, (S, P, L), or None
        Lesions on the volume's canonical grid.
    plane : str
        The plane of the scan's slices.

    Returns
    -------
    ndarray of int64
        Slice numbers.
    """
    healthy = tissue_slices(scan)
    if mask is not None:
        lesion = np.flatnonzero(to_plane(mask, plane).any(axis=(1, 2)))
        for index in lesion:
            healthy[max(0, index - LESION_MARGIN) : index + LESION_MARGIN + 1] = False
    return np.flatnonzero(healthy)
