"""Each kind of bad input gives one clear sentence."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.volume import read_volume
from scan_files import random_image, write_dicom


def refused(path, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        read_volume(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 400
    return message


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return sitk.GetImageFromArray(rng.integers(0, 999, (20, 30, 40)).astype(np.int16))


def truncate(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".dcm", ".png", ".tif", ""])
def test_not_an_image(tmp_path, suffix):
    path = tmp_path / f"letter{suffix}"
    path.write_text("Dear colleague, " * 100)
    refused(path, f"letter{suffix} (cannot be read as an image; expected|is truncated)")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".dcm", ".png"])
def test_empty_file(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    path.touch()
    refused(path, "is empty; copy or export the file again")


@pytest.mark.parametrize("share", [0.0001, 0.02, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".tif"])
def test_truncated(tmp_path, image, suffix, share):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path))
    truncate(path, share)
    refused(path, "truncated|cannot be read")


def test_truncated_by_one_byte_or_within_the_header(tmp_path, image):
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"scan{suffix}"
        for keep in (-1, -9, 300, 20, 3):
            sitk.WriteImage(image, str(path))
            path.write_bytes(path.read_bytes()[:keep])
            refused(path, "truncated|cannot be read")


@pytest.mark.parametrize("suffix", [".dcm", ".png"])
def test_truncated_slices(tmp_path, suffix):
    path = tmp_path / f"slice{suffix}"
    if suffix == ".dcm":
        write_dicom(path, np.arange(4000).reshape(50, 80))
    else:
        sitk.WriteImage(random_image((15, 15), np.uint8), str(path))
    truncate(path)
    refused(path, "cannot be read as an image")


def test_a_damaged_byte_in_a_compressed_file(tmp_path, image):
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(image, str(path), useCompression=True)
    whole = path.read_bytes()
    for place in np.linspace(400, len(whole) - 40, 12).astype(int):
        data = bytearray(whole)
        data[place] ^= 0x55
        path.write_bytes(data)
        refused(path, "truncated or damaged|cannot be read")
    path.write_bytes(whole)
    read_volume(path)


def test_a_file_compressed_in_parts_is_whole(tmp_path, image):
    path = tmp_path / "scan.nii"
    sitk.WriteImage(image, str(path))
    data = path.read_bytes()
    parts = tmp_path / "parts.nii.gz"
    parts.write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
    assert np.array_equal(read_volume(parts).array, read_volume(path).array)
    truncate(parts)
    refused(parts, "truncated or damaged")


def test_four_dimensions(tmp_path, image):
    path = tmp_path / "bold.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(path))
    volume = read_volume(path)
    assert volume.shape == (20, 30, 40)
    assert volume.notices[0].startswith("bold.nii.gz has 2 volumes; volume 1 is read")
    refused(path, "bold.nii.gz has volumes 1 to 2, got volume 3; choose one", volume=3)
    sitk.WriteImage(sitk.JoinSeries([image]), str(path))
    assert read_volume(path).shape == (20, 30, 40)


def test_colour_and_vectors(tmp_path):
    channels = [random_image(dtype=np.uint8, seed=seed) for seed in range(3)]
    path = tmp_path / "photo.nrrd"
    sitk.WriteImage(sitk.Compose(channels), str(path))
    refused(path, "photo.nrrd has 3 values in every voxel .a colour image.*convert it to greyscale")
    sitk.WriteImage(sitk.Compose([random_image(dtype=np.float32)] * 3), str(tmp_path / "warp.nii"))
    refused(tmp_path / "warp.nii", "a vector field")
    (tmp_path / "folder").mkdir()
    sitk.WriteImage(sitk.Compose(channels), str(tmp_path / "folder" / "1.png"))
    sitk.WriteImage(sitk.Compose(channels), str(tmp_path / "folder" / "2.png"))
    refused(tmp_path / "folder", r"1\.png is in colour, and pictures in colour are no slices")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_at_all(tmp_path, suffix, value):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), value, np.float32)), str(path))
    refused(path, "no finite number|value 0 or NaN in every voxel")


def test_constant(tmp_path):
    path = tmp_path / "scan.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), 7, np.int16)), str(path))
    refused(path, "scan has the value 7 in every voxel, but an image with contrast is expected")
    assert read_volume(path, allow_constant=True).array.max() == 7


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 3.4e38), (np.float64, -1e300)])
def test_fill_values(tmp_path, dtype, value):
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    array[0, 0, 0] = value
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "scan.nrrd"))
    refused(tmp_path / "scan.nrrd", r"holds the value .*e\+3.*replace the fill value by 0")


def test_large_values_that_are_grey_values(tmp_path):
    array = np.linspace(0, 1e12, 24).reshape(2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "scan.nrrd"))
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nrrd").array, array, rtol=1e-6)


def test_damaged_axes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[0, 1] = 0.5
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    image.set_sform(affine, 2)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "sheared.nii")
    refused(tmp_path / "sheared.nii", "not at right angles")


def test_header_without_its_data(tmp_path, image):
    path = tmp_path / "scan.mhd"
    sitk.WriteImage(image, str(path))
    (tmp_path / "scan.raw").unlink()
    refused(path, "with its data file beside it")


def test_folders_that_are_no_scan(tmp_path):
    refused(tmp_path / "missing", "no file or folder .*missing; check the path")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is empty; choose one with slices")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("notes")
    refused(tmp_path / "texts", "holds no DICOM series and no PNG or TIFF slices")
    refused(tmp_path / "texts", "holds no DICOM series; check", series="1.2.3")
    sitk.WriteImage(random_image(), str(tmp_path / "texts" / "a.nii"))
    sitk.WriteImage(random_image(), str(tmp_path / "texts" / "b.nii"))
    refused(tmp_path / "texts", "has 2 scan files, such as a.nii; choose one of them")


def test_a_stack_of_different_sizes(tmp_path):
    sitk.WriteImage(random_image((7, 6), np.uint8), str(tmp_path / "1.png"))
    sitk.WriteImage(random_image((6, 7), np.uint8), str(tmp_path / "2.png"))
    refused(tmp_path, "one size, but 1.png is 7 x 6 and 2.png is 6 x 7; move other images out")
