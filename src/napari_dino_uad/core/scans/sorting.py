"""Separate scans from masks in the same folders, before a model is fitted on them.

Names come first. Only files with suspicious names are read here; `refuse_labels` checks the others
when they are read anyway.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.formats import DICOM_SUFFIXES, MAP_ENDING, case_name, stack_files
from napari_dino_uad.core.scans.labels import holds_labels, is_named_mask, mask_word
from napari_dino_uad.core.storage.records import read_sealed

__all__ = ["LabelsAmongScansError", "SortedFiles", "sort_files"]

# Files read for each kind of name, to see what that kind holds.
_READ_OF_KIND = 3

# More kinds of names than this are patients' names, not those of sequences and masks.
_KINDS = 8


@dataclass(frozen=True)
class SortedFiles:
    """Scans, and masks among them.

    Attributes
    ----------
    scans, masks : tuple of Path
        In the order of the input.
    patterns : tuple of (str, str) or None
        Patterns of scans and masks that pair them, if there are any.
    """

    scans: tuple[Path, ...]
    masks: tuple[Path, ...]
    patterns: tuple[str, str] | None

    @property
    def found(self) -> str:
        """The result, as the beginning of a sentence."""
        first = self.masks[0]
        if len(self.masks) == 1:
            return f"{first} holds labels or a result, not a scan"
        return (
            f"{len(self.masks)} of {len(self.masks) + len(self.scans)} files hold labels or "
            f"results, not scans, such as {first}"
        )


class LabelsAmongScansError(InputError):
    """Some files that were given as scans are masks.

    Parameters
    ----------
    files : SortedFiles
        The sorted files, with at least one mask.
    """

    def __init__(self, files: SortedFiles) -> None:
        self.files = files
        if not files.scans:
            advice = "give the scans themselves"
        elif files.patterns:
            scan, mask = files.patterns
            advice = (
                f"give the pattern '{scan}' of the scans alone (--pattern), and the mask pattern "
                f"'{mask}' (--mask-pattern) where these are masks of lesions"
            )
        else:
            advice = (
                "give a pattern of the scans alone (--pattern), and a mask pattern "
                "(--mask-pattern) where these are masks of lesions"
            )
        super().__init__(f"{files.found}; {advice}.")


def sort_files(found: Sequence[Path]) -> SortedFiles:
    """Separate scans from masks and earlier results.

    Parameters
    ----------
    found : sequence of Path
        Files and folders that each may be a scan.

    Returns
    -------
    SortedFiles
        A file is a mask if its name stands for masks and pairs with another file's name, or if
        its name is suspicious and its voxels are labels. A file that cannot be read stays a
        scan; reading it later gives the reason.

    Raises
    ------
    LabelsAmongScansError
        If images and their masks are in one folder, which would be read as one stack.
    """
    masks: dict[Path, None] = {}
    files = [path for path in found if path.is_file() and not _is_dicom_name(path)]
    named = {path for path in files if is_named_mask(path)}
    partners = _partners(files)
    masks.update((path, None) for path in files if _is_saved_map(path))
    for path in files:
        if path in named and (path in partners or _file_holds_labels(path, True)):
            masks[path] = None
    for kind in _kinds(path for path in files if path not in named):
        if any(_file_holds_labels(path, True) for path in kind[:_READ_OF_KIND]):
            masks.update((path, None) for path in kind if _file_holds_labels(path, True))
    for path in found:
        if path.is_dir():
            _refuse_mixed_stack(path)
        if path.is_dir() and _stack_holds_labels(path):
            masks[path] = None
    scans = tuple(path for path in found if path not in masks)
    ordered = tuple(path for path in found if path in masks)
    return SortedFiles(scans, ordered, _patterns(scans, ordered))


def _is_dicom_name(path: Path) -> bool:
    return path.name.lower().endswith(DICOM_SUFFIXES)


def _is_saved_map(path: Path) -> bool:
    """Return whether a file is a map that `detect` wrote, with its record beside it."""
    name = path.name.removesuffix(MAP_ENDING)
    return name != path.name and read_sealed(path.with_name(f"{name}.json")) is not None


def _tokens(path: Path) -> list[str]:
    """Split a name at its separators into the parts of the case and of the kind of file."""
    return [token for token in re.split(r"[_\-. ]+", case_name(path).lower()) if token]


def _stem_of_mask(path: Path) -> tuple[str, ...]:
    """Return the part of a mask's name before the word that stands for masks."""
    tokens = _tokens(path)
    place = max((index for index, token in enumerate(tokens) if mask_word(token)), default=0)
    return tuple(tokens[:place])


