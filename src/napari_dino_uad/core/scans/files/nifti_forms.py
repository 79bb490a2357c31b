"""Where the voxels of a NIfTI file lie: its qform and sform, read, compared and written."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

__all__ = ["NiftiForms", "write_forms"]

# From the axes of NIfTI, towards right and front, to SimpleITK's, towards left and back.
_TO_LPS = np.diag([-1.0, -1.0, 1.0])

# Millimetres of the units of length, by their code; 0 stands for unknown, which is mm.
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}

# Forms that differ by less than this share of a voxel, at every corner, agree.
_AGREE = 0.5

# Where the fields stand in a NIfTI-1 header.
_PIXDIM, _UNITS, _CODES, _QUATERNION, _ROWS = 76, 123, 252, 256, 280


@dataclass(frozen=True)
class NiftiForms:
    """The geometry as it stands in a header, kept as it is for what is written from the scan.

    Attributes
    ----------
    pixdim : tuple of float
        The sign of the third axis, then the size of a voxel along x, y, z, in the file's unit.
    qform_code, sform_code : int
        Whether the forms count (above 0), and which space they are in.
    quaternion : tuple of float
        b, c, d and the offset x, y, z.
    rows : tuple of float
        The sform, row by row.
    unit : int
        Code of the unit of length.
    """

    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]
    rows: tuple[float, ...]
    unit: int = 2

    @classmethod
    def of_affine(cls, affine: NDArray[np.float64]) -> NiftiForms:
        """Make an sform of an affine in mm, (3, 4); a qform has no shear."""
        spacing = np.linalg.norm(affine[:, :3], axis=0)
        return cls((1.0, *spacing.tolist()), 0, 1, (0.0,) * 6, tuple(affine.ravel().tolist()))

    @classmethod
    def of_geometry(
        cls, spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
    ) -> NiftiForms:
        """Make a header's geometry of one in SimpleITK's way."""
        steps = _TO_LPS @ np.reshape(direction, (3, 3)) * np.asarray(spacing)
        return cls.of_affine(np.column_stack([steps, _TO_LPS @ np.asarray(origin)]))

    def spacing(self, size: Sequence[int]) -> tuple[NDArray[np.float64], bool]:
        """Return the size of a voxel in the file's unit, and whether the header has it.

        Parameters
        ----------
        size : sequence of 3 int
            Voxels along x, y, z. An axis of one voxel needs no size of its own.
        """
        edges = np.abs(np.asarray(self.pixdim[1:4], dtype=np.float64))
        missing = (edges == 0) | ~np.isfinite(edges)
        known = not (missing & (np.asarray(size) > 1)).any()
        return np.where(missing, 1.0, edges), known

    def qform(self, size: Sequence[int]) -> NDArray[np.float64]:
        """Return the affine (3, 4) of the qform, in the file's unit."""
        b, c, d, *offset = self.quaternion
        squares = b * b + c * c + d * d
        if squares > 1:
            b, c, d = (one / math.sqrt(squares) for one in (b, c, d))
        a = math.sqrt(max(0.0, 1.0 - squares))
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        edges, _ = self.spacing(size)
        edges[2] *= -1 if self.pixdim[0] < 0 else 1
        return np.column_stack([turn * edges, offset])

    def sform(self) -> NDArray[np.float64]:
        """Return the affine (3, 4) of the sform, in the file's unit."""
        return np.reshape(np.asarray(self.rows, dtype=np.float64), (3, 4))

    def affine(self, size: Sequence[int]) -> NDArray[np.float64]:
        """Return the affine (3, 4) that counts, as nibabel, FSL and SPM choose it; in mm.

        The sform if its code is above 0, else the qform, else voxels around the origin whose
        first axis runs to the left.
        """
        if self.sform_code > 0:
            affine = self.sform()
        elif self.qform_code > 0:
            affine = self.qform(size)
        else:
            edges = self.spacing(size)[0] * (-1, 1, 1)
            affine = np.column_stack([np.diag(edges), -edges * (np.asarray(size) - 1) / 2])
        return affine * _MM[self.unit]

    def spacing_known(self, size: Sequence[int]) -> bool:
        """Say whether the form that counts has the size of a voxel."""
        return self.sform_code > 0 or self.spacing(size)[1]

    def geometry(
        self, size: Sequence[int], name: str
    ) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Return spacing, origin and direction in SimpleITK's way.

        Raises
        ------
        InputError
            If the axes do not span space.
        """
        affine = self.affine(size)
        steps = _TO_LPS @ affine[:, :3]
        spacing = np.linalg.norm(steps, axis=0)
        if not spacing.all():
            raise InputError(
                f"{name} has axes that do not span space, so its header is damaged; export it "
                "again."
            )
        origin = _TO_LPS @ affine[:, 3]
        direction = (steps / spacing).ravel()
        return tuple(spacing.tolist()), tuple(origin.tolist()), tuple(direction.tolist())

    def notices(self, size: Sequence[int], name: str) -> tuple[str, ...]:
        """Return what the user should know of the geometry."""
        if self.sform_code <= 0 and self.qform_code <= 0:
            return (
                f"{name} has neither sform nor qform: left and right are those of the ANALYZE "
                "format and may be exchanged.",
            )
        if self.sform_code <= 0 or self.qform_code <= 0:
            return ()
        sform, qform = self.sform(), self.qform(size)
        ends = np.array(np.meshgrid(*((0, edge - 1) for edge in size), (1,))).reshape(4, -1)
        apart = (sform - qform) @ ends
        edges = np.linalg.norm(sform[:, :3], axis=0)
        if np.linalg.matrix_rank(sform[:, :3]) < 3:
            return ()
        voxels = np.abs(np.linalg.solve(sform[:, :3] / edges, apart)) / edges[:, None]
        if voxels.max() <= _AGREE:
            return ()
        most = np.linalg.norm(apart, axis=0).max() * _MM[self.unit]
        return (
            f"{name} has a qform and an sform that differ by up to {most:.3g} mm; the sform is "
            "used, as in FSL, SPM, AFNI and FreeSurfer, and results carry both.",
        )


def write_forms(path: Path, forms: NiftiForms) -> None:
    """Write a geometry into the header of an uncompressed NIfTI-1 file.

    Parameters
    ----------
    path : Path
        A file that SimpleITK wrote.
    forms : NiftiForms
        The geometry.
    """
    with path.open("r+b") as file:
        header = bytearray(file.read(348))
        order = "<" if header[:4] == b"\x5c\x01\0\0" else ">"

        def put(form: str, place: int, values: Sequence[float]) -> None:
            struct.pack_into(f"{order}{len(values)}{form}", header, place, *values)

        put("f", _PIXDIM, forms.pixdim)
        header[_UNITS] = (header[_UNITS] & 0x38) | forms.unit
        put("h", _CODES, (forms.qform_code, forms.sform_code))
        put("f", _QUATERNION, forms.quaternion)
        put("f", _ROWS, forms.rows)
        file.seek(0)
        file.write(header)
