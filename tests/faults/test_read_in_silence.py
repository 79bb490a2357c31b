"""Files that were once read wrongly without a word: by kind, with the right value."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from dicom_files import (
    AXIAL,
    SEGMENTATION,
    dataset,
    enhanced,
    frame_groups,
    item,
    save,
    write_slices,
)
from napari_dino_uad import Case, read_volume
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.canonical import volume_from_array
from napari_dino_uad.core.scans.cases import read_case, read_mask
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

SQUARE = {"PixelSpacing": [1, 1], "SliceThickness": 3}


def ramp(count=6, rows=5, cols=4, start=1):
    return (np.arange(count * rows * cols).reshape(count, rows, cols) + start).astype(np.uint16)


# Masks --------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path):
    values = np.random.default_rng(0).normal(100, 20, (8, 9, 10)).astype(np.float32)
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def test_nan_in_a_mask_is_background_and_said(tmp_path, scan):
    mask = np.full((8, 9, 10), np.nan, np.float32)
    mask[2:4, 3:5, 6] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    case = Case(scan, tmp_path / "mask.nii.gz")
    found = read_case(case, 0, [])
    assert found.mask.sum() == 4
    assert "NaN" in found.note and "background" in found.note


def test_a_mask_of_several_volumes_is_refused(tmp_path, scan):
    classes = np.zeros((8, 9, 10, 2), np.uint8)
    classes[2:4, 3:5, 6, 1] = 1
    classes[..., 0] = 1 - classes[..., 1]
    nibabel.save(nibabel.Nifti1Image(classes, np.eye(4)), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match=r"has 2 volumes, but a mask is one"):
        read_mask(tmp_path / "mask.nii.gz", read_volume(scan))


def test_a_mask_on_tilted_slices_does_not_grow(tmp_path):
    lean = np.deg2rad(15)
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[1, 2] = 3 * np.tan(lean)
    values = np.random.default_rng(0).normal(100, 20, (20, 40, 12)).astype(np.float32)
    mask = np.zeros(values.shape, np.uint8)
    mask[5:15, 10:20, 6] = 1
    for name, array in (("scan", values), ("mask", mask)):
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.notices
    found = read_mask(tmp_path / "mask.nii", volume)
    assert 0.9 * mask.sum() <= found.sum() <= 1.1 * mask.sum()


@pytest.mark.parametrize("frames", [(3, 4, 5), (7,), (0, 2, 4, 6), (0, 11)])
def test_a_segmentation_has_frames_only_where_something_is(tmp_path, frames):
    write_slices(tmp_path / "scan", ramp(12), [3 * index for index in range(12)], **SQUARE)
    volume = read_volume(tmp_path / "scan")
    pixels = np.zeros((len(frames), 5, 4), np.uint8)
    pixels[:, 1:3, 2] = 1
    groups = [frame_groups(3 * index, segment=1) for index in frames]
    enhanced(
        tmp_path / "seg.dcm", pixels, groups, SEGMENTATION, modality="SEG",
        SegmentationType="BINARY", SegmentSequence=item(SegmentNumber=1, SegmentLabel="lesion"),
        measures=SQUARE,
    )  # fmt: skip
    found = read_mask(tmp_path / "seg.dcm", volume)
    expected = np.zeros(volume.shape, bool)
    expected[list(frames), 1:3, 2] = True
    np.testing.assert_array_equal(found, expected)


def test_a_segmentation_between_the_slices_is_refused(tmp_path):
    write_slices(tmp_path / "scan", ramp(12), [3 * index for index in range(12)], **SQUARE)
    groups = [frame_groups(3 * index + 1.5, segment=1) for index in (3, 4)]
    enhanced(
        tmp_path / "seg.dcm", np.ones((2, 5, 4), np.uint8), groups, SEGMENTATION, modality="SEG",
        SegmentationType="BINARY", SegmentSequence=item(SegmentNumber=1, SegmentLabel="lesion"),
        measures=SQUARE,
    )  # fmt: skip
    with pytest.raises(InputError, match="does not lie on"):
        read_mask(tmp_path / "seg.dcm", read_volume(tmp_path / "scan"))


# Several volumes in one series --------------------------------------------------------------


@pytest.mark.parametrize("apart", [1.5, 0.01, 18.0])
def test_two_echoes_are_two_volumes_wherever_they_lie(tmp_path, apart):
    for echo in (0, 1):
        write_slices(
            tmp_path / "series" / str(echo),
            ramp(start=1 + 1000 * echo),
            [3 * index + apart * echo for index in range(6)],
            each=lambda one, index, echo=echo: setattr(one, "InstanceNumber", 1 + index + 6 * echo),
            EchoTime=10 + 50 * echo,
            EchoNumbers=echo + 1,
            **SQUARE,
        )
    with pytest.raises(InputError, match=r"holds 2: .*echo"):
        read_volume(tmp_path / "series")


def test_enhanced_echoes_between_each_other_are_two_volumes(tmp_path):
    groups = []
    for echo in (0, 1):
        for index in range(4):
            group = frame_groups(3 * index + 1.5 * echo)
            group.MREchoSequence = item(EffectiveEchoTime=10.0 + 50 * echo)
            groups.append(group)
    enhanced(tmp_path / "e.dcm", ramp(8), groups)
    with pytest.raises(InputError, match="holds 2"):
        read_volume(tmp_path / "e.dcm")


def test_an_echo_time_that_jitters_is_one_volume(tmp_path):
    def jitter(one, index):
        one.EchoTime = 10 if index != 2 else 10.001

    write_slices(tmp_path / "s", ramp(), [3 * index for index in range(6)], each=jitter, **SQUARE)
    assert read_volume(tmp_path / "s").shape == (6, 5, 4)


# Places -------------------------------------------------------------------------------------


def test_slices_aside_of_the_line_are_refused(tmp_path):
    places = [(8.0 if index in (2, 3) else 0.0, 0, 3 * index) for index in range(6)]
    write_slices(tmp_path / "s", ramp(), places, **SQUARE)
    with pytest.raises(InputError, match="beside it"):
        read_volume(tmp_path / "s")


def test_one_slice_far_away_is_refused(tmp_path):
    write_slices(tmp_path / "s", ramp(), [0, 3, 6, 9, 12, 30_000], **SQUARE)
    with pytest.raises(InputError, match="even distances"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("edge", [1e9, 1e-9])
def test_impossible_pixels_are_refused(tmp_path, edge):
    write_slices(
        tmp_path / "s", ramp(), [0, 3, 6, 9, 12, 15], PixelSpacing=[edge, edge], SliceThickness=3
    )
    with pytest.raises(InputError, match="spacing"):
        read_volume(tmp_path / "s")


def test_an_orientation_rounded_to_two_digits_is_used(tmp_path):
    axes = (0.51, -0.31, 0.8, 0.74, 0.64, -0.21)
    normal = np.cross(axes[:3], axes[3:])
    normal /= np.linalg.norm(normal)
    places = [tuple(np.round(3 * index * normal, 3)) for index in range(6)]
    write_slices(tmp_path / "s", ramp(), places, ImageOrientationPatient=list(axes), **SQUARE)
    volume = read_volume(tmp_path / "s")
    assert not volume.notices
    assert np.abs(volume.direction).max() < 0.85


@pytest.mark.parametrize("axes", [None, [0.0] * 6])
def test_slices_without_orientation_say_so(tmp_path, axes):
    write_slices(
        tmp_path / "s", ramp(), [3 * index for index in range(6)], ImageOrientationPatient=axes,
        **SQUARE,
    )  # fmt: skip
    [notice] = read_volume(tmp_path / "s").notices
    assert "no usable orientation" in notice


def test_the_slices_of_nuclear_medicine_count_as_their_header_says(tmp_path):
    pixels = ramp(6)
    tags = {
        "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": list(AXIAL),
        "FrameIncrementPointer": 0x00540080,
        **SQUARE,
    }
    kind = "1.2.840.10008.5.1.4.1.1.20"
    for name, more in (
        ("up", {}),
        ("down", {"SpacingBetweenSlices": -3}),
        ("order", {"SliceVector": [6, 5, 4, 3, 2, 1]}),
    ):
        save(dataset(pixels, kind, "NM", **tags, **more), tmp_path / f"{name}.dcm")
    first = {name: read_volume(tmp_path / f"{name}.dcm") for name in ("up", "down", "order")}
    values = pixels[:, 0, 0].astype(float)
    np.testing.assert_array_equal(first["up"].array[:, 0].min(axis=1), values)
    np.testing.assert_array_equal(first["down"].array[:, 0].min(axis=1), values[::-1])
    assert first["down"].origin_mm[0] == -15
    np.testing.assert_array_equal(first["order"].array[:, 0].min(axis=1), values[::-1])
    windows = {"EnergyWindowVector": [1, 1, 1, 2, 2, 2], "SliceVector": [1, 2, 3, 1, 2, 3]}
    save(dataset(pixels, kind, "NM", **tags, **windows), tmp_path / "windows.dcm")
    with pytest.raises(InputError, match="energy window"):
        read_volume(tmp_path / "windows.dcm")


def test_axis_ends_of_nrrd_give_no_spacing(tmp_path):
    lines = ["NRRD0004", "type: short", "dimension: 3", "sizes: 4 5 6", "encoding: raw",
             "endian: little", "axis mins: 0 0 0", "axis maxs: 6 10 18", "", ""]  # fmt: skip
    body = ramp().astype("<i2").tobytes()
    (tmp_path / "a.nrrd").write_bytes("\n".join(lines).encode() + body)
    assert not read_volume(tmp_path / "a.nrrd").spacing_known
    lines[6:8] = ["space: LPS", "space directions: (1e300,0,0) (0,2,0) (0,0,3)"]
    (tmp_path / "b.nrrd").write_bytes("\n".join(lines).encode() + body)
    with pytest.raises(InputError, match="space directions"):
        read_volume(tmp_path / "b.nrrd")


# Pictures -----------------------------------------------------------------------------------


def test_white_is_zero_and_turned_pages(tmp_path):
    picture = np.arange(80, dtype=np.uint8).reshape(8, 10)
    tifffile.imwrite(tmp_path / "w.tif", picture, photometric="miniswhite")
    np.testing.assert_array_equal(read_volume(tmp_path / "w.tif").array[0], 255.0 - picture)
    upright = {3: picture[::-1, ::-1], 6: np.rot90(picture, -1), 8: np.rot90(picture)}
    for tag, expected in upright.items():
        path = tmp_path / f"o{tag}.tif"
        tifffile.imwrite(path, picture, extratags=[(274, "H", 1, tag, True)])
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array[0], expected)
        assert any("upright" in one for one in volume.notices)
        with Image.open(path) as same:
            assert same.getexif()[274] == tag


def test_grey_pictures_with_transparency_open(tmp_path):
    grey = (np.arange(400) % 256).reshape(20, 20).astype(np.uint8)
    Image.fromarray(np.dstack([grey, grey]), "LA").save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "t.png", transparency=0)
    for name in ("a.png", "t.png"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array[0], grey)
        assert any("transparency" in one for one in volume.notices)


@pytest.mark.parametrize("kind", ["lzma", "zstd"])
def test_a_damaged_or_foreign_compression_is_one_sentence(tmp_path, kind):
    pages = [Image.fromarray(one.astype(np.uint8)) for one in ramp(3, 20, 20)]
    path = tmp_path / "p.tif"
    try:
        pages[0].save(path, save_all=True, append_images=pages[1:], compression=kind)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"Pillow has no {kind} here")
    whole = bytearray(path.read_bytes())
    try:
        read_volume(path)
    except InputError as error:
        assert str(error).endswith(".")
    for place in range(8, len(whole), 37):
        copy = bytearray(whole)
        copy[place] ^= 0x55
        path.write_bytes(copy)
        try:
            read_volume(path)
        except InputError as error:
            assert str(error).endswith(".")


def test_slices_as_thin_as_a_hair_are_refused_before_they_fill_the_memory():
    thin = volume_from_array(np.random.default_rng(0).normal(size=(8, 96, 96)), (1, 1, 0.001))
    with pytest.raises(InputError, match="times as long as wide"):
        prepare(thin, Preprocessing())


def test_a_description_cannot_steer_a_terminal(tmp_path):
    for number in (0, 1):
        write_slices(
            tmp_path / "two" / str(number), ramp(), [3 * index for index in range(6)],
            SeriesInstanceUID=f"1.2.{number}", SeriesDescription="\x1b]0;title\x07 flair", **SQUARE,
        )  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "two")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ending", ["hdr", "img"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Spm2AnalyzeImage])
def test_a_pair_of_files_is_named_as_such(tmp_path, kind, ending):
    nibabel.save(kind(np.ones((6, 5, 4), np.int16), np.eye(4)), tmp_path / "scan.img")
    with pytest.raises(InputError, match="one of the two files of a NIfTI or Analyze pair"):
        read_volume(tmp_path / f"scan.{ending}")
