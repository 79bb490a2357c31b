"""NIfTI files as scanners and other programs write them, compared with nibabel."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.image_files import read_image
from napari_dino_uad.core.scans.volume import read_volume, write_volume

nibabel = pytest.importorskip("nibabel")

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique(spacing=(1.0, 2.0, 3.0), origin=(5.0, 6.0, 7.0)) -> np.ndarray:
    cos, sin = np.cos(0.4), np.sin(0.4)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) * spacing
    affine[:3, 3] = origin
    return affine


def save(path, array, sform=None, qform=None, codes=(1, 1), kind=nibabel.Nifti1Image, unit="mm"):
    """Write an array (x, y, z) with both forms."""
    image = kind(array, np.eye(4))
    image.set_sform(sform, codes[1])
    image.set_qform(sform if qform is None else qform, codes[0])
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def values(shape=(6, 5, 4), dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(dtype)


def affine_of(path) -> np.ndarray:
    image = read_image(path)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.direction, (3, 3)) * image.spacing
    affine[:3, 3] = image.origin
    return _LPS @ affine


def patch(path, place, form, *numbers):
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(form, *numbers))
    return path


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0), (2, 4)])
def test_the_form_that_counts_is_nibabels(tmp_path, codes):
    path = save(tmp_path / "scan.nii", values(), oblique(), oblique(origin=(1, 2, 3)), codes)
    expected = nibabel.load(path)
    np.testing.assert_allclose(affine_of(path), expected.affine, atol=1e-5)
    assert np.array_equal(read_image(path).values, np.asarray(expected.dataobj).transpose(2, 1, 0))


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0), (2, 4)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_results_carry_both_forms_of_the_scan(tmp_path, codes, kind):
    qform = oblique(origin=(1, 2, 3))
    path = save(tmp_path / "scan.nii.gz", values(), oblique(), qform, codes, kind, "micron")
    volume = read_volume(path)
    write_volume(tmp_path / "out.nii.gz", volume.array > 60, volume)
    written, scan = nibabel.load(tmp_path / "out.nii.gz"), nibabel.load(path)
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
    assert written.header.get_xyzt_units()[0] == "micron"
    for name in ("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_y", "pixdim"):
        ours, theirs = written.header[name], scan.header[name]
        np.testing.assert_allclose(np.ravel(ours)[:4], np.ravel(theirs)[:4], atol=1e-6)
    assert np.array_equal(np.asarray(written.dataobj) > 0, np.asarray(scan.dataobj) > 60)


def test_forms_that_disagree_are_a_notice(tmp_path):
    moved = oblique(origin=(15, 6, 7))
    volume = read_volume(save(tmp_path / "scan.nii", values(), oblique(), moved))
    assert volume.notices == (
        "scan.nii has a qform and an sform that differ by up to 10 mm; the sform is used, as in "
        "FSL, SPM, AFNI and FreeSurfer, and results carry both.",
    )
    near = oblique(origin=(5.4, 6, 7))
    assert read_volume(save(tmp_path / "scan.nii", values(), oblique(), near)).notices == ()


def test_without_forms_left_and_right_are_in_doubt(tmp_path):
    volume = read_volume(save(tmp_path / "scan.nii", values(), oblique(), codes=(0, 0)))
    assert "neither sform nor qform" in volume.notices[0]


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000), ("mm", 1), ("micron", 1e-3)])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0)])
def test_units_of_the_header(tmp_path, unit, mm, codes):
    spacing = np.array([0.1, 0.2, 0.3])
    path = save(tmp_path / "scan.nii", values(), oblique(spacing), codes=codes, unit=unit)
    assert read_volume(path).spacing_mm == pytest.approx(tuple(spacing[::-1] * mm), rel=1e-5)


def test_nifti_2_opens_in_either_byte_order(tmp_path):
    array = values(dtype=np.int16)
    for order in "<>":
        header = nibabel.Nifti2Header(endianness=order)
        image = nibabel.Nifti2Image(array.astype(f"{order}i2"), oblique(), header)
        nibabel.save(image, tmp_path / "scan.nii.gz")
        image = read_image(tmp_path / "scan.nii.gz")
        assert np.array_equal(image.values, array.transpose(2, 1, 0))
        np.testing.assert_allclose(affine_of(tmp_path / "scan.nii.gz"), oblique(), atol=1e-9)


def test_axes_off_a_right_angle_by_rounding_open(tmp_path):
    affine = oblique()
    affine[:3, :3] += 2e-4 * np.random.default_rng(0).standard_normal((3, 3))
    path = save(tmp_path / "scan.nii", values(), affine, codes=(0, 1))
    volume = read_volume(path)
    assert volume.notices == ()
    np.testing.assert_allclose(volume.direction.T @ volume.direction, np.eye(3), atol=1e-12)
    for name in ("out.nii", "out.nrrd"):
        write_volume(tmp_path / name, volume.array, volume)
        # The file's own matrix is kept.
        np.testing.assert_allclose(affine_of(tmp_path / name), affine, atol=1e-6)


def test_axes_that_shift_a_corner_are_a_notice(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    affine[0, 1] = 0.008
    path = save(tmp_path / "scan.nii", values((8, 200, 4)), affine, codes=(0, 1))
    assert "0.5 degrees off a right angle" in read_volume(path).notices[0]


def test_sheared_axes_are_refused(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    affine[0, 1] = 0.3
    with pytest.raises(InputError, match="not at right angles"):
        read_volume(save(tmp_path / "scan.nii", values(), affine, codes=(0, 1)))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nan_and_infinity_become_the_lowest_value(tmp_path, suffix):
    array = values() + 7
    array[0, 0, 0], array[1, 0, 0], array[2, 0, 0] = np.nan, np.inf, -np.inf
    path = save(tmp_path / f"scan{suffix}", array, np.diag([-1.0, -1, 1, 1]))
    volume = read_volume(path)
    lowest = np.nanmin(np.where(np.isfinite(array), array, np.nan))
    assert (volume.array[0, 0, :3] == lowest).all()
    assert volume.notices == (
        f"scan has 3 voxels of NaN or infinity; the lowest value, {lowest:g}, takes their place.",
    )


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_of_0_leaves_values_as_they_are(tmp_path, slope):
    array = values(dtype=np.int16)
    path = save(tmp_path / "scan.nii", array, np.eye(4))
    patch(path, 112, "<2f", slope, 100.0)
    assert np.array_equal(read_image(path).values, array.transpose(2, 1, 0))


def test_slope_and_intercept_in_double_precision(tmp_path):
    array = values(dtype=np.int32) + 2**24
    path = save(tmp_path / "scan.nii", array, np.eye(4))
    patch(path, 112, "<2f", 0.5, -(2.0**23))
    expected = np.asarray(nibabel.load(path).dataobj)
    assert np.array_equal(read_image(path).values, expected.transpose(2, 1, 0))


def test_pixdim_of_0_is_unknown_spacing(tmp_path):
    path = save(tmp_path / "scan.nii", values(), np.eye(4), codes=(1, 0))
    patch(path, 80, "<3f", 0.5, 0.5, 0.0)
    volume = read_volume(path)
    assert not volume.spacing_known
    assert volume.notices == ("scan.nii has no voxel size in its header; sizes are in pixels.",)
    # The sform has the size of a voxel in itself.
    path = save(tmp_path / "scan.nii", values(), oblique(), codes=(0, 1))
    patch(path, 80, "<3f", 0.0, 0.0, 0.0)
    assert read_volume(path).spacing_mm == pytest.approx((3, 2, 1))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("scaled", [False, True])
def test_one_volume_of_several(tmp_path, suffix, scaled):
    array = values((6, 5, 4, 3), np.float32 if scaled else np.int16)
    image = nibabel.Nifti1Image(array, oblique())
    if scaled:
        image.set_data_dtype(np.uint8)
    path = tmp_path / f"scan{suffix}"
    nibabel.save(image, path)
    expected = np.asarray(nibabel.load(path).dataobj)
    for number in (1, 2, 3):
        found = read_image(path, number)
        np.testing.assert_allclose(
            found.values, expected[..., number - 1].transpose(2, 1, 0), rtol=1e-6
        )
        assert found.notices == ()
    assert read_volume(path).notices == (
        f"{path.name} has 3 volumes; volume 1 is read, choose another one if needed.",
    )
    with pytest.raises(InputError, match="has volumes 1 to 3, got volume 4; choose one"):
        read_volume(path, volume=4)
    volume = read_volume(path, volume=2)
    write_volume(tmp_path / "out.nii", volume.array, volume)
    assert nibabel.load(tmp_path / "out.nii").shape == (6, 5, 4)


def test_a_single_volume_has_no_second_one(tmp_path):
    path = save(tmp_path / "scan.nii", values(), np.eye(4))
    assert read_volume(path, volume=1).shape == (4, 5, 6)
    with pytest.raises(InputError, match="has a single volume, got volume 2"):
        read_volume(path, volume=2)
    with pytest.raises(InputError, match="expected a file of several volumes, got the folder"):
        read_volume(tmp_path, volume=2)


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_damaged_end_spoils_the_first_volume_too(tmp_path, share):
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values((20, 20, 20, 3)), np.eye(4)), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_volume(path)


def test_grey_in_colour_channels_is_grey(tmp_path):
    colours = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    array = values((6, 5, 4), np.uint8)
    rgb = np.stack([array] * 3, axis=-1).copy().view(colours)[..., 0]
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "scan.nii")
    assert np.array_equal(read_image(tmp_path / "scan.nii").values, array.transpose(2, 1, 0))
    rgb["G"] = 255 - rgb["G"]
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "scan.nii")
    with pytest.raises(InputError, match="3 values in every voxel"):
        read_volume(tmp_path / "scan.nii")


def test_every_file_of_nibabels_own_data(tmp_path):
    from importlib.resources import files

    folder = files("nibabel") / "tests" / "data"
    found = [one for one in folder.iterdir() if one.name.endswith((".nii", ".nii.gz"))]
    if not found:
        pytest.skip("this nibabel has no test data")
    for path in found:
        if path.name == "row_major.dconn.nii":
            with pytest.raises(InputError, match="6 dimensions"):
                read_image(path)
            continue
        image = nibabel.load(path)
        expected = np.asarray(image.dataobj)
        expected = expected[..., 0] if expected.ndim == 4 else expected
        np.testing.assert_allclose(affine_of(path), image.affine, atol=1e-4)
        np.testing.assert_allclose(read_image(path).values, expected.transpose(2, 1, 0), rtol=1e-6)


@pytest.mark.parametrize("lean", [1.0, -1.0])
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_results_of_leaning_slices_lie_where_the_file_lies(tmp_path, lean, flip):
    affine = np.diag([1.0, 2.0, 3.0 * flip, 1.0])
    affine[1, 2] = lean
    array = np.zeros((8, 12, 6), np.float32)
    array[2:6, 4:8, 2:5] = 100
    path = save(tmp_path / "scan.nii", array, affine, codes=(0, 1))
    volume = read_volume(path)
    assert "Gantry tilt" in volume.notices[0]
    write_volume(tmp_path / "out.nii", volume.array.astype(np.float32), volume)
    written = nibabel.load(tmp_path / "out.nii")
    inside = np.argwhere(np.asarray(written.dataobj) > 50)
    centre = nibabel.affines.apply_affine(written.affine, inside.mean(axis=0))
    expected = nibabel.affines.apply_affine(affine, np.argwhere(array > 50).mean(axis=0))
    np.testing.assert_allclose(centre, expected, atol=0.3)
    assert np.array_equal(np.sort(np.abs(written.affine[:3, 2])), np.sort(np.abs(affine[:3, 2])))
