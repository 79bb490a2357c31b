"""Units, volumes and encodings of NRRD and MetaImage files."""

from __future__ import annotations

import bz2

import numpy as np
import pytest

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.image_files import read_image
from napari_dino_uad.core.scans.several import list_volumes
from napari_dino_uad.core.scans.volume import read_volume


def values(shape=(4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype("<f4")


def write_nrrd(path, array, *lines, encoding="raw", body=None):
    """Write an array (slowest axis first) under some lines of a header."""
    head = [
        "NRRD0005",
        "type: float",
        f"dimension: {array.ndim}",
        f"sizes: {' '.join(map(str, array.shape[::-1]))}",
        f"encoding: {encoding}",
        "endian: little",
        *lines,
    ]
    path.write_bytes("\n".join([*head, "", ""]).encode() + (body or array.tobytes()))
    return path


def write_mha(path, array, *lines):
    head = [
        "ObjectType = Image",
        f"NDims = {array.ndim}",
        *lines,
        f"DimSize = {' '.join(map(str, array.shape[::-1]))}",
        "ElementType = MET_FLOAT",
        "ElementDataFile = LOCAL",
    ]
    path.write_bytes("\n".join([*head, ""]).encode() + array.tobytes())
    return path


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("um", 1e-3), ("µm", 1e-3), ("cm", 10), ("m", 1000), ("", 1)]
)
def test_space_units_are_applied(tmp_path, unit, mm):
    path = write_nrrd(
        tmp_path / "scan.nrrd",
        values(),
        "space: left-posterior-superior",
        f'space units: "{unit}" "{unit}" "{unit}"',
        "space directions: (0.1,0,0) (0,0.2,0) (0,0,0.3)",
        "space origin: (1,2,3)",
    )
    path.write_bytes(path.read_bytes().replace("µ".encode(), "µ".encode("latin-1")))
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((0.3 * mm, 0.2 * mm, 0.1 * mm))
    assert volume.origin_mm == pytest.approx((3 * mm, 2 * mm, 1 * mm))


def test_units_of_axes_are_applied(tmp_path):
    path = write_nrrd(
        tmp_path / "scan.nrrd", values(), "spacings: 100 200 300", 'units: "um" "um" "um"'
    )
    assert read_volume(path).spacing_mm == pytest.approx((0.3, 0.2, 0.1))


def test_unknown_units_are_refused(tmp_path):
    path = write_nrrd(
        tmp_path / "scan.nrrd", values(), "spacings: 1 2 3", 'units: "foot" "foot" "foot"'
    )
    with pytest.raises(InputError, match="lengths in 'foot', but mm, um, nm, cm or m"):
        read_volume(path)
    path = write_mha(
        tmp_path / "scan.mha", values(), "ElementSpacing = 1 2 3", "DistanceUnits = ft"
    )
    with pytest.raises(InputError, match="lengths in 'ft'"):
        read_volume(path)


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("um", 1e-3), ("cm", 10), ("?", 1)])
def test_distance_units_are_applied(tmp_path, unit, mm):
    path = write_mha(
        tmp_path / "scan.mha",
        values(),
        "ElementSpacing = 1 2 3",
        "Offset = 4 5 6",
        f"DistanceUnits = {unit}",
    )
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((3 * mm, 2 * mm, 1 * mm))
    assert volume.origin_mm == pytest.approx((6 * mm, 5 * mm, 4 * mm))


@pytest.mark.parametrize("write", [write_nrrd, write_mha])
def test_a_header_without_spacing(tmp_path, write):
    name = "scan.nrrd" if write is write_nrrd else "scan.mha"
    volume = read_volume(write(tmp_path / name, values()))
    assert not volume.spacing_known
    assert volume.notices == (f"{name} has no voxel size in its header; sizes are in pixels.",)


