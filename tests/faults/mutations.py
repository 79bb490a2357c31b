"""Damaged copies of small scans, and a process of its own that reads them."""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scan_files import random_image, write_dicom

_NAMES = {
    "nii": ".nii", "nii.gz": ".nii.gz", "mha": ".mha", "mha zlib": ".mha", "nrrd": ".nrrd",
    "nrrd gzip": ".nrrd", "nrrd bzip2": ".nrrd", "png": ".png", "tif": ".tif",
    "tif deflate": ".tif", "dcm": ".dcm", "nii placed": ".nii", "nii.gz 4d": ".nii.gz",
    "mha 4d": ".mha", "tif pages": ".tif", "dcm enhanced": ".dcm", "dcm rle": ".dcm",
    "dcm jpeg": ".dcm",
}  # fmt: skip
FORMATS = tuple(_NAMES)[:11]

#: These take longer, and show less that is new.
MORE_FORMATS = tuple(_NAMES)[11:]

#: Formats in which a checksum covers the voxels: others may only be read as they are.
CHECKED = (
    "nii.gz", "mha zlib", "nrrd gzip", "nrrd bzip2", "png", "tif deflate", "nii.gz 4d",
)  # fmt: skip

# The last bytes of these are voxels that nothing checks: only what is before is damaged, and
# only where a header gives its numbers twice can a wrong one be told.
_PLAIN = {
    "nii": 420, "mha": 420, "nrrd": 420, "dcm": 8000, "nii placed": 420, "mha 4d": 1260,
    "dcm enhanced": 3600,
}  # fmt: skip

_WORDS = (
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\0\0\0\x80", b"\xff\x7f",
    b"-1", b"0", b"99999999", b"nan", b"inf", b"1e30", b"1e-30", b"%n", b"../", b"\n",
)  # fmt: skip


def sound(form: str, folder: Path) -> bytes:
    """A small scan of a format."""
    path = folder / f"sound{_NAMES[form]}"
    if form == "dcm":
        write_dicom(path, np.arange(4000).reshape(50, 80))
    elif form.startswith("dcm "):
        _write_object(form, path)
    elif form == "nii placed":
        _write_placed(path)
    elif form.endswith(" 4d"):
        volumes = [random_image(seed=seed) for seed in range(3)]
        sitk.WriteImage(sitk.JoinSeries(volumes), str(path), useCompression=".gz" in path.name)
    elif form == "tif pages":
        import tifffile

        pixels = np.random.default_rng(0).integers(0, 60000, (3, 20, 30)).astype(np.uint16)
        tifffile.imwrite(path, pixels, photometric="minisblack")
    elif form in ("png", "tif"):
        sitk.WriteImage(random_image((15, 15), np.uint8), str(path))
    elif form == "tif deflate":
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8)
        Image.fromarray(pixels).save(path, compression="tiff_deflate")
    else:
        packed = form in ("mha zlib", "nrrd gzip")
        sitk.WriteImage(random_image(), str(path), useCompression=packed)
    data = path.read_bytes()
    if path.name.endswith(".nii.gz"):
        data = gzip.compress(gzip.decompress(data), mtime=0)
    if form == "nrrd bzip2":
        data = data[:-420].replace(b"raw", b"bzip2") + bz2.compress(data[-420:])
    return data


def _write_object(form: str, path: Path) -> None:
    """Write an enhanced or a compressed DICOM object."""
    from pydicom.uid import RLELossless

    from dicom_files import dataset, enhanced, frame_groups, save

    pixels = np.random.default_rng(0).integers(0, 4000, (6, 20, 15)).astype(np.uint16)
    if form == "dcm enhanced":
        enhanced(path, pixels, [frame_groups(3 * height) for height in range(6)])
        return
    place = {
        "PixelSpacing": [2, 1], "SliceThickness": 3, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0],
    }  # fmt: skip
    if form == "dcm rle":
        out = dataset(pixels[0], **place)
        out.compress(RLELossless, generate_instance_uid=False)
        save(out, path)
        return
    image = sitk.GetImageFromArray(pixels[:1])
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


def _write_placed(path: Path) -> None:
    """Write a NIfTI file with both forms, a slope and an intercept."""
    import nibabel as nib

    values = sitk.GetArrayFromImage(random_image()).T.astype(np.float32) / 7 + 3
    affine = np.array([[0.0, -0.75, 0, 10], [0.5, 0, 0, 20], [0, 0, 2, -30], [0, 0, 0, 1]])
    image = nib.Nifti1Image(values, affine)
    image.set_data_dtype(np.int16)
    image.set_qform(affine, 1)
    image.set_sform(affine, 2)
    nib.save(image, path)


def damaged(form: str, data: bytes, number: int) -> bytes:
    """A damaged copy, the same for the same number."""
    rng = random.Random(number)
    end = len(data) - _PLAIN.get(form, 0)
    out = bytearray(data)
    place = rng.randrange(end)
    kind = rng.choice(["bit", "bit", "byte", "word", "cut", "longer", "zeros", "less", "twice"])
    if kind == "bit":
        out[place] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        out[place] = rng.randrange(256)
    elif kind == "word":
        word = rng.choice(_WORDS)
        out[place : place + len(word)] = word
    elif kind == "cut":
        del out[rng.randrange(len(out)) :]
    elif kind == "longer":
        out += rng.randbytes(rng.choice([1, 60, 420, 4096]))
    elif kind == "zeros":
        last = min(end, place + rng.choice([4, 40]))
        out[place:last] = bytes(last - place)
    elif kind == "less":
        del out[place : min(end, place + rng.choice([1, 4, 16]))]
    else:
        out[place:place] = out[place : place + rng.choice([1, 4, 16])]
    return bytes(out)


def read_all(form: str, copies: list[bytes], folder: Path, seconds: float = 60) -> list[tuple]:
    """Read copies in one process of its own; a result each, or fewer where it died."""
    job = pickle.dumps((str(folder / f"scan{_NAMES[form]}"), copies))
    done = subprocess.run(
        [sys.executable, __file__], input=job, capture_output=True, timeout=seconds, check=False
    )
    out, stream = [], io.BytesIO(done.stdout)
    while stream.tell() < len(done.stdout):
        out.append(pickle.load(stream))
    if done.returncode:
        out.append(("ended", f"{done.returncode} {done.stderr[-300:]!r}"))
    return out


def _child() -> None:
    import resource

    from napari_dino_uad.core.errors import InputError
    from napari_dino_uad.core.scans.volume import read_volume

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    name, copies = pickle.load(sys.stdin.buffer)
    path = Path(name)
    for copy in copies:
        path.write_bytes(copy)
        try:
            volume = read_volume(path, allow_constant=True)
            result = ("read", volume.array, volume.spacing_mm, volume.notices)
        except InputError as error:
            result = ("refused", str(error))
        except BaseException as error:  # noqa: BLE001  # what must not come
            result = ("failed", repr(error))
        pickle.dump(result, sys.stdout.buffer)
        sys.stdout.flush()


if __name__ == "__main__":
    _child()
