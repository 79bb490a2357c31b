"""Reading of sound scans, with all checks, compared with a plain read by SimpleITK.

Reads a scan of 155 slices of 240 x 240 in every format, a DICOM series of 60 slices, and a picture
of 2048 x 2048. A plain read has no checks: SimpleITK decodes, and numpy makes single precision.
Both are read alternately in one process, and the quickest reading of each counts.

    python benchmarks/reading.py [--rounds 9]

The last column is our time as a share of the plain read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from napari_dino_uad import read_volume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_scans(Path(folder)).items():
            plain, ours = alternate(plain_read, read_volume, path, options.rounds)
            print(
                f"{name:14} plain {plain * 1e3:6.1f} ms  ours {ours * 1e3:6.1f} ms  "
                f"ratio {ours / plain:.2f}",
                flush=True,
            )


def alternate(
    first: Callable[[Path], object], second: Callable[[Path], object], path: Path, rounds: int
) -> tuple[float, float]:
    """Time two functions in turn; return the seconds of the quickest call of each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    # The first round only warms up.
    for _ in range(rounds + 1):
        for function, times in zip((first, second), seconds, strict=True):
            clock = time.perf_counter()
            function(path)
            times.append(time.perf_counter() - clock)
    return min(seconds[0][1:]), min(seconds[1][1:])


def plain_read(path: Path) -> np.ndarray:
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    return np.array(sitk.GetArrayViewFromImage(image), dtype=np.float32)


def write_scans(folder: Path) -> dict[str, Path]:
    """Write a scan in every format; return their paths by the names of the formats."""
    rng = np.random.default_rng(0)
    array = (rng.normal(0, 30, (155, 240, 240)) + 500).astype(np.int16)
    # Air around the head, which shrinks to nothing.
    array[:, :60] = 0
    array[:, :, :50] = 0
    volume = sitk.GetImageFromArray(array)
    out = {}
    for name, suffix, packed in (
        ("NIfTI", ".nii", False),
        ("NIfTI gzip", ".nii.gz", True),
        ("MHA", ".mha", False),
        ("MHA zlib", ".mha", True),
        ("NRRD", ".nrrd", False),
        ("NRRD gzip", ".nrrd", True),
    ):
        out[name] = folder / f"{'packed' if packed else 'plain'}{suffix}"
        sitk.WriteImage(volume, str(out[name]), useCompression=packed)
    picture = sitk.GetImageFromArray(rng.normal(100, 20, (2048, 2048)).astype(np.uint8))
    for name, suffix in (("PNG", ".png"), ("TIFF", ".tif")):
        out[name] = folder / f"picture{suffix}"
        sitk.WriteImage(picture, str(out[name]))
    out["DICOM series"] = folder / "series"
    out["DICOM series"].mkdir()
    write_series(out["DICOM series"], array[:60])
    return out


def write_series(folder: Path, array: np.ndarray) -> None:
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, pixels in enumerate(array):
        image = sitk.GetImageFromArray(pixels[np.newaxis])
        tags = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.826.0.1.2.{number + 1}",
            "0020|000d": "1.2.826.0.1",
            "0020|000e": "1.2.826.0.1.1",
            "0020|0013": str(number + 1),
            "0020|0032": f"0\\0\\{3 * number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        image.SetOrigin((0.0, 0.0, 3.0 * number))
        image.SetSpacing((1.0, 1.0, 3.0))
        writer.SetFileName(str(folder / f"{number:03d}.dcm"))
        writer.Execute(image)


if __name__ == "__main__":
    main()
