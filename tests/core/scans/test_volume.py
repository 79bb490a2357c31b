import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.canonical import volume_from_stored
from napari_dino_uad.core.scans.volume import (
    case_name,
    find_scans,
    read_stack,
    read_volume,
    to_file_grid,
    volume_from_array,
    write_volume,
)
from scan_files import DATA, random_image, real_scan, rotation

SIGNED_AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def direction_of(order, signs):
    matrix = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[world, axis] = sign
    return matrix


def same_geometry(one, other, **tolerance):
    assert one.GetSize() == other.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(one, get)(), getattr(other, get)(), **tolerance)


def world_of_brightest(image):
    """Where the brightest voxel lies, in RAS mm, by SimpleITK alone."""
    array = sitk.GetArrayFromImage(image)
    z, y, x = np.unravel_index(array.argmax(), array.shape)
    left, posterior, superior = image.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))
    return -left, -posterior, superior


@pytest.mark.parametrize("residual", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.15)])
@pytest.mark.parametrize(("order", "signs"), SIGNED_AXES)
def test_every_orientation_comes_back_bit_for_bit(tmp_path, order, signs, residual):
    image = random_image()
    image.SetDirection((rotation(residual) @ direction_of(order, signs)).ravel().tolist())
    stored = sitk.GetArrayFromImage(image)
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)

    assert np.diag(volume.direction).min() > 0.8  # Canonical, but for the residual rotation.
    assert volume.shape == tuple(np.array((7, 6, 5))[np.argsort(order)][::-1])
    peak = np.unravel_index(volume.array.argmax(), volume.shape)
    np.testing.assert_allclose(volume.to_ras_mm(peak), world_of_brightest(image), atol=1e-9)

    back = to_file_grid(volume.array.astype(np.int16), volume)
    assert np.array_equal(sitk.GetArrayFromImage(back), stored)
    # NRRD writes its numbers in full, so that what was read is exact.
    source = sitk.ReadImage(str(path))
    for get in ("GetSpacing", "GetOrigin", "GetDirection", "GetPixelID"):
        assert getattr(back, get)() == getattr(source, get)()


def test_two_axes_that_lean_to_the_same_side_come_back():
    for seed in range(20):
        angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, 3)
        image = random_image()
        image.SetDirection(rotation(angles).ravel().tolist())
        place = image.GetSpacing(), image.GetOrigin(), image.GetDirection()
        volume = volume_from_stored(sitk.GetArrayFromImage(image), *place, "scan")
        back = to_file_grid(volume.array, volume)
        assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
        peak = np.unravel_index(volume.array.argmax(), volume.shape)
        np.testing.assert_allclose(volume.to_ras_mm(peak), world_of_brightest(image), atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".NII.GZ", ".MHA"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_written_on_the_grid_of_the_file(tmp_path, suffix, dtype):
    image = random_image()
    image.SetDirection((rotation() @ direction_of((2, 0, 1), (-1, 1, -1))).ravel().tolist())
    source = tmp_path / "source.nii"
    sitk.WriteImage(image, str(source))
    volume = read_volume(source)
    labels = (volume.array > 100).astype(dtype)
    target = tmp_path / "deeper" / f"labels{suffix}"
    write_volume(target, labels, volume)

    again = read_volume(target)
    assert np.array_equal(again.array, labels)
    np.testing.assert_allclose(again.spacing_mm, volume.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(again.origin_mm, volume.origin_mm, rtol=1e-5)
    if suffix.islower():
        written, original = sitk.ReadImage(str(target)), sitk.ReadImage(str(source))
        same_geometry(written, original, rtol=1e-5, atol=1e-6)
        assert sitk.GetArrayFromImage(written).dtype == dtype
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]


def test_bool_and_half_are_written_as_file_types(tmp_path):
    volume = volume_from_array(np.arange(24.0).reshape(2, 3, 4))
    for dtype, expected in ((bool, np.uint8), (np.float16, np.float32), (">i2", np.int16)):
        write_volume(tmp_path / "a.nii.gz", volume.array.astype(dtype), volume)
        stored = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")))
        assert stored.dtype == expected
        assert np.array_equal(stored, volume.array.astype(dtype))


def test_failed_write_keeps_the_file(tmp_path):
    volume = volume_from_array(np.arange(24.0).reshape(2, 3, 4))
    target = tmp_path / "a.nii.gz"
    write_volume(target, volume.array, volume)
    before = target.read_bytes()
    with pytest.raises(InputError, match=r"2 x 3 x 4.*got 1 x 3 x 4"):
        write_volume(target, volume.array[:1], volume)
    with pytest.raises(InputError, match="unknown ending"):
        write_volume(tmp_path / "a.jpg", volume.array, volume)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_volume(tmp_path / "file" / "a.nii.gz", volume.array, volume)
    assert target.read_bytes() == before
    write_volume(target, volume.array + 1, volume)
    assert np.array_equal(read_volume(target).array, volume.array + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "file"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".tif"])
