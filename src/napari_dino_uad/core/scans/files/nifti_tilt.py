"""NIfTI files of tilted slices: SimpleITK neither writes nor reads their sheared affine."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["read_tilted", "write_tilted"]

# Fields of the header: codes of both forms, and the rows of the affine.
_CODES, _ROWS = 252, 280

# From SimpleITK's axes, towards left and back, to those of NIfTI, towards right and front.
_TO_RAS = np.diag([-1.0, -1.0, 1.0])

# Rows and columns of a slice at right angles, but for rounding.
_RIGHT = 1e-2


def write_tilted(image: sitk.Image, path: Path) -> None:
    """Write an image in three dimensions whose third axis leans, as an uncompressed NIfTI file.

    The geometry is in the sform alone: the qform holds no shear, so its code is 0.
    """
    import SimpleITK as sitk

    plain = sitk.Image(image)
    plain.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(plain, str(path))
    affine = np.zeros((3, 4))
    direction = np.reshape(image.GetDirection(), (3, 3))
    affine[:, :3] = _TO_RAS @ direction * np.asarray(image.GetSpacing())
    affine[:, 3] = _TO_RAS @ image.GetOrigin()
    with path.open("r+b") as file:
        order = _order(file.read(4))
        file.seek(_CODES)
        file.write(struct.pack(order + "2h", 0, 1))
        file.seek(_ROWS)
        file.write(struct.pack(order + "12f", *affine.ravel()))


def read_tilted(path: Path) -> sitk.Image | None:
    """Read an uncompressed NIfTI file whose third axis leans, or whose axes are off by rounding.

    Returns
    -------
    SimpleITK.Image or None
        With a sheared direction; None where rows and columns are not at right angles.
    """
    import SimpleITK as sitk

    with path.open("rb") as file:
        header = bytearray(file.read(_ROWS + 48))
        order = _order(header[:4])
        affine = np.reshape(struct.unpack_from(order + "12f", header, _ROWS), (3, 4))
        steps = _TO_RAS @ affine[:, :3]
        spacing = np.linalg.norm(steps, axis=0)
        if not np.isfinite(affine).all() or spacing.min() <= 0:
            return None
        axes = steps / spacing
        if abs(axes[:, 0] @ axes[:, 1]) > _RIGHT or abs(np.linalg.det(axes)) < 0.1:
            return None
        struct.pack_into(order + "2h", header, _CODES, 0, 0)
        with tempfile.TemporaryDirectory(prefix="napari-dino-uad-") as folder:
            straight = Path(folder) / "image.nii"
            with straight.open("wb") as target:
                target.write(header)
                while chunk := file.read(1 << 20):
                    target.write(chunk)
            image = sitk.ReadImage(str(straight))
    if image.GetDimension() != 3:
        return None
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((_TO_RAS @ affine[:, 3]).tolist())
    image.SetDirection(axes.ravel().tolist())
    return image


def _order(first: bytes | bytearray) -> str:
    return "<" if struct.unpack("<i", first)[0] == 348 else ">"
