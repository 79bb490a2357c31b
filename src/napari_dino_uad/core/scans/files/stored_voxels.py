"""Decode the voxels of MetaImage and NRRD files by a checked header.

Both formats have a text header in front of plain or compressed voxels, or in a file of its own.
SimpleITK's decoders trust such a header completely, so they never read the file: the voxels are
decoded here, and SimpleITK gets a new header for the geometry.
"""

from __future__ import annotations

import bz2
import io
import math
import mmap
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.limits import LARGEST_EDGE, check_grid, check_one_volume, check_reading
from napari_dino_uad.core.scans.files.integrity import damaged, wrong_length

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "DICOM_TAGS",
    "StoredVoxels",
    "bad_header",
    "file_pattern",
    "files_beside",
    "numbers",
    "read_sizes",
]

#: DICOM tags that SimpleITK keeps in other formats and this package uses: modality and window.
DICOM_TAGS = ("0008|0060", "0028|1050", "0028|1051")

# Bytes of one number in a text body, with the space after it.
_TEXT_NUMBER = 64

_PATTERN = re.compile(r"[^%]*%0?\d{0,2}d[^%]*")

# Most data files of one header; more than any real scan has.
_MOST_FILES = 100_000


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
        Axis of the values of one voxel.
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
        A new header of the same grid, without voxels, and `suffix` its format.
    tags : mapping
        DICOM tags among the header's keys.
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

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along x, y, z."""
        return tuple(size for axis, size in enumerate(self.sizes) if axis != self.channel_axis)

    @property
    def channels(self) -> int:
        """Values in every voxel."""
        return 1 if self.channel_axis is None else self.sizes[self.channel_axis]

    def read(self) -> sitk.Image:
        """Decode the voxels.

        Raises
        ------
        InputError
            If they are damaged, or their number differs from the header.
        """
        import SimpleITK as sitk

        check_one_volume(self.name, self.size)
        # The body, the image and a compressed file are in memory at once.
        check_reading(self.name, self.size, 2 * self.channels * self.dtype.itemsize)
        geometry = self._geometry()
        check_grid(self.name, geometry.GetSpacing()[:3], geometry.GetOrigin()[:3])
        share = math.prod(self.sizes) // len(self.files)
        parts = [self._values(file, share) for file in self.files]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        values = values.astype(self.dtype.newbyteorder("="), copy=False).reshape(self.sizes[::-1])
        if self.channel_axis is not None:
            values = np.moveaxis(values, len(self.sizes) - 1 - self.channel_axis, -1)
            if self.channels == 1:
                values = values[..., 0]
        image = sitk.GetImageFromArray(values, isVector=self.channels > 1)
        if geometry.GetSize() != image.GetSize():
            raise bad_header(self.name, f"the size {' x '.join(map(str, geometry.GetSize()))}")
        image.SetSpacing(geometry.GetSpacing())
        image.SetOrigin(geometry.GetOrigin())
        image.SetDirection(geometry.GetDirection())
        for key, value in self.tags.items():
            image.SetMetaData(key, value)
        return image

    def _geometry(self) -> sitk.ImageFileReader:
        """Read the new header with SimpleITK."""
        import SimpleITK as sitk

        reader = sitk.ImageFileReader()
        reader.SetImageIO("MetaImageIO" if self.suffix == ".mha" else "NrrdImageIO")
        with tempfile.TemporaryDirectory(prefix="napari-dino-uad-") as folder:
            file = Path(folder) / f"header{self.suffix}"
            file.write_text(self.header, encoding="ascii")
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
        return reader

    def _values(self, file: Path, count: int) -> NDArray[Any]:
        """Decode `count` values of one file."""
        length = file.stat().st_size
        if length == 0:
            raise wrong_length(self.name, count * self.dtype.itemsize, 0)
        with (
            file.open("rb") as opened,
            closing(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)) as whole,
        ):
            start = 0
            for _ in range(self.lines):
                start = whole.find(b"\n", start) + 1
                if start == 0:
                    raise bad_header(self.name, f"{self.lines} lines to skip")
            needed = count * self.dtype.itemsize
            start = length - needed if self.offset < 0 else start + self.offset
            if start < 0 or start > length:
                raise wrong_length(self.name, needed, length)
            if self.encoding == "raw":
                if length - start != needed:
                    raise wrong_length(self.name, needed, length - start)
                return np.fromfile(file, dtype=self.dtype, count=count, offset=start)
            body = memoryview(whole)[start:]
            try:
                return self._decoded(body, count)
            finally:
                body.release()

    def _decoded(self, body: memoryview, count: int) -> NDArray[Any]:
        if self.encoding == "text":
            return self._from_text(body, count)
        if self.packed_bytes is not None and self.packed_bytes != len(body):
            raise wrong_length(self.name, self.packed_bytes, len(body))
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
            return np.array([int(word) for word in words]).astype(self.dtype, casting="same_value")
        except (ValueError, OverflowError) as error:
            raise damaged(self.name) from error


def unpack(body: memoryview, encoding: str, most: int) -> bytes:
    """Decompress a body, to its last byte.

    Parameters
    ----------
    body : memoryview
        The compressed bytes.
    encoding : {"zlib", "gzip", "bzip2"}
        Kind of compression.
    most : int
        Maximum number of bytes; decompression stops there.

    Raises
    ------
    EOFError, ValueError, OSError
        If the body is damaged, too short, or followed by other bytes.
    """
    from isal import igzip, igzip_lib

    try:
        if encoding == "gzip":
            single = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            out = single.decompress(body, max_length=most)
            if len(out) >= most or (single.eof and not single.unused_data):
                return out
            # It joins the members of a file, and checks each.
            with igzip.IGzipFile(fileobj=io.BytesIO(body)) as stream:
                return stream.read(most)
        if encoding == "zlib":
            single = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)
            out = single.decompress(body, max_length=most)
            if len(out) < most and (not single.eof or single.unused_data):
                raise EOFError
            return out
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub is no class
        raise ValueError(str(error)) from error
    joined = b""
    rest: Any = body
    while rest and len(joined) < most:
        one = bz2.BZ2Decompressor()
        joined += one.decompress(rest, max_length=most - len(joined))
        if not one.eof and len(joined) < most:
            raise EOFError
        rest = one.unused_data
    return joined


def bad_header(name: str, what: str) -> InputError:
    """Return the error to raise for an impossible header.

    Parameters
    ----------
    name : str
        Name of the file.
    what : str
        The fault in the header.
    """
    return InputError(
        f"{name} has {what[:80]} in its header, which is damaged or not supported; export the scan "
        "again, as NIfTI if it can be."
    )


def numbers(name: str, key: str, text: str, count: int, kind: type = float) -> list[Any]:
    """Read `count` finite numbers of a header.

    Raises
    ------
    InputError
        If the text is anything else.
    """
    words = text.split()
    try:
        # Python would accept digits of other alphabets, and 1_000.
        if "_" in text or not text.isascii():
            raise ValueError
        values = [kind(word) for word in words]
    except ValueError:
        raise bad_header(name, f"{key!r}: {text!r}") from None
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise bad_header(name, f"{key!r}: {text!r} instead of {count} numbers")
    return values


def read_sizes(
    name: str, dimensions: tuple[str, str], sizes: tuple[str, str], most: int
) -> list[int]:
    """Read the number of axes of a header and the voxels along each.

    Parameters
    ----------
    name : str
        Name of the file.
    dimensions, sizes : tuple of (str, str)
        Key and text of both fields.
    most : int
        Largest number of axes, with those of channels and time.

    Raises
    ------
    InputError
        If the number of axes is not 2 to `most`, or a size is impossible.
    """
    (count,) = numbers(name, *dimensions, 1, int)
    if not 2 <= count <= most:
        raise InputError(
            f"{name} has {count} dimensions in its header, but 2 or 3 are expected; save one "
            "volume of it to its own file."
        )
    found: list[int] = numbers(name, *sizes, count, int)
    if not all(1 <= size <= LARGEST_EDGE for size in found):
        raise bad_header(name, f"the size {' x '.join(map(str, found))}")
    return found


def file_pattern(name: str, pattern: str, first: int, last: int, step: int) -> list[str]:
    """List the names of numbered data files.

    Parameters
    ----------
    name : str
        Name of the header's file.
    pattern : str
        File name with one number in C format, such as ``slice%03d.raw``.
    first, last, step : int
        Range of the numbers.

    Raises
    ------
    InputError
        If the pattern is not supported, or gives no files or too many.
    """
    if not _PATTERN.fullmatch(pattern):
        raise bad_header(name, f"the data file pattern {pattern!r}")
    if step == 0 or first < 0 or last < 0 or not 1 <= (last - first) // step + 1 <= _MOST_FILES:
        raise bad_header(name, f"data files {first} to {last} in steps of {step}")
    return [pattern % number for number in range(first, last + (1 if step > 0 else -1), step)]


def files_beside(header: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Find the data files of a header.

    Parameters
    ----------
    header : Path
        The header's file.
    names : sequence of str
        Names from the header, relative to its folder.

    Raises
    ------
    InputError
        If one is in another folder, missing, or not a regular file.
    """
    out = []
    for name in names:
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        if (
            not name
            or "\0" in name
            or posix.is_absolute()
            or windows.drive
            or windows.root
            or ".." in (*posix.parts, *windows.parts)
        ):
            raise InputError(
                f"{header.name} has its voxels in {name[:80]!r}, but a file in the header's own "
                "folder is expected; put the two together and correct the header."
            )
        file = header.parent / name
        try:
            regular = file.is_file()
        except OSError:
            # Such as a name that is too long.
            regular = False
        if not regular:
            raise InputError(
                f"{header.name} cannot be read as an image: it is expected with its data file "
                f"beside it, but {name[:80]!r} is missing or no regular file; copy both."
            )
        out.append(file)
    return tuple(out)