def test_formats(tmp_path, suffix):
    image = random_image()
    path = tmp_path / f"sub-01.5_flair{suffix}"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    assert volume.name == "sub-01.5_flair"
    assert volume.path == path
    assert volume.array.dtype == np.float32
    assert volume.array.flags.c_contiguous and volume.array.flags.writeable
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    if suffix != ".tif":
        assert volume.spacing_mm == (2.0, 0.75, 0.5)
        assert volume.origin_mm == (30.5, 20.0, -10.0)
    assert not volume.is_2d
    assert volume.spacing_known == (suffix != ".tif")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".tif", ".png", ".tiff"])
def test_endings_in_capital_letters(tmp_path, suffix):
    image = random_image((7, 6) if suffix == ".png" else (7, 6, 5), np.uint8)
    sitk.WriteImage(image, str(tmp_path / f"small{suffix}"))
    path = tmp_path / f"CAPITAL{suffix.upper()}"
    shutil.copy(tmp_path / f"small{suffix}", path)
    volume = read_volume(path)
    assert volume.name == "CAPITAL"
    assert np.array_equal(np.squeeze(volume.array), sitk.GetArrayFromImage(image))


def test_scaled_and_big_endian_and_unpacked_nifti(tmp_path):
    """The checksum of what was compressed is not that of the array: read twice, but read."""
    nibabel = pytest.importorskip("nibabel")
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(array, np.diag([-1, -1, 1, 1]))
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    stored = nibabel.load(tmp_path / "scaled.nii.gz").get_fdata()
    np.testing.assert_allclose(read_volume(tmp_path / "scaled.nii.gz").array, stored.T, rtol=1e-6)

    big = nibabel.Nifti1Image(array, np.diag([-1, -1, 1, 1]), nibabel.Nifti1Header(endianness=">"))
    nibabel.save(big, tmp_path / "big.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "big.nii.gz").array, array.T)

    nibabel.save(big, tmp_path / "plain.nii")
    (tmp_path / "plain.nii").rename(tmp_path / "misnamed.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "misnamed.nii.gz").array, array.T)


def test_grey_png_in_colour_channels_is_grey(tmp_path):
    grey = random_image((7, 6), np.uint8)
    for count in (3, 4):
        sitk.WriteImage(sitk.Compose([grey] * count), str(tmp_path / "grey.png"))
        volume = read_volume(tmp_path / "grey.png")
        assert volume.is_2d
        assert np.array_equal(volume.array[0], sitk.GetArrayFromImage(grey))


def test_a_2d_image_and_its_way_back(tmp_path):
    image = random_image((7, 6), np.uint8)
    sitk.WriteImage(image, str(tmp_path / "image.png"))
    volume = read_volume(tmp_path / "image.png")
    assert volume.shape == (1, 6, 7)
    assert volume.is_2d
    write_volume(tmp_path / "mask.nii.gz", volume.array > 20, volume)
    mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    assert mask.GetSize() == (7, 6)
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image) > 20)
    assert np.array_equal(read_volume(tmp_path / "mask.nii.gz").array, volume.array > 20)


def test_pictures_have_no_spacing(tmp_path):
    image = random_image((7, 6), np.uint8)
    image.SetSpacing((0.3, 0.6))
    sitk.WriteImage(image, str(tmp_path / "image.tif"))
    volume = read_volume(tmp_path / "image.tif")
    assert not volume.spacing_known
    assert volume.spacing_mm == pytest.approx((1, 2, 1), rel=1e-3)
    (tmp_path / "stack").mkdir()
    sitk.WriteImage(image, str(tmp_path / "stack" / "1.png"))
    sitk.WriteImage(image, str(tmp_path / "stack" / "2.png"))
    assert not read_volume(tmp_path / "stack").spacing_known
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    known = read_volume(tmp_path / "image.mha")
    assert known.spacing_known and known.is_2d and known.spacing_mm[1:] == (0.6, 0.3)