def test_bzip2_in_several_streams(tmp_path):
    body = values().tobytes()
    packed = bz2.compress(body[:100]) + bz2.compress(body[100:])
    path = write_nrrd(
        tmp_path / "scan.nrrd", values(), "spacings: 1 2 3", encoding="bz2", body=packed
    )
    assert np.array_equal(read_image(path).values, values())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)


_DIRECTIONS = "(1,0,0) (0,2,0) (0,0,3)"


@pytest.mark.parametrize(
    ("kinds", "place"),
    [
        ("list space space space", 3),
        ("space space space list", 0),
        ("domain domain domain time", 0),
        ("space space list space", 1),
    ],
)
def test_volumes_of_an_nrrd(tmp_path, kinds, place):
    array = np.moveaxis(values((3, 4, 5, 6)), 0, place)
    axis = 3 - place
    words = _DIRECTIONS.split()
    words.insert(axis, "none")
    path = write_nrrd(
        tmp_path / "scan.nrrd",
        np.ascontiguousarray(array),
        f"kinds: {kinds}",
        "space: left-posterior-superior",
        f"space directions: {' '.join(words)}",
    )
    for number in (1, 3):
        found = read_image(path, number)
        assert np.array_equal(found.values, values((3, 4, 5, 6))[number - 1])
        assert found.spacing == (1, 2, 3)
    assert "has 3 volumes; volume 1 is read" in read_volume(path).notices[0]


def test_b_values_of_a_diffusion_nrrd(tmp_path):
    path = write_nrrd(
        tmp_path / "scan.nrrd",
        values((3, 4, 5, 6)),
        "kinds: space space space vector",
        "space: left-posterior-superior",
        f"space directions: {_DIRECTIONS} none",
        "modality:=DWMRI",
        "DWMRI_b-value:=1000",
        "DWMRI_gradient_0000:=0 0 0",
        "DWMRI_gradient_0001:=1 0 0",
        "DWMRI_gradient_0002:=0 0.7071067811865476 0",
    )
    assert list_volumes(path) == (
        "volume 1 of 3, b = 0",
        "volume 2 of 3, b = 1000",
        "volume 3 of 3, b = 500",
    )
    assert np.array_equal(read_image(path, 2).values, values((3, 4, 5, 6))[1])


def test_volumes_of_a_metaimage(tmp_path):
    array = values((3, 4, 5, 6))
    path = write_mha(tmp_path / "scan.mha", array, "ElementSpacing = 1 2 3 4")
    assert np.array_equal(read_image(path, 3).values, array[2])
    assert read_volume(path, volume=2).spacing_mm == (3, 2, 1)
    assert len(list_volumes(path)) == 3


def test_the_same_as_pynrrd(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    array = values()
    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        path = tmp_path / f"{encoding}.nrrd"
        header = {
            "space": "left-posterior-superior",
            "space directions": np.diag([1.0, 2, 3]),
            "space origin": [4, 5, 6],
            "encoding": encoding,
        }
        nrrd.write(str(path), array, header, index_order="C")
        expected, fields = nrrd.read(str(path), index_order="C")
        found = read_image(path)
        np.testing.assert_allclose(found.values, expected, rtol=1e-6)
        assert found.spacing == tuple(np.diag(fields["space directions"]))
        assert found.origin == tuple(fields["space origin"])


def test_b_values_beside_a_scan(tmp_path):
    path = write_mha(tmp_path / "dwi.mha", values((3, 4, 5, 6)), "ElementSpacing = 1 1 1 1")
    (tmp_path / "dwi.bval").write_text("0 1000 2000\n")
    assert list_volumes(path)[2] == "volume 3 of 3, b = 2000"
    (tmp_path / "dwi.bval").write_text("0 1000\n")
    assert list_volumes(path)[2] == "volume 3 of 3"
    (tmp_path / "dwi.bval").unlink()
    (tmp_path / "dwi.json").write_text('{"FrameTimesStart": [0, 10.5, 60]}')
    assert list_volumes(path)[1] == "volume 2 of 3, from 10.5 s"