def _partners(files: Sequence[Path]) -> set[Path]:
    """Return files named as masks whose names begin like that of a file beside or above them."""
    stems: dict[Path, set[tuple[str, ...]]] = defaultdict(set)
    for path in files:
        if mask_word(case_name(path)) is None:
            tokens = _tokens(path)
            stems[path.parent] |= {tuple(tokens), tuple(tokens[:-1])}
    return {
        path
        for path in files
        if mask_word(case_name(path)) is not None
        and _stem_of_mask(path)
        and any(_stem_of_mask(path) in stems[place] for place in (path.parent, path.parent.parent))
    }


def _kinds(files: Iterable[Path]) -> list[list[Path]]:
    """Group files by the last word of their names, if cases have several such files."""
    kinds: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    cases: dict[tuple[Path, tuple[str, ...]], int] = defaultdict(int)
    for path in files:
        tokens = _tokens(path)
        last = tokens[-1] if tokens and not tokens[-1].isdigit() else ""
        stem = tuple(tokens[:-1] if last else tokens)
        kinds[path.parent, last].append(path)
        cases[path.parent, stem] += 1
    folders = {
        folder
        for (folder, _), count in cases.items()
        if count > 1 and sum(one == folder for one, _ in kinds) <= _KINDS
    }
    return [members for (folder, _), members in kinds.items() if folder in folders]


def _file_holds_labels(path: Path, named: bool) -> bool:
    from napari_dino_uad.core.scans.files.image_files import read_image

    try:
        image = read_image(path)
    except InputError:
        return False
    return holds_labels(image.values, named)


def _stack_holds_labels(folder: Path) -> bool:
    """Return whether some sampled slices of a stack are labels and none is an image."""
    images = stack_files(folder)
    if not images:
        return False
    looked = images[:: max(1, len(images) // _READ_OF_KIND)]
    named = mask_word(folder.name) is not None
    # An empty slice is ambiguous; it counts as labels beside a slice that has some.
    return all(_file_holds_labels(image, True) for image in looked) and (
        named or any(_file_holds_labels(image, False) for image in looked)
    )


def _refuse_mixed_stack(folder: Path) -> None:
    """Refuse a folder of images and their masks, which are not slices of one scan."""
    images = stack_files(folder)
    masks = [image for image in images if mask_word(case_name(image)) is not None]
    if masks and len(masks) < len(images):
        scans = tuple(image for image in images if image not in masks)
        raise LabelsAmongScansError(SortedFiles(scans, tuple(masks), _patterns(scans, masks)))


def _patterns(scans: Sequence[Path], masks: Sequence[Path]) -> tuple[str, str] | None:
    """Return the two patterns that pair the most masks with scans."""
    votes: dict[tuple[str, str], int] = defaultdict(int)
    by_folder = defaultdict(list)
    for scan in scans:
        by_folder[scan.parent].append(scan)
    for mask in masks:
        stems = {_stem_of_mask(mask), tuple(_tokens(mask)[:-1])} - {()}
        for scan in by_folder[mask.parent]:
            tokens = _tokens(scan)
            if stems & {tuple(tokens), tuple(tokens[:-1])}:
                votes[_ends(scan.name, mask.name)] += 1
    return max(votes, key=lambda pair: votes[pair]) if votes else None


def _ends(scan: str, mask: str) -> tuple[str, str]:
    """Return the two patterns whose `*` is the common beginning of both names."""
    shared = 0
    while scan[: shared + 1] == mask[: shared + 1]:
        shared += 1
    shared = len(scan[:shared].rstrip("_-. "))
    return f"*{scan[shared:]}", f"*{mask[shared:]}"