@pytest.mark.parametrize(("order", "signs"), SIGNED_AXES)
def test_one_slice_of_any_plane_is_an_image(tmp_path, order, signs):
    image = random_image((7, 6, 1))
    image.SetDirection(direction_of(order, signs).ravel().tolist())
    path = tmp_path / "slice.nrrd"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    assert volume.is_2d
    assert volume.shape[0] == 1
    across = order[2]  # The world axis x, y, z that the slice was cut across.
    rows, cols = np.round(volume.direction).T[1:]
    head, front_back, right_left = np.eye(3)
    expected = {
        2: (front_back, right_left),
        1: (-head, right_left),
        0: (-head, front_back),
    }[across]
    assert np.array_equal([rows, cols], expected)
    peak = np.unravel_index(volume.array.argmax(), volume.shape)
    np.testing.assert_allclose(volume.to_ras_mm(peak), world_of_brightest(image), atol=1e-9)
    back = to_file_grid(volume.array, volume)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    same_geometry(back, sitk.ReadImage(str(path)))


def test_a_stack_of_images_in_the_order_of_their_numbers(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (12, 6, 7)).astype(np.uint8)
    for index in range(12):
        suffix = ".png" if index % 2 else ".PNG"
        sitk.WriteImage(sitk.GetImageFromArray(array[index]), str(tmp_path / "one.png"))
        (tmp_path / "one.png").rename(tmp_path / f"slice{index}{suffix}")
    volume = read_volume(tmp_path)
    assert volume.name == tmp_path.name
    assert np.array_equal(volume.array, array)
    reversed_names = [str(path) for path in sorted(tmp_path.iterdir(), reverse=True)]
    assert np.array_equal(read_stack(reversed_names).array, array)


def test_a_folder_with_one_paged_tiff(tmp_path):
    image = random_image()
    sitk.WriteImage(image, str(tmp_path / "pages.tif"))
    volume = read_volume(tmp_path)
    assert volume.path == tmp_path
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    sitk.WriteImage(image, str(tmp_path / "more.tif"))
    assert find_scans([tmp_path]) == [tmp_path / "more.tif", tmp_path / "pages.tif"]


def test_values_without_number(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4) + 1
    array[0, 0, 0], array[0, 0, 1], array[0, 0, 2] = np.nan, np.inf, -np.inf
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "gaps.nii.gz"))
    assert read_volume(tmp_path / "gaps.nii.gz").array[0, 0, :4].tolist() == [4, 4, 4, 4]
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "gaps.nrrd"))
    volume = read_volume(tmp_path / "gaps.nrrd")
    assert volume.array[0, 0, :3].tolist() == [4.0, 4.0, 4.0]
    assert volume.notices == (
        "gaps has 3 voxels of NaN or infinity; the lowest value, 4, takes their place.",
    )
    assert np.array_equal(volume.array[1:], array[1:])


def test_volume_from_array():
    volume = volume_from_array(np.arange(6).reshape(2, 3), (1, 0.5, 0.25), (0, 5, 6), "layer")
    assert volume.is_2d and volume.shape == (1, 2, 3)
    assert to_file_grid(volume.array, volume).GetSize() == (3, 2)
    volume = volume_from_array(np.arange(24).reshape(2, 3, 4), (3, 0.5, 0.25), (7, 5, 6))
    assert volume.to_ras_mm((1, 1, 1)) == (-6.25, -5.5, 10.0)
    image = to_file_grid(volume.array, volume)
    assert image.GetSpacing() == (0.25, 0.5, 3.0)
    assert image.GetOrigin() == (6.0, 5.0, 7.0)
    for bad, match in (
        (np.zeros((2, 2, 2, 2)), "4 dimensions"),
        (np.zeros((0, 2, 2)), "no voxels"),
        (np.ones((2, 2, 2)), "value 1 in every voxel"),
        (np.ones((2, 2, 2)) * 1j, "complex"),
    ):
        with pytest.raises(InputError, match=match):
            volume_from_array(bad)
    with pytest.raises(InputError, match="spacing of image must be above 0"):
        volume_from_array(np.arange(8).reshape(2, 2, 2), (1, 0, 1))


