"""Reading and writing scans, on canonical axes and back on the file's own grid.

This is the only module in which geometry has SimpleITK's order x, y, z; everywhere else arrays
and their spacing run (S, P, L): feet to head, front to back, the patient's right to left.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "IMAGE_SUFFIXES",
    "VOLUME_SUFFIXES",
    "FileGrid",
    "Series",
    "Volume",
    "case_name",
    "find_scans",
    "list_series",
    "read_volume",
    "to_file_grid",
    "volume_from_array",
    "write_volume",
]

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
IMAGE_SUFFIXES = (".png", ".tif", ".tiff")
_WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass(frozen=True)
class FileGrid:
    """A file's own geometry, in SimpleITK's order x, y, z.

    Attributes
    ----------
    size, spacing, origin, direction : tuple
        As SimpleITK gives them for the three-dimensional image.
    orientation : str
        Three letters such as "LPS": where x, y and z of the file point to.
    dimension : int
        2 for a single image without a third axis.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    orientation: str
    dimension: int = 3


@dataclass(frozen=True)
class Volume:
    """A scan on canonical axes.

    Attributes
    ----------
    array : ndarray of float32, (slices, rows, cols)
        Axis 0 runs feet to head, axis 1 front to back, axis 2 the patient's right to left.
    spacing_mm : tuple of float
        Along the three array axes.
    origin_mm : tuple of float
        Position (S, P, L) of voxel (0, 0, 0).
    direction : ndarray of float64, (3, 3)
        Column j is the direction (S, P, L) of array axis j: the identity, but for the rotation
        of an oblique scan.
    grid : FileGrid
        The exact way back to the file.
    name : str
        The file's name without its ending.
    path : Path or None
        Where it was read from.
    modality : str or None
        DICOM modality, such as "MR" or "CT".
    window : tuple of float or None
        DICOM window (centre, width).
    is_2d : bool
        Whether it is a single image; the array is then (1, rows, cols).
    """

    array: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]
    grid: FileGrid
    name: str
    path: Path | None = None
    modality: str | None = None
    window: tuple[float, float] | None = None
    is_2d: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array, (slices, rows, cols)."""
        slices, rows, cols = self.array.shape
        return slices, rows, cols

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000

    def to_ras_mm(self, index: ArrayLike) -> tuple[float, float, float]:
        """Return where a voxel lies, in mm to the patient's right, front and head.

        Parameters
        ----------
        index : array_like of 3 numbers
            Along the array's axes (S, P, L).
        """
        step = np.asarray(index, dtype=np.float64) * np.asarray(self.spacing_mm)
        superior, posterior, left = np.asarray(self.origin_mm) + self.direction @ step
        return -float(left), -float(posterior), float(superior)


@dataclass(frozen=True)
class Series:
    """One DICOM series of a folder.

    Attributes
    ----------
    uid, description, modality, date : str
        From the header.
    slices : int
        Number of files.
    spacing_mm : tuple of float
        Between slices, rows and columns.
    files : tuple of str
        Sorted by position.
    warning : str or None
        What is wrong with it, such as missing slices.
    """

    uid: str
    description: str
    modality: str
    date: str
    slices: int
    spacing_mm: tuple[float, float, float]
    files: tuple[str, ...] = field(repr=False, default=())
    warning: str | None = None


def case_name(path: Path) -> str:
    """Return a file's name without its ending, or a folder's name."""
    lowered = path.name.lower()
    for suffix in sorted((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES), key=len, reverse=True):
        if lowered.endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def read_volume(
    path: Path | str, series: str | None = None, *, allow_constant: bool = False
) -> Volume:
    """Read a scan.

    Parameters
    ----------
    path : path
        A NIfTI, NRRD, MHA, DICOM, PNG or TIFF file, or a folder with a DICOM series or a stack
        of PNG or TIFF slices.
    series : str, optional
        UID of the series to read from a folder that holds several.
    allow_constant : bool
        Whether an image of one value throughout is welcome, as an empty mask is.

    Returns
    -------
    Volume
        Not-a-number voxels become the smallest value of the scan.

    Raises
    ------
    InputError
        If there is no scan, it is damaged, in colour, of four dimensions, or without contrast.
    """
    path = Path(path)
    modality = window = None
    if path.is_dir():
        image, modality, window = _read_folder(path, series)
    elif path.is_file():
        image = _read_file(path)
        if path.suffix.lower() == ".dcm" or image.HasMetaDataKey("0008|0060"):
            modality, window = _modality(image), _window(image)
    else:
        raise InputError(f"There is no file or folder {path}; check the path.")
    return _from_image(image, case_name(path), path, modality, window, allow_constant)


def _from_image(
    image: sitk.Image,
    name: str,
    path: Path | None,
    modality: str | None,
    window: tuple[float, float] | None,
    allow_constant: bool,
) -> Volume:
    import SimpleITK as sitk

    image = _as_grey(image, name)
    dimension = image.GetDimension()
    if dimension == 4:
        if image.GetSize()[3] != 1:
            raise InputError(
                f"{name} has four dimensions ({image.GetSize()[3]} volumes); expected one volume: "
                "save the one to look at to its own file."
            )
        image = image[:, :, :, 0]
    elif dimension == 2:
        image = sitk.JoinSeries(image)
    elif dimension != 3:
        raise InputError(f"{name} has {dimension} dimensions; expected 2 or 3.")
    direction = image.GetDirection()
    if abs(np.linalg.det(np.reshape(direction, (3, 3)))) < 1e-6:
        raise InputError(f"{name} has axes that do not span space; its header is damaged.")
    orientation = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
    grid = FileGrid(
        image.GetSize(),
        image.GetSpacing(),
        image.GetOrigin(),
        direction,
        orientation,
        2 if dimension == 2 else 3,
    )
    canonical = sitk.DICOMOrient(image, "LPS") if dimension != 2 else image
    array = sitk.GetArrayFromImage(canonical).astype(np.float32, copy=False)
    array = _checked(array, name, allow_constant)
    x_spacing, y_spacing, z_spacing = canonical.GetSpacing()
    x_origin, y_origin, z_origin = canonical.GetOrigin()
    # Rows and columns of the matrix run x, y, z; turned round in both they run S, P, L.
    spl = np.reshape(canonical.GetDirection(), (3, 3))[::-1, ::-1].copy()
    return Volume(
        array=array,
        spacing_mm=(z_spacing, y_spacing, x_spacing),
        origin_mm=(z_origin, y_origin, x_origin),
        direction=spl,
        grid=grid,
        name=name,
        path=path,
        modality=modality,
        window=window,
        is_2d=dimension == 2 or array.shape[0] == 1,
    )


def _checked(
    array: NDArray[np.float32], name: str, allow_constant: bool
) -> NDArray[np.float32]:
    finite = np.isfinite(array)
    if not finite.all():
        if not finite.any():
            raise InputError(f"{name} holds no number at all, only NaN; export the scan again.")
        array = np.where(finite, array, array[finite].min())
    if not allow_constant and array.min() == array.max():
        raise InputError(
            f"{name} has the value {array.flat[0]:g} in every voxel; expected an image with contrast."
        )
    return array


def _as_grey(image: sitk.Image, name: str) -> sitk.Image:
    """Take one channel of a grey image that was stored in colour; refuse real colour."""
    import SimpleITK as sitk

    if image.GetNumberOfComponentsPerPixel() == 1:
        if "complex" in image.GetPixelIDTypeAsString():
            raise InputError(f"{name} holds complex numbers; expected grey values.")
        return image
    colours = np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0)[:3]
    if image.GetNumberOfComponentsPerPixel() > 4 or len(colours) < 2:
        raise InputError(
            f"{name} has {image.GetNumberOfComponentsPerPixel()} values in every voxel; expected "
            "one grey value."
        )
    if not all(np.array_equal(colours[0], colour) for colour in colours[1:]):
        raise InputError(
            f"{name} is a colour image; expected grey values: convert it to greyscale first."
        )
    return sitk.VectorIndexSelectionCast(image, 0)


def _read_file(path: Path) -> sitk.Image:
    import SimpleITK as sitk

    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty; copy or export the file again.")
    if path.name.lower().endswith(".gz"):
        _check_gzip(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"{path.name} cannot be read as an image; expected NIfTI, NRRD, MHA, DICOM, PNG or "
            "TIFF, whole and undamaged."
        ) from error


def _check_gzip(path: Path) -> None:
    """Refuse a truncated file, of which SimpleITK would read the missing part as zeros."""
    try:
        with gzip.open(path) as file:
            while file.read(1 << 24):
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path.name} is truncated or damaged; copy or download the file again."
        ) from error


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _stack_files(folder: Path) -> list[Path]:
    return sorted(
        (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_natural
    )


def _read_folder(
    folder: Path, series: str | None
) -> tuple[sitk.Image, str | None, tuple[float, float] | None]:
    import SimpleITK as sitk

    found = list_series(folder)
    if found:
        return _read_series(folder, found, series)
    stack = _stack_files(folder)
    if not stack:
        raise InputError(
            f"The folder {folder} holds no DICOM series and no PNG or TIFF slices; choose the "
            "folder with the slices or a file."
        )
    slices = [_as_grey(_read_file(file), file.name) for file in stack]
    for file, image in zip(stack, slices, strict=True):
        if image.GetSize() != slices[0].GetSize() or image.GetDimension() != 2:
            raise InputError(
                f"The slices of a stack must be 2D images of one size: {stack[0].name} is "
                f"{slices[0].GetSize()}, {file.name} is {image.GetSize()}."
            )
    first = slices[0]
    for image in slices:
        image.CopyInformation(first)
    return sitk.JoinSeries([sitk.Cast(image, sitk.sitkFloat32) for image in slices]), None, None


def _read_series(
    folder: Path, found: list[Series], series: str | None
) -> tuple[sitk.Image, str | None, tuple[float, float] | None]:
    import SimpleITK as sitk

    if series is None and len(found) > 1:
        listed = "; ".join(f"{one.description or one.uid} ({one.slices} slices)" for one in found)
        raise InputError(
            f"The folder {folder.name} holds {len(found)} DICOM series: {listed}. Choose one."
        )
    chosen = [one for one in found if series in (None, one.uid)]
    if not chosen:
        raise InputError(f"The folder {folder.name} holds no DICOM series {series}.")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(chosen[0].files)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"The DICOM series {chosen[0].description or chosen[0].uid} cannot be read; expected "
            "slices of one size, whole and undamaged."
        ) from error
    tags = _read_header(chosen[0].files[0])
    return image, chosen[0].modality or None, _window(tags)


def _read_header(file: str) -> sitk.ImageFileReader:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.LoadPrivateTagsOff()
    reader.ReadImageInformation()
    return reader


def _tag(source: Any, key: str) -> str:
    return source.GetMetaData(key).strip(" \0") if source.HasMetaDataKey(key) else ""


def _modality(source: Any) -> str | None:
    return _tag(source, "0008|0060") or None


def _window(source: Any) -> tuple[float, float] | None:
    try:
        centre = float(_tag(source, "0028|1050").split("\\")[0])
        width = float(_tag(source, "0028|1051").split("\\")[0])
    except ValueError:
        return None
    return (centre, width) if width > 0 else None


def list_series(folder: Path | str) -> list[Series]:
    """List the DICOM series of a folder, largest first.

    Parameters
    ----------
    folder : path
        A folder with DICOM files.

    Returns
    -------
    list of Series
        Empty where there is no DICOM file.
    """
    import SimpleITK as sitk

    folder = Path(folder)
    out = []
    for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        header = _read_header(files[0])
        spacing = header.GetSpacing()
        gaps = _slice_gaps(files)
        warning = None
        slice_mm = spacing[2] if len(spacing) > 2 else 1.0
        if len(gaps):
            slice_mm = float(np.median(gaps))
            if gaps.max() > 1.5 * slice_mm:
                warning = f"Slices are missing: a gap of {gaps.max():.1f} mm between {slice_mm:.1f}"
            elif gaps.max() - gaps.min() > 0.05 * slice_mm:
                warning = f"Slices are unevenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm"
        out.append(
            Series(
                uid=_tag(header, "0020|000e") or uid,
                description=_tag(header, "0008|103e"),
                modality=_tag(header, "0008|0060"),
                date=_tag(header, "0008|0020"),
                slices=len(files),
                spacing_mm=(slice_mm, spacing[1], spacing[0]),
                files=tuple(files),
                warning=warning,
            )
        )
    return sorted(out, key=lambda one: -one.slices)


def _slice_gaps(files: Sequence[str]) -> NDArray[np.float64]:
    """Return the distances between neighbouring slices along their normal, in mm."""
    places = []
    for file in files:
        header = _read_header(file)
        if header.GetDimension() < 3:
            return np.zeros(0)
        direction = np.reshape(header.GetDirection(), (3, 3))
        places.append(float(direction[:, 2] @ np.asarray(header.GetOrigin())))
    return np.abs(np.diff(places))


def volume_from_array(
    array: ArrayLike,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    name: str = "image",
) -> Volume:
    """Make a volume of an array whose axes run (S, P, L), such as a layer of the viewer.

    Parameters
    ----------
    array : array_like, (slices, rows, cols) or (rows, cols)
        Grey values.
    spacing_mm, origin_mm : sequence of 3 floats
        Along the three axes.
    name : str
        Name of the case.

    Raises
    ------
    InputError
        If the array is not 2D or 3D, or has no contrast.
    """
    import SimpleITK as sitk

    values = np.asarray(array)
    if values.ndim not in (2, 3):
        raise InputError(f"{name} has {values.ndim} dimensions; expected 2 or 3.")
    flat = values.ndim == 2
    image = sitk.GetImageFromArray(np.ascontiguousarray(values[None] if flat else values, np.float32))
    image.SetSpacing([float(value) for value in reversed(tuple(spacing_mm))])
    image.SetOrigin([float(value) for value in reversed(tuple(origin_mm))])
    return _from_image(image, name, None, None, None, allow_constant=False)


def to_file_grid(array: NDArray[Any], like: Volume) -> sitk.Image:
    """Bring an array from canonical axes back to the grid of the file, voxel for voxel.

    Parameters
    ----------
    array : ndarray, (S, P, L)
        On the canonical grid of `like`.
    like : Volume
        The scan it belongs to.

    Returns
    -------
    SimpleITK.Image
        Size, spacing, origin and direction are those of the file.

    Raises
    ------
    InputError
        If the shape is not that of `like`.
    """
    import SimpleITK as sitk

    if array.shape != like.shape:
        raise InputError(
            f"Expected an array of {' x '.join(map(str, like.shape))}, the grid of {like.name}, "
            f"but {' x '.join(map(str, array.shape))} came."
        )
    grid = like.grid
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    if grid.dimension == 2:
        image = image[:, :, 0]
        image.SetSpacing(grid.spacing[:2])
        image.SetOrigin(grid.origin[:2])
        return image
    image.SetSpacing(like.spacing_mm[::-1])
    image.SetOrigin(like.origin_mm[::-1])
    image.SetDirection(like.direction[::-1, ::-1].ravel().tolist())
    image = sitk.DICOMOrient(image, grid.orientation)
    # Turning there and back costs rounding; the file's own numbers are exact.
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def write_volume(path: Path | str, array: NDArray[Any], like: Volume) -> None:
    """Write an array on the grid of a scan's file, under a temporary name first.

    Parameters
    ----------
    path : path
        Ends in .nii, .nii.gz, .nrrd or .mha.
    array : ndarray, (S, P, L)
        On the canonical grid of `like`.
    like : Volume
        The scan it belongs to.

    Raises
    ------
    InputError
        If the ending or the shape is wrong, or the file cannot be written.
    """
    import SimpleITK as sitk

    path = Path(path)
    suffix = next((end for end in _WRITABLE if path.name.lower().endswith(end)), None)
    if suffix is None:
        raise InputError(
            f"{path.name} has an unknown ending; expected one of {', '.join(_WRITABLE)}."
        )
    image = to_file_grid(array, like)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        sitk.WriteImage(image, str(temporary), useCompression=suffix != ".nii")
        temporary.replace(path)
    except (RuntimeError, OSError) as error:
        raise InputError(f"{path} cannot be written; check the folder and the disk.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_scan(path: Path) -> bool:
    return path.name.lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES))


def find_scans(paths: Sequence[Path | str], pattern: str | None = None) -> list[Path]:
    """Find the scans in files and folders.

    Parameters
    ----------
    paths : sequence of path
        A file is a scan. A folder is searched: a folder of DICOM files, or of nothing but PNG
        or TIFF slices where no pattern is given, is one scan.
    pattern : str, optional
        Names of scan files, such as ``*_flair.nii.gz``.

    Returns
    -------
    list of Path
        In order, each once.

    Raises
    ------
    InputError
        If a path is missing or nothing is found.
    """
    out: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"There is no file or folder {path}; check the path.")
        if path.is_file():
            out.append(path)
        elif pattern is not None:
            out += sorted(path.rglob(pattern))
        else:
            out += _scans_in(path)
    found = list(dict.fromkeys(out))
    if not found:
        what = f"matching {pattern!r}" if pattern else "(NIfTI, NRRD, MHA, DICOM, PNG or TIFF)"
        raise InputError(f"No scan {what} was found in {', '.join(map(str, paths))}.")
    return found


def _scans_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    single = [
        file
        for file in files
        if file.name.lower().endswith(VOLUME_SUFFIXES) and file.suffix.lower() != ".dcm"
    ]
    if not single and files and list_series(folder):
        return [folder]
    if not single and any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        return [folder]
    inner = [
        scan
        for child in sorted(folder.iterdir())
        if child.is_dir()
        for scan in _scans_in(child)
    ]
    return single + inner
