"""Cases: scans and their lesion masks, read and checked together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import OF_ONE_SCAN, InputError, sentence
from napari_dino_uad.core.pipeline import PATIENCE_S, prefetch
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.scans.formats import case_name
from napari_dino_uad.core.scans.grids import (
    RESAMPLED,
    MaskGeometry,
    check_mask_geometry,
    match_mask,
)
from napari_dino_uad.core.scans.labels import check_mask_values, refuse_labels
from napari_dino_uad.core.scans.lossy import LOSSY
from napari_dino_uad.core.scans.volume import Volume, read_volume

__all__ = [
    "Case",
    "ReadCase",
    "check_cases",
    "names_of_cases",
    "read_case",
    "read_cases",
    "read_mask",
    "unique_case_names",
    "unsaid",
]

# Parts of notes that are given once, whichever scan they name.
_SAID_ONCE = (RESAMPLED, LOSSY)


@dataclass(frozen=True)
class Case:
    """One scan and its lesion mask, if it has one.

    Attributes
    ----------
    scan : Path or Volume
        A file or folder, or a scan already open.
    mask : Path, Volume, ndarray or None
        Lesion mask; values above zero are lesion. An array is on the scan's canonical axes.
    healthy : bool
        Whether the scan is known to have no lesion, so that it needs no mask.
    mask_geometry : {"check", "ignore"}
        Whether the mask must lie where the scan lies, or its voxels are in the order of the
        scan's own file.
    volume : int or None
        Which volume of a file of four dimensions, counted from 1; None for the first.

    Examples
    --------
    >>> Case(Path("ill/p_flair.nii.gz"), mask=Path("ill/p_lesion.nii.gz")).name
    'p_flair'
    """

    scan: Path | Volume
    mask: Path | Volume | NDArray[np.generic] | None = None
    healthy: bool = False
    mask_geometry: MaskGeometry = "check"
    volume: int | None = None

    def __post_init__(self) -> None:
        check_mask_geometry(self.mask_geometry)

    @property
    def name(self) -> str:
        """Name of the scan without its ending."""
        if isinstance(self.scan, Volume):
            return self.scan.name
        return self.scan.name.split(".")[0] if self.scan.is_file() else self.scan.name

    def read(self) -> Volume:
        """Read the scan."""
        if isinstance(self.scan, Volume):
            return self.scan
        return read_volume(self.scan, volume=self.volume)

    def read_mask(self, volume: Volume) -> NDArray[np.bool_] | None:
        """Read the mask on the scan's canonical grid; None if there is none."""
        return self.match_mask(volume)[0]

    def match_mask(self, volume: Volume) -> tuple[NDArray[np.bool_] | None, str]:
        """Read the mask as `read_mask` does; also return a note about it for the user."""
        if self.mask is not None:
            return _match(self.mask, volume, self.mask_geometry)
        return (np.zeros(volume.shape, dtype=bool) if self.healthy else None), ""


class ReadCase(NamedTuple):
    """A scan and its mask, read.

    Attributes
    ----------
    number : int
        Place in the sequence of cases.
    volume : Volume
        The scan.
    mask : ndarray of bool or None
        On the scan's canonical grid.
    note : str
        What the user should know of scan and mask, or nothing. What masks share is said once for
        all cases.
    """

    number: int
    volume: Volume
    mask: NDArray[np.bool_] | None
    note: str


def read_cases(cases: Sequence[Case], said: list[str] | None = None) -> Iterator[ReadCase]:
    """Read scans and their masks.

    Parameters
    ----------
    cases : sequence of Case
        The scans.
    said : list of str, optional
        Notes that were given before and are not repeated; a new one is appended.

    Raises
    ------
    InputError
        If a scan or a mask cannot be read, a scan holds labels, or a mask lies elsewhere.
    """
    said = [] if said is None else said
    for number, case in enumerate(cases):
        yield read_case(case, number, said)


def read_case(case: Case, number: int, said: list[str]) -> ReadCase:
    """Read one case as `read_cases` does."""
    volume = case.read()
    refuse_labels(volume)
    mask, note = case.match_mask(volume)
    notes = [*(f"Note: {one}" for one in volume.named_notices), note]
    return ReadCase(number, volume, mask, unsaid("\n".join(notes), said))


def unsaid(note: str, said: list[str]) -> str:
    """Return the lines of a note that were not said before, and add them to what was said."""
    fresh = [
        line
        for line in note.splitlines()
        if line
        and line not in said
        and not any(kind in line and any(kind in one for one in said) for kind in _SAID_ONCE)
    ]
    said += fresh
    return "\n".join(fresh)