def test_find_scans(tmp_path):
    image = random_image()
    flat = random_image((7, 6), np.uint8)
    for name in ("a/x_flair.nii.gz", "a/x_lesion.nii.gz", "b/deep/y_flair.nii.gz", "a/._x.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(tmp_path / name))
    (tmp_path / "c").mkdir()
    for index in range(3):
        sitk.WriteImage(flat, str(tmp_path / "c" / f"{index}.png"))
    (tmp_path / "notes.txt").write_text("no scan")
    found = [path.relative_to(tmp_path).as_posix() for path in find_scans([tmp_path])]
    assert found == ["a/x_flair.nii.gz", "a/x_lesion.nii.gz", "b/deep/y_flair.nii.gz", "c"]
    flairs = find_scans([tmp_path, tmp_path / "a" / "x_flair.nii.gz"], "*_flair.nii.gz")
    assert [path.name for path in flairs] == ["x_flair.nii.gz", "y_flair.nii.gz"]
    with pytest.raises(InputError, match=r"matching '\*_t1.nii'"):
        find_scans([tmp_path], "*_t1.nii")
    with pytest.raises(InputError, match="no file or folder"):
        find_scans([tmp_path / "missing"])


def test_case_name(tmp_path):
    (tmp_path / "folder.dcm").mkdir()
    assert case_name(tmp_path / "folder.dcm") == "folder.dcm"
    assert case_name(tmp_path / "sub-01.v2_T1w.nii.gz") == "sub-01.v2_T1w"
    assert case_name(tmp_path / "Scan.NRRD") == "Scan"
    assert case_name(tmp_path / "IM0001") == "IM0001"


def test_reading_imports_neither_torch_nor_a_window(tmp_path):
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(random_image(), str(path))
    code = (
        "import sys; from napari_dino_uad.core.scans.volume import read_volume; "
        "before = 'SimpleITK' in sys.modules; "
        f"read_volume({str(path)!r}); "
        "heavy = {'torch', 'timm', 'sklearn', 'napari', 'qtpy', 'tqdm'} & set(sys.modules); "
        "print(before, sorted(heavy))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert out.stdout.split("\n")[0] == "False []"


REAL = [
    "glioma/oblique_native_flair.nii.gz",
    "glioma/fg6692_flair.nii.gz",
    "glioma/fg6692_lesion_consensus.nii.gz",
    "t1_controls/sub-52_T1w.nii.gz",
    "ms/patient19_flair.nii.gz",
]


@pytest.mark.parametrize("name", REAL)
def test_real_scans_come_back(tmp_path, name):
    path = real_scan(name)
    source = sitk.ReadImage(str(path))
    volume = read_volume(path)
    assert np.diag(volume.direction).min() > 0.9
    stored = sitk.GetArrayFromImage(source)
    target = tmp_path / "copy.nii.gz"
    write_volume(target, volume.array.astype(stored.dtype), volume)
    written = sitk.ReadImage(str(target))
    assert np.array_equal(sitk.GetArrayFromImage(written), stored)
    assert written.GetPixelID() == source.GetPixelID()
    same_geometry(written, source, rtol=1e-5, atol=1e-5)


def test_real_oblique_scan_lies_where_its_header_says():
    path = real_scan("glioma/oblique_native_flair.nii.gz")
    volume, source = read_volume(path), sitk.ReadImage(str(path))
    assert volume.shape == (26, 256, 208)
    np.testing.assert_allclose(volume.spacing_mm, (5.5, 0.8984375, 0.8984375), rtol=1e-6)
    rng = np.random.default_rng(0)
    for index in rng.integers(0, volume.shape, (20, 3)):
        right, front, head = volume.to_ras_mm(index)
        x, y, z = source.TransformPhysicalPointToIndex((-right, -front, head))
        assert volume.array[tuple(index)] == source[x, y, z]


def test_real_neighbours_agree_on_where_the_head_is():
    """One patient, twice: on her own oblique grid and resampled to the atlas's."""
    means = []
    for name in REAL[:2]:
        volume = read_volume(real_scan(name))
        bright = volume.array > np.percentile(volume.array, 75)
        top = bright[-bright.shape[0] // 8 :]
        middle = bright[bright.shape[0] // 3 : bright.shape[0] // 2]
        means.append(bool(top.mean() < middle.mean()))
    assert means == [True, True]  # The top of the head holds less of it than the middle.


def test_real_images():
    volume = read_volume(real_scan("oct/img/img_4.png"))
    assert volume.is_2d and volume.shape == (1, 496, 768)
    assert len(find_scans([DATA / "oct" / "img"], "*.png")) == 55


def test_a_series_is_chosen_from_dicom(tmp_path):
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(random_image(), str(path))
    with pytest.raises(InputError, match="from a folder or a DICOM file"):
        read_volume(path, series="1.2.3")
    with pytest.raises(InputError, match="open volumes one by one"):
        read_stack([path, path])
