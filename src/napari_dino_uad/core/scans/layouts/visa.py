"""The folder layout of VisA: `Normal` and `Anomaly` images of each category, masks apart.

Y. Zou et al., "SPot-the-Difference self-supervised pre-training for anomaly detection and
segmentation", ECCV 2022. A category has ``Data/Images/Normal``, ``Data/Images/Anomaly`` and
``Data/Masks/Anomaly``; the published split is a table, see `table.py`.
"""

from __future__ import annotations

from pathlib import Path

from napari_dino_uad.core.scans.formats import case_name
from napari_dino_uad.core.scans.layouts.categories import categories_of, images_of

__all__ = ["visa_images"]

_HEALTHY, _ILL = "Normal", "Anomaly"
_IMAGES, _MASKS = Path("Data", "Images"), Path("Data", "Masks")


def visa_images(folder: Path) -> list[tuple[Path, Path | None, bool]]:
    """List the images of a folder in the layout of VisA.

    Parameters
    ----------
    folder : Path
        A data set, one of its categories, or ``Data``, ``Images``, ``Normal`` or ``Anomaly`` in
        it.

    Returns
    -------
    list of (Path, Path or None, bool)
        An image, its mask if it has one, and whether it is healthy. Empty if the folder has no
        such layout.
    """
    return [
        (image, _mask_of(image, category), image.parent.name == _HEALTHY)
        for category in categories_of(folder, _is_category, deepest=3)
        for image in images_of((category / _IMAGES / kind for kind in (_HEALTHY, _ILL)), folder)
    ]


def _is_category(folder: Path) -> bool:
    return (folder / _IMAGES / _HEALTHY).is_dir()


def _mask_of(image: Path, category: Path) -> Path | None:
    mask = category / _MASKS / image.parent.name / f"{case_name(image)}.png"
    return mask if mask.is_file() else None