def check_cases(cases: Sequence[Case]) -> Generator[Progress, None, bool]:
    """Read all scans and masks once, and refuse all that cannot be used together.

    A model must not be learned without a scan that its user counts in, and an hour of embedding
    must not end at the last scan. Headers alone do not show a truncated body or a mask that lies
    elsewhere; reading a scan takes far less time than embedding it.

    Parameters
    ----------
    cases : sequence of Case
        Scans, with or without masks. Those that are open already are not read.

    Yields
    ------
    Progress
        Before every scan and every tenth of a second.

    Returns
    -------
    bool
        Whether they are pictures in colour.

    Raises
    ------
    InputError
        If scans or masks cannot be used, of which it names each, or some are in colour and others
        are not.
    """
    bad: dict[str, str] = {}
    coloured: list[str] = []
    waiting = Progress("Checking scans", 0, len(cases))
    for item in prefetch(_checked(cases), patience_s=PATIENCE_S):
        if item is not None:
            number, reason, colour = item
            case = cases[number]
            waiting = Progress("Checking scans", number + 1, len(cases), case.name)
            if colour:
                coloured.append(case.name)
            if reason:
                bad[str(case.scan) if isinstance(case.scan, Path) else case.name] = reason
        yield waiting
    if len(bad) == 1:
        raise InputError(next(iter(bad.values())))
    if bad:
        reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in bad.items())
        raise InputError(
            f"{len(bad)} of {len(cases)} scans cannot be used, so nothing was learned; repair them "
            f"or leave them out: {reasons}."
        )
    if 0 < len(coloured) < len(cases):
        raise InputError(
            f"{len(coloured)} of {len(cases)} scans are in colour, such as {coloured[0]}, and the "
            "others are grey, but a model is of one kind; leave one of them out."
        )
    return bool(coloured)


def _checked(cases: Sequence[Case]) -> Iterator[tuple[int, str, bool]]:
    """Read scans; yield number, why a scan cannot be used or nothing, and whether in colour."""
    for number, case in enumerate(cases):
        try:
            volume = read_case(case, number, []).volume
        except OF_ONE_SCAN as error:
            yield number, sentence(error), False
        else:
            yield number, "", volume.colour is not None


def read_mask(
    mask: Path | Volume | NDArray[np.generic], volume: Volume, geometry: MaskGeometry = "check"
) -> NDArray[np.bool_]:
    """Bring a lesion mask onto a scan's canonical grid.

    Parameters
    ----------
    mask : path, Volume or ndarray
        A file or volume at the position of the scan, or an array on its canonical axes.
    volume : Volume
        The scan.
    geometry : {"check", "ignore"}
        As in `Case`.

    Returns
    -------
    ndarray of bool
        The shape of `volume.array`.

    Raises
    ------
    InputError
        If the mask lies elsewhere, has another size, or holds grey values.
    """
    return _match(mask, volume, geometry)[0]


def _match(
    mask: Path | Volume | NDArray[np.generic], volume: Volume, geometry: MaskGeometry
) -> tuple[NDArray[np.bool_], str]:
    notices: tuple[str, ...] = ()
    if isinstance(mask, Path):
        mask = read_volume(mask, allow_constant=True, labels=True)
        notices = tuple(f"Note, mask: {one}" for one in mask.named_notices)
    if isinstance(mask, Volume):
        check_mask_values(mask)
        matched, note = match_mask(mask, volume, geometry)
        return matched > 0, "\n".join(one for one in (*notices, note) if one)
    array = np.asarray(mask)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.shape != volume.shape:
        raise InputError(
            f"The mask of {volume.name} does not fit: expected the shape "
            f"{' x '.join(map(str, volume.shape))} of its scan, got "
            f"{' x '.join(map(str, array.shape))}; choose the mask of this scan."
        )
    return array > 0, ""


def names_of_cases(cases: Sequence[Case]) -> list[str]:
    """Name cases as `unique_case_names` does; scans that are open already have their own names.

    Raises
    ------
    InputError
        If two cases would have the same name.
    """
    paths = [case.scan for case in cases if isinstance(case.scan, Path)]
    named = iter(unique_case_names(paths))
    names = [next(named) if isinstance(case.scan, Path) else case.name for case in cases]
    clashes = _clashes(names)
    if clashes:
        raise InputError(
            f"Two scans have the name {names[clashes[0]]}, but every case needs a name of its own; "
            "rename one of them."
        )
    return names


def unique_case_names(scans: Sequence[Path]) -> list[str]:
    """Name the cases of a run so that no two results share a file.

    Scans with equal names get as many folder names in front as make them different:
    ``anna/t1.nii`` and ``ben/t1.nii`` become ``anna_t1`` and ``ben_t1``.

    Parameters
    ----------
    scans : sequence of Path
        Files or folders.

    Returns
    -------
    list of str
        In the order of `scans`.

    Raises
    ------
    InputError
        If two scans in one folder differ only in their ending.
    """
    resolved = [scan.resolve() for scan in scans]
    names = [case_name(scan) for scan in resolved]
    deepest = max((len(scan.parts) for scan in resolved), default=0)
    for depth in range(1, deepest):
        for index in _clashes(names):
            folders = resolved[index].parts[1:-1][-depth:]
            names[index] = "_".join([*folders, case_name(resolved[index])])
    clashes = _clashes(names)
    if clashes:
        first, second = (resolved[index] for index in clashes[:2])
        raise InputError(
            f"The results of {first} and {second} would have the same name; rename one of them, "
            "or write them into two folders."
        )
    return names


def _clashes(names: Sequence[str]) -> list[int]:
    """Return the indices of names that occur twice, ignoring upper and lower case.

    The indices of one name follow each other.
    """
    places = defaultdict(list)
    for index, name in enumerate(names):
        places[name.casefold()].append(index)
    return [index for where in places.values() if len(where) > 1 for index in where]
