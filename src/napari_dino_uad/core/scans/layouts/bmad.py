"""The folder layouts of the BMAD benchmark: 2D images in `good` and `Ungood`, labels apart.

J. Bao et al., "BMAD: Benchmarks for Medical Anomaly Detection", CVPR workshops 2024. Brain MRI has
``test/Ungood/img/*.png`` and ``test/Ungood/label/*.png``, liver CT ``test/img/Ungood`` and
``test/label/Ungood``, retinal OCT ``Test/test/Ungood`` and ``Test/test_label/Ungood``; all have
``train/good``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari_dino_uad.core.scans.formats import stack_files

__all__ = ["bmad_images"]

_HEALTHY, _ILL = "good", "Ungood"
_IMAGES, _LABELS = "img", "label"


def bmad_images(folder: Path) -> list[tuple[Path, Path | None, bool]]:
    """List the images of a BMAD folder.

    Parameters
    ----------
    folder : Path
        A data set, one of its parts such as ``test``, or ``good`` or ``Ungood`` in it.

    Returns
    -------
    list of (Path, Path or None, bool)
        An image, its label if it has one, and whether it is healthy; in the order of the
        numbers in their names. Empty if the folder has no such layout.
    """
    return [
        (image, _label_of(image), place.name == _HEALTHY)
        for place in _class_folders(folder)
        # Deeper folders would be stacks of one patient each; this benchmark has none.
        for images in (place, place / _IMAGES)
        if images.is_dir() and not _is_label(images)
        for image in stack_files(images)
    ]


def _class_folders(folder: Path) -> Iterator[Path]:
    """Find the folders named good and Ungood, including this one."""
    if folder.name in (_HEALTHY, _ILL):
        yield folder
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name[0] != ".":
            yield from _class_folders(entry)


def _is_label(folder: Path) -> bool:
    """Return whether a folder holds labels, at the depths of all three layouts."""
    return any(part == _LABELS or part.endswith(f"_{_LABELS}") for part in folder.parts[-3:])


def _label_of(image: Path) -> Path | None:
    """Find an image's label at the mirrored place: img as label, or X as X_label."""
    parts = image.parts
    for place in range(len(parts) - 2, max(len(parts) - 5, 0), -1):
        mirror = _LABELS if parts[place] == _IMAGES else f"{parts[place]}_{_LABELS}"
        label = Path(*parts[:place], mirror, *parts[place + 1 :])
        if label.is_file():
            return label
    return None
