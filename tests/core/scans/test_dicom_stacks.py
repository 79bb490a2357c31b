import math
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from dicom_files import CT, dataset, noise, save, write_slices
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.tiles import csa_tags
from napari_dino_uad.core.scans.grids import match_mask
from napari_dino_uad.core.scans.volume import (
    find_scans,
    list_series,
    read_volume,
    to_file_grid,
    write_volume,
)
from scan_files import rotation


def tilted_axes(tilt: float, turn=None) -> np.ndarray:
    """Directions of columns, rows and the stack, as columns of a matrix."""
    axes = np.array([[1, 0, 0], [0, math.cos(tilt), 0], [0, math.sin(tilt), 1.0]])
    return axes if turn is None else turn @ axes


def smooth(points: np.ndarray) -> np.ndarray:
    """A picture of the world that linear interpolation keeps: a ramp of positions x, y, z."""
    return points @ [1.5, -2.0, 3.0] + 400


def write_ramp(folder, axes, steps, shape=(9, 7), spacing=(2.0, 1.0)):
    """Slices at `steps` along the third of `axes`; stored values are those of the ramp."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    places = [axes[:, 2] * step + [5, 6, 7] for step in steps]
    in_plane = rows[..., None] * spacing[0] * axes[:, 1] + cols[..., None] * spacing[1] * axes[:, 0]
    values = np.stack([smooth(place + in_plane) for place in places])
    return values, write_slices(
        folder,
        np.round(values * 50).astype(np.uint16),
        places,
        [*axes[:, 0], *axes[:, 1]],
        PixelSpacing=list(spacing),
        RescaleSlope="0.02",
        RescaleIntercept="0",
    )


def world(volume) -> np.ndarray:
    index = np.stack(np.mgrid[tuple(slice(0, size) for size in volume.shape)], axis=-1)
    ras = np.array([volume.to_ras_mm(one) for one in index.reshape(-1, 3)])
    return (ras * [-1, -1, 1]).reshape(*volume.shape, 3)


@pytest.mark.parametrize("tilt", [0.3, -0.2])
@pytest.mark.parametrize("turned", [False, True])
def test_a_tilted_stack_is_straightened(tmp_path, tilt, turned):
    axes = tilted_axes(tilt, rotation() if turned else None)
    _, folder = write_ramp(tmp_path, axes, np.arange(12) * 3.0)
    volume = read_volume(folder)
    np.testing.assert_allclose(volume.direction.T @ volume.direction, np.eye(3), atol=1e-5)
    inside = volume.array > volume.array.min()
    # Beyond the outermost slices, half a step has the value of the nearest.
    core = inside[2:-2]
    off = np.abs(volume.array - smooth(world(volume)))[2:-2][core]
    assert core.mean() > 0.6
    assert off.max() < 0.1
    assert volume.notices[0] == (
        f"Gantry tilt of {math.degrees(abs(tilt)):.1f} degrees: resampled onto a straight grid"
    )


def test_a_stack_that_leans_both_ways_is_straightened(tmp_path):
    turn = rotation((0.2, 0.25, 0.1))
    axes = np.column_stack([turn[:, :2], [0, 0, 1.0]])
    _, folder = write_ramp(tmp_path, axes, np.arange(14) * 2.0, shape=(9, 11))
    volume = read_volume(folder)
    inside = volume.array > volume.array.min()
    off = np.abs(volume.array - smooth(world(volume)))
    assert np.median(off[inside]) < 0.1
    assert (off[3:-3, 1:-1, 1:-1][inside[3:-3, 1:-1, 1:-1]] < 0.2).mean() > 0.8


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("gap", [False, True])
def test_results_return_onto_tilted_slices(tmp_path, ending, gap):
    steps = np.array([0, 1, 2, 3, 4, 5, 9, 10] if gap else range(8)) * 3.0
    axes = tilted_axes(0.3, rotation())
    values, folder = write_ramp(tmp_path / "s", axes, steps)
    volume = read_volume(folder)
    write_volume(tmp_path / f"r{ending}", volume.array, volume)
    if ending == ".nii.gz":
        image = nibabel.load(tmp_path / "r.nii.gz")
        affine, array = image.affine, np.asarray(image.dataobj).T
        assert (image.header["qform_code"], image.header["sform_code"]) == (0, 1)
        lps = np.diag([-1, -1, 1, 1]) @ affine
        expected = np.column_stack([axes[:, 0], axes[:, 1] * 2, axes[:, 2] * 3, [5, 6, 7]])
        np.testing.assert_allclose(lps[:3], expected, atol=1e-4)
    else:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"r{ending}")))
    places = np.round(steps / 3).astype(int)
    assert len(array) == places[-1] + 1
    off = np.abs(array[places] - values)
    assert np.median(off) < 0.1
    again = read_volume(tmp_path / f"r{ending}")
    assert again.shape == volume.shape if not gap else again.shape[0] >= volume.shape[0]
    np.testing.assert_allclose(again.to_ras_mm((2, 2, 2)), volume.to_ras_mm((2, 2, 2)), atol=1e-3)


def test_labels_keep_their_values_on_tilted_slices(tmp_path):
    _, folder = write_ramp(tmp_path, tilted_axes(0.3), np.arange(8) * 3.0)
    volume = read_volume(folder)
    labels = np.zeros(volume.shape, np.uint8)
    labels[3:6, 2:6, 1:5] = 7
    back = sitk.GetArrayFromImage(to_file_grid(labels, volume))
    assert back.dtype == np.uint8
    assert set(np.unique(back)) == {0, 7}
    assert back.shape == (8, 9, 7)


def test_uneven_slices_are_interpolated(tmp_path):
    steps = np.array([0, 3, 6.5, 9, 12, 14.5])
    _, folder = write_ramp(tmp_path, np.eye(3), steps)
    volume = read_volume(folder)
    # Half a step beyond the last slice has its value.
    off = np.abs(volume.array - smooth(world(volume)))[:-1]
    assert off.max() < 0.1
    step = volume.spacing_mm[0]
    assert volume.notices == (
        f"Unevenly spaced slices (2.50 to 3.50 mm): resampled to {step:.2f} mm; results are "
        "written on this even grid",
    )
    assert to_file_grid(volume.array, volume).GetSize() == (7, 9, volume.shape[0])


@pytest.mark.parametrize("down", [False, True])
def test_gaps_stay_empty(tmp_path, down):
    """Axes that point to the feet turn the slices round."""
    axes = np.diag([1.0, -1.0, -1.0]) if down else np.eye(3)
    steps = [0, 3, 6, 18, 21, 24]
    _, folder = write_ramp(tmp_path / "s", axes, steps)
    volume = read_volume(folder)
    assert volume.shape[0] == 6
    np.testing.assert_allclose(volume.array, smooth(world(volume)), atol=0.02)
    [notice] = volume.notices
    assert notice == (
        "3 slices are missing, and the gap stays empty: 12.0 mm after slice 3; 3.0 mm are usual"
    )
    write_volume(tmp_path / "r.nii", volume.array, volume)
    again = read_volume(tmp_path / "r.nii")
    full = smooth(world(again))
    empty = (again.array == 0).all(axis=(1, 2))
    assert empty.sum() == 3
    np.testing.assert_allclose(again.array[~empty], full[~empty], atol=0.02)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_a_saved_mask_fits_a_scan_with_gaps(tmp_path, down, tilt):
    axes = tilted_axes(tilt, np.diag([1.0, 1.0, -1.0]) if down else None)
    _, folder = write_ramp(tmp_path / "scan", axes, np.array([0, 1, 2, 6, 7, 8, 9]) * 3.0)
    volume = read_volume(folder)
    assert volume.grid.missing
    mask = (noise(*volume.shape) > 500).astype(np.uint8)
    write_volume(tmp_path / "mask.nii.gz", mask, volume)
    array, note = match_mask(read_volume(tmp_path / "mask.nii.gz", allow_constant=True), volume)
    assert not note and array.shape == volume.shape
    if tilt == 0:
        np.testing.assert_array_equal(array, mask)


def test_slices_beside_the_line_are_refused(tmp_path):
    places = [(0, 0, 0), (9, 0, 3), (0, 9, 6), (9, 9, 9)]
    write_slices(tmp_path, noise(4, 5, 6), places)
    with pytest.raises(InputError, match="Expected parallel slices along one line"):
        read_volume(tmp_path)


def test_each_slice_has_its_own_rescale(tmp_path):
    def each(out, index):
        out.RescaleSlope, out.RescaleIntercept = [1, 0.25, 0.001][index], [0, -1000, 0][index]

    pixels = noise(3, 5, 6)
    folder = write_slices(tmp_path, pixels, [0, 3, 6], each=each, modality="PT")
    expected = pixels * np.array([1, 0.25, 0.001])[:, None, None]
    expected[1] -= 1000
    np.testing.assert_allclose(read_volume(folder).array, expected, rtol=1e-6)


def test_copies_of_a_slice_are_left_out(tmp_path):
    pixels = noise(4, 5, 6)
    write_slices(tmp_path, pixels, [0, 3, 6, 9])
    (tmp_path / "001 (1).dcm").write_bytes((tmp_path / "001.dcm").read_bytes())
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, pixels)
    assert volume.notices == ("1 copy of a slice was left out",)
    # The same picture at the same place, exported again under another UID.
    again = write_slices(tmp_path / "again", pixels[[0, 1, 1, 2, 3]], [0, 3, 3, 6, 9])
    volume = read_volume(again)
    assert np.array_equal(volume.array, pixels)
    assert volume.notices == ("Copies of slices were left out: 1",)


def test_slices_of_one_careless_uid_all_open(tmp_path):
    pixels = noise(4, 5, 6)
    write_slices(tmp_path, pixels, [0, 3, 6, 9], SOPInstanceUID="1.2.3.4")
    assert np.array_equal(read_volume(tmp_path).array, pixels)


def test_a_series_in_two_folders_is_whole(tmp_path):
    pixels = noise(6, 5, 6)
    for name in ("parts", "below"):
        write_slices(tmp_path / name, pixels, range(0, 18, 3))
        for index in (4, 5):
            target = tmp_path / name / "more" / f"{index}.dcm"
            target.parent.mkdir(exist_ok=True)
            (tmp_path / name / f"{index:03d}.dcm").rename(target)
    first = tmp_path / "parts" / "first"
    first.mkdir()
    for index in range(4):
        (tmp_path / "parts" / f"{index:03d}.dcm").rename(first / f"{index}.dcm")
    assert np.array_equal(read_volume(tmp_path / "below").array, pixels)
    assert np.array_equal(read_volume(tmp_path / "parts").array, pixels)
    assert find_scans([tmp_path / "parts"]) == [tmp_path / "parts"]
    assert find_scans([tmp_path / "below"]) == [tmp_path / "below"]


def test_a_dicomdir_opens_its_series(tmp_path):
    from pydicom.fileset import FileSet

    pixels = noise(3, 5, 6)
    folder = write_slices(
        tmp_path / "in",
        pixels,
        [0, 3, 6],
        PatientID="1",
        StudyTime="10",
        StudyID="1",
        SeriesNumber=1,
    )
    files = FileSet()
    for path in sorted(folder.iterdir()):
        files.add(path)
    files.write(tmp_path / "out")
    assert np.array_equal(read_volume(tmp_path / "out" / "DICOMDIR").array, pixels)
    images = sorted(
        path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "DICOMDIR"
    )
    images.pop().unlink()
    told = read_volume(tmp_path / "out" / "DICOMDIR").notices
    assert any("1 of 3 images that DICOMDIR lists are missing" in one for one in told)
    for path in images:
        path.unlink()
    with pytest.raises(InputError, match="Expected the images that DICOMDIR lists"):
        read_volume(tmp_path / "out" / "DICOMDIR")


def test_a_dicomdir_names_no_file_outside_its_folder(tmp_path):
    from napari_dino_uad.core.scans.dicom.reading import _below

    (tmp_path / "medium").mkdir()
    for name in ("scan.dcm", "medium/scan.dcm"):
        (tmp_path / name).write_bytes(b"")
    inside = tmp_path / "medium"
    assert _below(inside, ["SCAN.DCM"]) == inside / "scan.dcm"
    outside = str(tmp_path / "scan.dcm")
    for parts in (["..", "scan.dcm"], ["../scan.dcm"], [outside], ["", outside]):
        assert _below(inside, parts) is None


def test_without_pixel_spacing_sizes_are_in_pixels(tmp_path):
    pixels = noise(3, 5, 6)
    write_slices(tmp_path / "s", pixels, [0, 3, 6], PixelSpacing=None)
    volume = read_volume(tmp_path / "s")
    assert not volume.spacing_known
    assert "no pixel spacing" in volume.notices[0]
    secondary = dataset(noise(5, 6), "1.2.840.10008.5.1.4.1.1.7", "OT")
    volume = read_volume(save(secondary, tmp_path / "a.dcm"))
    assert (volume.spacing_known, volume.is_2d) == (False, True)


def test_pictures_without_positions_are_apart(tmp_path):
    for index in range(3):
        picture = dataset(noise(5, 6, seed=index), modality="US", InstanceNumber=index)
        save(picture, tmp_path / f"{index}.dcm")
    assert [one.slices for one in list_series(tmp_path)] == [1, 1, 1]


@pytest.mark.parametrize("signed", [False, True])
def test_monochrome1_is_inverted(tmp_path, signed):
    pixels = noise(5, 6).astype(np.int16 if signed else np.uint16)
    picture = dataset(pixels, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    volume = read_volume(save(picture, tmp_path / "a.dcm"))
    assert np.array_equal(volume.array[0], (-1 if signed else 4095) - pixels.astype(float))


def test_bits_of_an_overlay_are_left_out(tmp_path):
    pixels = noise(5, 6)
    picture = dataset(pixels | 0x8000, BitsStored=12, HighBit=11)
    assert np.array_equal(read_volume(save(picture, tmp_path / "a.dcm")).array[0], pixels)


def test_compressed_slices_have_their_own_rescale(tmp_path):
    from pydicom.uid import RLELossless

    def each(out, index):
        out.RescaleSlope, out.RescaleIntercept = [1, 0.25][index], -10
        out.compress(RLELossless, generate_instance_uid=False)

    pixels = noise(2, 5, 6)
    folder = write_slices(tmp_path, pixels, [0, 3], each=each, sop_class=CT, modality="CT")
    expected = pixels * np.array([1, 0.25])[:, None, None] - 10
    np.testing.assert_allclose(read_volume(folder).array, expected)


def csa(**tags) -> bytes:
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, values in tags.items():
        out += struct.pack("<64si4siii", name.encode(), len(values), b"FD\0\0", 0, len(values), 77)
        for value in values:
            data = f"{value}".encode() + b"\0"
            out += struct.pack("<4i", len(data), len(data), 77, 0)
            out += data.ljust((len(data) + 3) // 4 * 4, b"\0")
    return out


def mosaic(path, tiles, header: bytes, **tags):
    count, rows, cols = tiles.shape
    side = math.ceil(math.sqrt(count))
    whole = np.zeros((side * rows, side * cols), np.uint16)
    for index, tile in enumerate(tiles):
        row, col = divmod(index, side)
        whole[row * rows : (row + 1) * rows, col * cols : (col + 1) * cols] = tile
    out = dataset(
        whole,
        **{
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
            "PixelSpacing": [2, 1],
            "SliceThickness": 2.5,
            "SpacingBetweenSlices": 3,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [
                -cols * (side - 1) / 2,
                -2 * rows * (side - 1) / 2,
                7,
            ],
        }
        | tags,
    )
    if header:
        out.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    return save(out, path)


@pytest.mark.parametrize("normal", [1, -1])
def test_a_mosaic_is_unpacked(tmp_path, normal):
    tiles = noise(5, 4, 6)
    header = csa(NumberOfImagesInMosaic=[5], SliceNormalVector=[0, 0, normal])
    volume = read_volume(mosaic(tmp_path / "m.dcm", tiles, header))
    assert np.array_equal(volume.array, tiles[::normal])
    assert volume.spacing_mm == (3.0, 2.0, 1.0)
    first = 0 if normal == 1 else 4
    assert volume.to_ras_mm((first, 0, 0)) == (0.0, 0.0, 7.0)
    assert csa_tags(header)["NumberOfImagesInMosaic"] == ["5"]
    assert csa_tags(header[:50]) == {}


def test_mosaics_of_a_run_are_volumes(tmp_path):
    header = csa(NumberOfImagesInMosaic=[4], SliceNormalVector=[0, 0, 1])
    for index in range(3):
        path = tmp_path / f"{index}.dcm"
        mosaic(path, noise(4, 4, 6, seed=index), header, InstanceNumber=index + 1)
    series = list_series(tmp_path)
    assert [(one.slices, one.label) for one in series] == [
        (4, f"scan repetition {number}") for number in (1, 2, 3)
    ]
    volume = read_volume(tmp_path, series[2].uid)
    assert np.array_equal(volume.array, noise(4, 4, 6, seed=2))


def test_a_mosaic_without_its_header_is_refused(tmp_path):
    path = mosaic(tmp_path / "m.dcm", noise(4, 4, 6), b"")
    with pytest.raises(InputError, match=r"m.dcm is a Siemens mosaic .* lacks"):
        read_volume(path)


@pytest.mark.parametrize("placed", [True, False])
def test_a_grid_of_uih(tmp_path, placed):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    tiles = noise(4, 4, 6)
    path = mosaic(tmp_path / "u.dcm", tiles, b"", ImageType=["ORIGINAL", "PRIMARY", "M"])
    import pydicom

    out = pydicom.dcmread(path)
    block = out.private_block(0x65, "Image Private Header", create=True)
    block.add_new(0x50, "DS", "4")
    if placed:
        items = []
        for index in range(4):
            one = Dataset()
            one.ImagePositionPatient = [0, 0, 3 * index]
            items.append(one)
        block.add_new(0x51, "SQ", Sequence(items))
    out.save_as(path)
    if placed:
        assert np.array_equal(read_volume(path).array, tiles)
    else:
        with pytest.raises(InputError, match=r"u.dcm is a UIH grid .* lacks the positions"):
            read_volume(path)
