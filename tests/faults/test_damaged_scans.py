"""A damaged scan is refused in a sentence or read as the sound one; the process lives on."""

import bz2
import gzip
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).parent))

from mutations import CHECKED, FORMATS, damaged, read_all, sound

from napari_dino_uad.core import limits
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.image_files import read_image
from napari_dino_uad.core.scans.volume import find_scans, read_volume
from scan_files import random_image, write_dicom, write_series

_COPIES = 40


def refused(path, match=None, **options):
    with pytest.raises(InputError, match=match) as caught:
        read_volume(path, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.fixture
def image():
    return random_image()


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_copies(tmp_path, form):
    whole = sound(form, tmp_path)
    copies = [damaged(form, whole, number) for number in range(_COPIES)]
    results = read_all(form, [whole, *copies], tmp_path)
    assert not [one for one in results if one[0] not in ("read", "refused")]
    assert len(results) == _COPIES + 1
    assert results[0][0] == "read"
    assert sum(one[0] == "refused" for one in results) > _COPIES // 5
    for number, result in enumerate(results[1:]):
        if result[0] == "refused":
            assert "\n" not in result[1]
            assert len(result[1]) < 600
        elif any("resampled" in notice for notice in result[3]):
            # A digit of a direction changed: the slices are tilted now, and the user is told.
            continue
        elif form in CHECKED:
            assert np.array_equal(result[1], results[0][1]), number
        else:
            assert result[1].shape == results[0][1].shape, number


@pytest.mark.parametrize("form", CHECKED[:5])
def test_every_bit_of_a_compressed_body(tmp_path, form):
    whole = sound(form, tmp_path)
    places = np.linspace(len(whole) // 2, len(whole) - 1, 30).astype(int)
    copies = []
    for place in places:
        copy = bytearray(whole)
        copy[place] ^= 1 << (place % 8)
        copies.append(bytes(copy))
    first, *others = read_all(form, [whole, *copies], tmp_path)
    assert first[0] == "read"
    assert len(others) == 30
    for result in others:
        assert result[0] == "refused" or np.array_equal(result[1], first[1])


def test_zeros_in_a_compressed_mha(tmp_path):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(random_image((40, 40, 40), np.int32), str(path), useCompression=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    path.write_bytes(data)
    refused(path, "truncated or damaged")


def test_compressed_mha_that_is_not(tmp_path, image):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(image, str(path))
    path.write_bytes(path.read_bytes().replace(b"CompressedData = False", b"CompressedData = True"))
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm"])
@pytest.mark.parametrize("change", [-2, 4])
def test_bodies_of_another_length(tmp_path, image, suffix, change):
    path = tmp_path / f"scan{suffix}"
    if suffix == ".dcm":
        write_dicom(path, np.arange(4000).reshape(50, 80))
    else:
        sitk.WriteImage(image, str(path))
    body = path.with_suffix(".raw") if suffix == ".mhd" else path
    data = body.read_bytes()
    packed = suffix == ".nii.gz"
    data = gzip.decompress(data) if packed else data
    data = data[:change] if change < 0 else data + bytes(change)
    body.write_bytes(gzip.compress(data) if packed else data)
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("key", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
@pytest.mark.parametrize("packed", [False, True])
def test_big_endian_mha(tmp_path, image, key, packed):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(image, str(path))
    data = path.read_bytes()
    head, body = data[:-420], np.frombuffer(data[-420:], "<i2").astype(">i2").tobytes()
    head = head.replace(b"BinaryDataByteOrderMSB = False", f"{key} = True".encode())
    if packed:
        head = head.replace(b"CompressedData = False", b"CompressedData = True")
        body = zlib.compress(body)
    path.write_bytes(head + body)
    assert np.array_equal(read_volume(path).array, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_nrrd_encodings(tmp_path, image, encoding, endian):
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(image, str(path))
    data = path.read_bytes()
    values = np.frombuffer(data[-420:], "<i2")
    body = values.astype(">i2" if endian == "big" else "<i2").tobytes()
    body = {
        "raw": body,
        "gzip": gzip.compress(body),
        "bzip2": bz2.compress(body),
        "ascii": " ".join(map(str, values)).encode(),
    }[encoding]
    head = data[:-420].replace(b"raw", encoding.encode()).replace(b"little", endian.encode())
    path.write_bytes(head + body)
    volume = read_volume(path)
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    assert volume.spacing_mm == (2.0, 0.75, 0.5)
    path.write_bytes(head + body[:-3])
    refused(path)


@pytest.mark.parametrize(
    "line",
    [
        "NDims = -1", "NDims = 100", "NDims = 1000", "NDims = 1e9", "DimSize = 7 6 -5",
        "DimSize = 7 6 99999999999", "ElementDataFile = x%n.raw 1 24 1",
        "ElementDataFile = x%s%s%s.raw 1 24 1", "ElementDataFile = x%999999999d.raw 1 5 1",
        "ElementDataFile = ../scan.raw", "ElementDataFile = /etc/passwd",
        "ElementDataFile = folder", "ElementDataFile = pipe", "ElementDataFile = LIST",
        "ElementDataFile = " + "x" * 300, "HeaderSize = -7", "ElementType = MET_OTHER",
        "ElementSpacing = 1e-6 1 1", "ElementSpacing = nan 1 1",
        "TransformMatrix = 9 0 0 0 1 0 0 0 1",
        "ElementNumberOfChannels = 99999999", "HeaderSize = 9999999999999999999999",
    ],
)  # fmt: skip
def test_metaimage_headers(tmp_path, image, line):
    path = tmp_path / "scan.mhd"
    sitk.WriteImage(image, str(path))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    key = line.split()[0]
    lines = [one for one in path.read_text().splitlines() if not one.startswith(key + " ")]
    lines.insert(len(lines) - (key != "ElementDataFile"), line)
    path.write_text("\n".join(lines) + "\n")
    refused(path, "scan")


@pytest.mark.parametrize(
    "line",
    [
        "sizes: 7 6 -5", "sizes: 7 6 99999999999", "dimension: 100", "dimension: -1",
        "data file: ../x.raw", "data file: /dev/zero", "data file: x%n.raw 1 5 1",
        "data file: pipe", "data file: LIST", "line skip: 99999999999", "byte skip: -2",
        "type: block", "encoding: hex", "endian: middle", "spacings: nan 1 1",
        "space directions: (nan,0,0) (0,1,0) (0,0,1)", "space directions: none (0,1,0) (0,0,1)",
        "kinds: vector vector domain", "no sense",
    ],
)  # fmt: skip
def test_nrrd_headers(tmp_path, image, line):
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(image, str(path))
    os.mkfifo(tmp_path / "pipe")
    data = path.read_bytes()
    lines = data[:-420].decode().splitlines()
    key = line.split(":")[0]
    lines = [one for one in lines if one and not one.startswith(key + ":")]
    if key == "spacings":
        lines = [one for one in lines if not one.startswith("space")]
    path.write_bytes("\n".join([*lines, line, "", ""]).encode() + data[-420:])
    refused(path, "scan")


@pytest.mark.parametrize("key", ["ElementSpacing", "Offset", "TransformMatrix"])
@pytest.mark.parametrize("garbled", ["{}x", "Xq{}", "Q", "zzzz", "{} = 1 1 1 Zz"])
def test_garbled_metaimage_keys(tmp_path, image, key, garbled):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(image, str(path))
    new = garbled.format(key[:5]).encode()
    path.write_bytes(path.read_bytes().replace(key.encode(), new))
    refused(path, "in its header, which is damaged")


@pytest.mark.parametrize("instead", [b" ElementSpacing", b"\xff\xff\xff\xfflementSpacing"])
def test_a_lost_line_break_in_a_metaimage_header(tmp_path, image, instead):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(image, str(path))
    path.write_bytes(path.read_bytes().replace(b"\nElementSpacing", instead))
    refused(path, "in its header, which is damaged")


def test_keys_of_other_programs(tmp_path, image):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(image, str(path))
    extra = b"UltrasoundImageOrientation = MFA\nSeq0001_Timestamp = 1.5\nElementSpacing"
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing", extra))
    assert read_volume(path).spacing_mm == (2.0, 0.75, 0.5)


@pytest.mark.parametrize("form", [".mha", ".nrrd"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("links", [True, False])
def test_decoders_agree(tmp_path, monkeypatch, form, packed, order, links):
    path = tmp_path / f"a scan %03d 1 2{form}"
    image = random_image((4, 5, 6), np.float64)
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    sitk.WriteImage(image, str(tmp_path / f"whole{form}"))
    data = (tmp_path / f"whole{form}").read_bytes()
    head, body = data[:-960], np.frombuffer(data[-960:], "<f8").astype(f"{order}f8").tobytes()
    if order == ">":
        head = head.replace(b"MSB = False", b"MSB = True").replace(b"little", b"big")
    if packed:
        head = head.replace(b"CompressedData = False", b"CompressedData = True")
        head = head.replace(b"encoding: raw", b"encoding: gzip")
        body = zlib.compress(body) if form == ".mha" else gzip.compress(body)
    path.write_bytes(head + body)
    if not links:

        def refuse(*_):
            raise OSError

        monkeypatch.setattr(Path, "symlink_to", refuse)
    read = read_image(path)
    assert np.array_equal(read.values, sitk.GetArrayFromImage(image))
    assert read.values.dtype == np.float64
    assert read.spacing == image.GetSpacing()
    assert read.origin == image.GetOrigin()
    assert read.direction == image.GetDirection()


def test_slices_in_numbered_files(tmp_path, image):
    path = tmp_path / "scan.mhd"
    sitk.WriteImage(image, str(path))
    raw = (tmp_path / "scan.raw").read_bytes()
    for number in range(5):
        (tmp_path / f"slice{number:02d}.raw").write_bytes(raw[84 * number : 84 * (number + 1)])
    whole = path.read_text()
    path.write_text(whole.replace("scan.raw", "slice%02d.raw 0 4 1"))
    assert np.array_equal(read_volume(path).array, sitk.GetArrayFromImage(image))
    names = "\n".join(f"slice{number:02d}.raw" for number in range(5))
    path.write_text(whole.replace("scan.raw", f"LIST\n{names}"))
    assert np.array_equal(read_volume(path).array, sitk.GetArrayFromImage(image))
    (tmp_path / "slice03.raw").write_bytes(raw[:83])
    refused(path, "truncated or damaged")


def test_a_hundred_thousand_nrrd_keys(tmp_path, image):
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(image, str(path))
    data = path.read_bytes()
    keys = "".join(f"key number {number}:=value\n" for number in range(100_000))
    path.write_bytes(data[:-421] + keys.encode() + data[-421:])
    refused(path, "more than 1048576 bytes in its header")


def test_a_slope_on_a_vector(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.arange(18, dtype=np.uint8).reshape(1, 2, 3, 1, 3), np.eye(4))
    image.header.set_intent("vector")
    nibabel.save(image, tmp_path / "vector.nii")
    with (tmp_path / "vector.nii").open("r+b") as file:
        file.seek(112)
        file.write(struct.pack("<2f", 0.0027581409, 0.076919019))
    (result,) = read_all("nii", [(tmp_path / "vector.nii").read_bytes()], tmp_path)
    assert result[0] == "refused"
    assert "3 values in every voxel" in result[1]


@pytest.mark.parametrize(
    ("place", "form", "value", "match"),
    [
        (80, "<f", 1e-30, "spacing"),
        (80, "<f", 1e6, "spacing"),
        (80, "<f", np.nan, "not finite"),
        (108, "<f", np.inf, "its voxels at byte inf"),
        (108, "<f", np.nan, "its voxels at byte nan"),
        (108, "<f", 1e9, "truncated or damaged"),
        (70, "<h", 64, "voxels of type 64 with 16 bits"),
        (70, "<h", 1, "voxels of type 1"),
        (40, "<h", 0, "dimensions"),
        (42, "<h", -5, "the size -5"),
        (46, "<h", 32767, "truncated or damaged"),
        (112, "<f", np.inf, "a slope"),
    ],
)
def test_nifti_headers(tmp_path, image, place, form, value, match):
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"scan{suffix}"
        sitk.WriteImage(image, str(tmp_path / "scan.nii"))
        data = bytearray((tmp_path / "scan.nii").read_bytes())
        # The qform and sform would name the spacing again.
        data[252:256] = bytes(4)
        struct.pack_into(form, data, place, value)
        path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
        refused(path, match)


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "scan.nii")
    refused(tmp_path / "scan.nii", "is a pipe, but a file with a scan is expected")
    refused(tmp_path / ("x" * 300 + ".nii"), "cannot be opened: File name too long; check the path")
    refused(Path("/dev/zero"), "is a device")
    for bad in (tmp_path / "scan.nii", tmp_path / ("x" * 300)):
        with pytest.raises(InputError):
            find_scans([bad])
    write_series(tmp_path / "series")
    os.mkfifo(tmp_path / "series" / "IM9.dcm")
    assert read_volume(tmp_path / "series").shape == (5, 6, 8)


def test_one_short_slice_of_a_series(tmp_path):
    write_series(tmp_path)
    slice_ = sorted(tmp_path.iterdir())[2]
    slice_.write_bytes(slice_.read_bytes()[:-10])
    refused(tmp_path, "truncated or damaged")


def test_memory_is_asked_for_first(tmp_path, image, monkeypatch):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(image, str(path))
    monkeypatch.setattr(limits, "total_memory", lambda: 1000)
    refused(path, "Reading scan.mha .7 x 6 x 5 voxels. needs .* GiB of memory")


def test_limits_let_large_scans_through(monkeypatch):
    monkeypatch.setattr(limits, "total_memory", lambda: 8 << 30)
    for size in ((512, 512, 600), (240, 240, 155), (16_000, 16_000)):
        limits.check_reading("scan", size, 4)
        shape = (*size[2:], 1)[:1] + size[1::-1]
        limits.check_memory(limits.needed_for_map(shape, 256 * 256), "Analysing it", "crop it")


@pytest.mark.parametrize("spacing", [(1e-5, 1.0, 1.0), (1.0, 900.0, 0.1)])
def test_a_scan_like_a_thread(spacing, monkeypatch):
    from napari_dino_uad.core.scans.volume import volume_from_array
    from napari_dino_uad.core.slices.prepared import prepare
    from napari_dino_uad.core.slices.preprocessing import Preprocessing

    monkeypatch.setattr(limits, "total_memory", lambda: 8 << 30)
    array = np.arange(2 * 20_000 * 8, dtype=np.float32).reshape(2, 20_000, 8)
    with pytest.raises(InputError, match=r"slices 2500 times as long as wide"):
        prepare(volume_from_array(array, (1.0, 1.0, 1.0), name="thread"), Preprocessing())
    wide = np.arange(2 * 20_000 * 1000, dtype=np.float32).reshape(2, 20_000, 1000)
    monkeypatch.setattr(limits, "total_memory", lambda: 1 << 30)
    with pytest.raises(InputError, match=r"Analysing wide.* GiB of memory"):
        prepare(volume_from_array(wide, (1.0, 1.0, 1.0), name="wide"), Preprocessing())
    with pytest.raises(InputError):
        prepare(volume_from_array(array, spacing, name="thread"), Preprocessing())
