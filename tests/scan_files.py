"""Scan files that tests write, and where the real ones lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

DATA = Path(
    os.environ.get(
        "NAPARI_DINO_UAD_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    )
)


def real_scan(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real scan {path} is absent; set NAPARI_DINO_UAD_DATA to its folder")
    return path


def random_image(size=(7, 6, 5), dtype=np.int16, seed=0) -> sitk.Image:
    """An image of the size x, y, z, no value twice, its voxels of another size on each axis."""
    values = np.random.default_rng(seed).permutation(int(np.prod(size)))
    image = sitk.GetImageFromArray(values.reshape(size[::-1]).astype(dtype))
    image.SetSpacing((0.5, 0.75, 2.0)[: len(size)])
    image.SetOrigin((-10.0, 20.0, 30.5)[: len(size)])
    return image


def rotation(angles=(0.3, -0.2, 0.15)) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    position=(0.0, 0.0, 0.0),
    axes=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    uid="1.2.826.0.1.1",
    spacing=(0.5, 0.75, 3.0),
    **tags: str,
) -> Path:
    """Write one slice. `axes` are the directions of rows and columns, `tags` like t0018_0086."""
    image = sitk.GetImageFromArray(pixels[None].astype(np.int16))
    row, column = np.array(axes[:3]), np.array(axes[3:])
    image.SetSpacing(spacing)
    image.SetDirection(np.stack([row, column, np.cross(row, column)], axis=1).ravel().tolist())
    image.SetOrigin([float(value) for value in position])
    header = {
        "0008|0060": "MR",
        "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
        "0008|0018": f"{uid}.{abs(hash(path)) % 10**9}",
        "0008|0020": "20240102",
        "0008|103e": "FLAIR",
        "0020|000d": "1.2.826.0.1",
        "0020|000e": uid,
        "0020|0032": "\\".join(f"{value:g}" for value in position),
        "0020|0037": "\\".join(f"{value:g}" for value in axes),
        "0028|1050": "300",
        "0028|1051": "800",
    }
    header.update({key[1:].replace("_", "|"): value for key, value in tags.items()})
    for key, value in header.items():
        if value:
            image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)
    return path


def write_series(folder: Path, places=range(0, 15, 3), uid="1.2.826.0.1.1", **options):
    """Write axial slices at heights in mm under names in no order; return (slices, rows, cols)."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 500, (len(places), 6, 8)).astype(np.int16)
    for index, place in enumerate(places):
        name = f"IM{(index * 7 + 3) % 11:04d}_{uid[-1]}.dcm"
        write_dicom(folder / name, pixels[index], (0.0, 0.0, place), uid=uid, **options)
    return pixels
