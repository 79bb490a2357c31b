"""The folder layout of MVTec AD: classes of images in `train` and `test`, masks apart.

P. Bergmann et al., "MVTec AD: a comprehensive real-world dataset for unsupervised anomaly
detection", CVPR 2019. A category has ``train/good/000.png``, ``test/<defect>/000.png`` and
``ground_truth/<defect>/000_mask.png``; a data set has a folder for each category.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari_dino_uad.core.scans.formats import case_name
from napari_dino_uad.core.scans.layouts.categories import categories_of, images_of

__all__ = ["mvtec_images"]

_HEALTHY = "good"
_PARTS = ("train", "test")
_TRUTH = "ground_truth"
# Published masks end in _mask; other data sets in this layout keep the image's name.
_ENDINGS = ("_mask", "")


def mvtec_images(folder: Path) -> list[tuple[Path, Path | None, bool]]:
    """List the images of a folder in the layout of MVTec AD.

    Parameters
    ----------
    folder : Path
        A data set, one of its categories, a part such as ``test``, or a class in it.

    Returns
    -------
    list of (Path, Path or None, bool)
        An image, its mask if it has one, and whether it is healthy. Empty if the folder has no
        such layout.
    """
    return [
        (image, _mask_of(image, category / _TRUTH), image.parent.name == _HEALTHY)
        for category in categories_of(folder, _is_category, deepest=2)
        for image in images_of(_classes(category), folder)
    ]


def _classes(category: Path) -> Iterator[Path]:
    for part in _PARTS:
        if (category / part).is_dir():
            yield from sorted((category / part).iterdir())


def _is_category(folder: Path) -> bool:
    return (folder / _TRUTH).is_dir() and (folder / "train" / _HEALTHY).is_dir()


def _mask_of(image: Path, truth: Path) -> Path | None:
    places = (
        truth / image.parent.name / f"{case_name(image)}{ending}{suffix}"
        for ending in _ENDINGS
        for suffix in dict.fromkeys((".png", image.suffix))
    )
    return next((place for place in places if place.is_file()), None)
