"""Decode the voxels of MetaImage and NRRD files by a checked header.

Both formats have a text header in front of plain or compressed voxels, or in a file of its own.
SimpleITK's decoders trust such a header completely, so they never see it: SimpleITK gets a new
header for the geometry, and the voxels are decoded here. ISA-L unpacks them twice as fast as zlib.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import check_grid, check_reading
from napari_dino_uad.core.scans.files.integrity import damaged, wrong_length
from napari_dino_uad.core.scans.files.stored_image import StoredImage, choose_volume, grey_values
from napari_dino_uad.core.scans.files.text_header import bad_header
from napari_dino_uad.core.scans.files.unpacking import unpack

__all__ = ["DICOM_TAGS", "StoredVoxels"]

#: DICOM tags that SimpleITK keeps in other formats and this package uses: modality and window.
DICOM_TAGS = ("0008|0060", "0028|1050", "0028|1051")

# Bytes of one number in a text body, with the space behind it.
_TEXT_NUMBER = 64

# Spacing, origin and direction.
_Geometry = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class StoredVoxels:
    """Position, type and encoding of the voxels of a file.

    Attributes
    ----------
    name : str
        Name of the header's file, for messages.
    dtype : numpy.dtype
        Type of the voxels, with the byte order of the file.
    sizes : tuple of int
        Sizes of all stored axes, the fastest first.
    channel_axis : int or None
        Which of them holds the values of one voxel.
    volume_axis : int or None
        Which of them counts volumes.
    files : tuple of Path
        One file, or several that are joined along the slowest axis.
    encoding : {"raw", "text", "zlib", "gzip", "bzip2"}
        Encoding of the voxels.
    offset : int
        Bytes before the voxels in every file, after `lines`. -1: the voxels are at the end of
        the file.
    lines : int
        Lines to skip before that.
    packed_bytes : int or None
        Length of the compressed voxels, if the header gives it.
    header : str
        A new header of the grid of one volume in mm, without voxels, and `suffix` its format.
    spacing_known : bool
        Whether the header has the size of a voxel.
    tags : mapping
        Tags of DICOM and of diffusion among the header's keys.
    skip_unpacked : int
        Bytes to skip after unpacking.
    """

    name: str
    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    channel_axis: int | None
    files: tuple[Path, ...]
    encoding: str
    offset: int
    header: str
    suffix: str
    lines: int = 0
    packed_bytes: int | None = None
    skip_unpacked: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    volume_axis: int | None = None
    spacing_known: bool = True

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along x, y, z."""
        others = (self.channel_axis, self.volume_axis)
        return tuple(size for axis, size in enumerate(self.sizes) if axis not in others)

    @property
    def channels(self) -> int:
        """Values in every voxel."""
        return 1 if self.channel_axis is None else self.sizes[self.channel_axis]

    @property
    def volumes(self) -> int:
        """Volumes in the file."""
        return 1 if self.volume_axis is None else self.sizes[self.volume_axis]

    def read(self, volume: int | None = None) -> StoredImage:
        """Decode the voxels of one volume.

        Parameters
        ----------
        volume : int, optional
            Which one, counted from 1; the first if not given.

        Raises
        ------
        InputError
            If they are damaged, not as many as the header says, in colour, or there is no such
            volume.
        """
        index, notices = choose_volume(self.name, self.volumes, volume)
        # The body, the image and a compressed file are held at once.
        held = 2 * self.channels * self.volumes * self.dtype.itemsize
        check_reading(self.name, self.size, held)
        spacing, origin, direction = self._geometry()
        values = grey_values(self._volume(index), self.name)
        flat = len(self.size) == 2
        axes = np.eye(3)
        axes[: len(self.size), : len(self.size)] = np.reshape(direction, (len(self.size),) * 2)
        if not self.spacing_known:
            notices += (f"{self.name} has no voxel size in its header; sizes are in pixels.",)
        return StoredImage(
            values=values[np.newaxis] if flat else values,
            spacing=(*spacing, 1.0)[:3],
            origin=(*origin, 0.0)[:3],
            direction=tuple(axes.ravel().tolist()),
            dimension=2 if flat else 3,
            spacing_known=self.spacing_known,
            notices=notices,
            modality=self.tags.get(DICOM_TAGS[0], "").strip() or None,
            window=self._window(),
        )

    def _window(self) -> tuple[float, float] | None:
        """Return centre and width, where the header has a window that makes sense."""
        try:
            centre, width = (float(self.tags[key].split("\\")[0]) for key in DICOM_TAGS[1:])
        except (KeyError, ValueError):
            return None
        return (centre, width) if math.isfinite(centre) and 0 < width < math.inf else None

    def _volume(self, index: int) -> NDArray[Any]:
        """Decode one volume, (z, y, x, channels)."""
        sizes, files = list(self.sizes), self.files
        last = len(sizes) - 1
        if self.volume_axis == last and len(files) == sizes[-1] > 1:
            # Every volume has a file of its own.
            files, sizes[last], index = (files[index],), 1, 0
        share = math.prod(sizes) // len(files)
        parts = [self._values(file, share) for file in files]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        values = values.reshape(sizes[::-1])
        channel = None if self.channel_axis is None else last - self.channel_axis
        if self.volume_axis is not None:
            place = last - self.volume_axis
            values = values.take([index], axis=place)
            values = values.reshape([one for at, one in enumerate(values.shape) if at != place])
            if channel is not None and channel > place:
                channel -= 1
        values = values.astype(self.dtype.newbyteorder("="), copy=False)
        return values[..., np.newaxis] if channel is None else np.moveaxis(values, channel, -1)

    def _geometry(self) -> _Geometry:
        """Let SimpleITK read spacing, origin and direction from the new header; check them."""
        import SimpleITK as sitk

        reader = sitk.ImageFileReader()
        reader.SetImageIO("MetaImageIO" if self.suffix == ".mha" else "NrrdImageIO")
        # A file alone is quicker than one in a folder of its own.
        handle, name = tempfile.mkstemp(self.suffix, "napari-dino-uad-")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(self.header)
            reader.SetFileName(name)
            reader.ReadImageInformation()
        finally:
            Path(name).unlink()
        if reader.GetSize() != self.size:
            raise bad_header(self.name, f"the size {' x '.join(map(str, reader.GetSize()))}")
        spacing, origin = reader.GetSpacing(), reader.GetOrigin()
        check_grid(self.name, spacing, origin, known=self.spacing_known)
        return spacing, origin, reader.GetDirection()

    @contextmanager
    def _body(self, file: Path, count: int) -> Iterator[tuple[mmap.mmap, int]]:
        """Open a file of `count` values, and find the byte at which they begin.

        The length of plain voxels is checked, and that of compressed ones where it is given.
        """
        needed = count * self.dtype.itemsize
        if file.stat().st_size == 0:
            raise wrong_length(self.name, needed, 0)
        with (
            file.open("rb") as opened,
            closing(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)) as whole,
        ):
            start = 0
            for _ in range(self.lines):
                start = whole.find(b"\n", start) + 1
                if start == 0:
                    raise bad_header(self.name, f"{self.lines} lines to skip")
            start = len(whole) - needed if self.offset < 0 else start + self.offset
            if not 0 <= start <= len(whole):
                raise wrong_length(self.name, needed, len(whole))
            expected = needed if self.encoding == "raw" else self.packed_bytes
            if expected is not None and len(whole) - start != expected:
                raise wrong_length(self.name, expected, len(whole) - start)
            yield whole, start

    def _values(self, file: Path, count: int) -> NDArray[Any]:
        """Decode `count` values of one file."""
        with self._body(file, count) as (whole, start):
            if self.encoding == "raw":
                if self.volumes > 1:
                    # Only the pages of the volume that is taken are read.
                    return np.memmap(file, dtype=self.dtype, mode="r", offset=start, shape=count)
                return np.fromfile(file, dtype=self.dtype, count=count, offset=start)
            body = memoryview(whole)[start:]
            try:
                return self._decoded(body, count)
            finally:
                body.release()

    def _decoded(self, body: memoryview, count: int) -> NDArray[Any]:
        if self.encoding == "text":
            return self._from_text(body, count)
        needed = self.skip_unpacked + count * self.dtype.itemsize
        try:
            unpacked = unpack(body, self.encoding, needed + 1)
        except (EOFError, ValueError, OSError) as error:
            raise damaged(self.name) from error
        if len(unpacked) != needed:
            raise wrong_length(self.name, needed, len(unpacked))
        return np.frombuffer(unpacked, dtype=self.dtype, offset=self.skip_unpacked)

    def _from_text(self, body: memoryview, count: int) -> NDArray[Any]:
        if len(body) > (count + 1) * _TEXT_NUMBER:
            raise wrong_length(self.name, count * _TEXT_NUMBER, len(body))
        words = bytes(body).split()
        if len(words) != count:
            raise InputError(
                f"{self.name} has {len(words)} numbers, but {count} are expected from the sizes in "
                "its header; copy or export the file again."
            )
        try:
            if self.dtype.kind == "f":
                return np.array([float(word) for word in words], dtype=self.dtype)
            whole, limits = [int(word) for word in words], np.iinfo(self.dtype)
            if not limits.min <= min(whole) <= max(whole) <= limits.max:
                raise damaged(self.name)
            return np.array(whole, dtype=self.dtype)
        except (ValueError, OverflowError) as error:
            raise damaged(self.name) from error
