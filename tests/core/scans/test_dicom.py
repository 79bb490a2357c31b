from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dicom_files import dataset, save
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.reading import is_dicom
from napari_dino_uad.core.scans.volume import (
    find_scans,
    list_series,
    read_series,
    read_stack,
    read_volume,
    to_file_grid,
)
from scan_files import rotation, write_dicom, write_series


def test_a_series_is_sorted_by_position_not_by_name(tmp_path):
    pixels = write_series(tmp_path / "scan")
    (tmp_path / "scan" / "README.txt").write_text("not a slice")
    volume = read_volume(tmp_path / "scan")
    assert np.array_equal(volume.array, pixels)
    assert volume.spacing_mm == (3.0, 0.75, 0.5)
    assert volume.origin_mm == (0.0, 0.0, 0.0)
    assert (volume.name, volume.modality, volume.window) == ("scan", "MR", (300.0, 800.0))
    assert volume.path == tmp_path / "scan"
    assert not volume.is_2d
    [series] = list_series(tmp_path / "scan")
    assert (series.description, series.modality, series.date) == ("FLAIR", "MR", "2024-01-02")
    assert (series.slices, series.spacing_mm, series.warning) == (5, (3.0, 0.75, 0.5), None)
    files = sorted(tmp_path.rglob("*.dcm"), reverse=True)
    assert np.array_equal(read_stack(files).array, pixels)


def test_oblique_and_reversed_series(tmp_path):
    turned = rotation() @ np.diag([1, -1, -1])
    rows, columns, normal = turned.T
    # No value twice, so that the brightest voxel is one.
    pixels = np.random.default_rng(0).permutation(192).reshape(4, 6, 8).astype(np.int16)
    for index in range(4):
        place = normal * index * 3 + 100
        write_dicom(tmp_path / f"{index}.dcm", pixels[index], place, (*rows, *columns))
    volume = read_volume(tmp_path)
    assert np.diag(volume.direction).min() > 0.9
    assert np.array_equal(sitk.GetArrayFromImage(to_file_grid(volume.array, volume)), pixels)
    z, y, x = np.unravel_index(pixels.argmax(), pixels.shape)
    left, posterior, superior = turned @ (x * 0.5, y * 0.75, z * 3) + 100
    peak = np.unravel_index(volume.array.argmax(), volume.shape)
    np.testing.assert_allclose(volume.to_ras_mm(peak), (-left, -posterior, superior), atol=1e-3)


def test_missing_and_uneven_slices_are_warned_of(tmp_path):
    write_series(tmp_path / "missing", [0, 3, 6, 15, 18])
    [series] = list_series(tmp_path / "missing")
    assert series.warning == ("About 2 slices are missing: a gap of 9.0 mm where 3.0 mm are usual")
    [notice] = read_volume(tmp_path / "missing").notices
    assert notice.startswith("2 slices are missing")
    write_series(tmp_path / "uneven", [0, 3, 6.5, 9, 12])
    [series] = list_series(tmp_path / "uneven")
    assert series.warning == "Unevenly spaced slices: 2.50 to 3.50 mm"


def test_a_tilted_gantry_is_warned_of(tmp_path):
    for index in range(4):
        write_dicom(tmp_path / f"{index}.dcm", np.arange(48).reshape(6, 8), (0, index, index * 3))
    [series] = list_series(tmp_path)
    assert series.warning == "Tilted gantry: slices are shifted by 1.00 mm each (corrected)"


def test_a_folder_of_several_series_lists_them(tmp_path):
    first = write_series(tmp_path, uid="1.2.826.0.1.1")
    write_series(tmp_path, range(0, 9, 3), uid="1.2.826.0.1.2", t0008_103e="T1")
    with pytest.raises(InputError, match=r"holds 2: FLAIR \(5 slices.*T1 \(3 slices.*choose one"):
        read_volume(tmp_path)
    series = list_series(tmp_path)
    assert [one.description for one in series] == ["FLAIR", "T1"]
    assert np.array_equal(read_volume(tmp_path, series[0].uid).array, first)
    volume = read_volume(tmp_path, "1.2.826.0.1.2")
    assert volume.shape == (3, 6, 8)
    assert volume.name == f"{tmp_path.name} T1"
    with pytest.raises(InputError, match=r"no DICOM series 9.9 in .*which holds: FLAIR"):
        read_volume(tmp_path, "9.9")


def test_a_localiser_and_echoes_are_parted(tmp_path):
    """One series UID, three directions: no volume; two echoes at each place: two volumes."""
    pixels = np.random.default_rng(0).integers(0, 500, (6, 8))
    write_dicom(tmp_path / "l" / "a", pixels, (0, 0, 0), (1, 0, 0, 0, 1, 0))
    write_dicom(tmp_path / "l" / "s", pixels, (0, 0, 0), (0, 1, 0, 0, 0, -1))
    write_dicom(tmp_path / "l" / "c", pixels, (0, 0, 0), (1, 0, 0, 0, 0, -1))
    assert [one.slices for one in list_series(tmp_path / "l")] == [1, 1, 1]
    assert len({one.uid for one in list_series(tmp_path / "l")}) == 3

    for echo in (1, 2):
        for place in range(3):
            path = tmp_path / "e" / f"{echo}{place}"
            write_dicom(path, pixels * echo + place, (0, 0, place * 3), t0018_0086=str(echo))
    series = list_series(tmp_path / "e")
    assert [one.description for one in series] == ["FLAIR echo 1", "FLAIR echo 2"]
    for echo, one in enumerate(series, start=1):
        expected = [pixels * echo + place for place in range(3)]
        assert np.array_equal(read_series(one, tmp_path / "e").array, expected)
        assert np.array_equal(read_volume(tmp_path / "e", one.uid).array, expected)


def test_two_pictures_of_one_place_are_refused(tmp_path):
    for index, place in enumerate((0, 3, 3, 6)):
        write_dicom(tmp_path / f"{index}.dcm", np.arange(48).reshape(6, 8) + index, (0, 0, place))
    [series] = list_series(tmp_path)
    assert series.warning == "1 slices lie where another one does"
    with pytest.raises(InputError, match=r"shows places several times .* to its own folder"):
        read_volume(tmp_path)


def test_files_without_ending_and_single_files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 500, (6, 8))
    path = write_dicom(tmp_path / "IM0001", pixels, (1, 2, 3))
    for target in (path, tmp_path):
        volume = read_volume(target)
        assert np.array_equal(volume.array[0], pixels)
        assert volume.is_2d
        assert (volume.modality, volume.window) == ("MR", (300.0, 800.0))
        assert volume.origin_mm == (3.0, 2.0, 1.0)
    assert read_volume(path).name == "IM0001"


def test_a_sagittal_slice_hangs_head_up(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 500, (6, 8))
    path = write_dicom(tmp_path / "s.dcm", pixels, (4, 0, 90), (0, 1, 0, 0, 0, -1))
    volume = read_volume(path)
    assert volume.is_2d and volume.shape == (1, 6, 8)
    assert np.array_equal(volume.array[0], pixels)
    assert volume.to_ras_mm((0, 2, 0)) == pytest.approx((-4, 0, 90 - 2 * 0.75))


def test_folders_of_folders(tmp_path):
    write_series(tmp_path / "DICOM" / "A", uid="1.2.826.0.1.1")
    write_series(tmp_path / "DICOM" / "B", uid="1.2.826.0.1.2")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert len(list_series(tmp_path)) == 2
    assert find_scans([tmp_path / "DICOM"]) == [
        tmp_path / "DICOM" / "A",
        tmp_path / "DICOM" / "B",
    ]


def test_damaged_files_are_named(tmp_path):
    pixels = write_series(tmp_path)
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(sorted(tmp_path.iterdir())[0].read_bytes()[:600])
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, pixels)
    assert volume.notices == ("1 DICOM file is damaged and left out: bad.dcm",)


def test_a_report_among_slices_is_no_matter(tmp_path):
    pixels = write_series(tmp_path)
    report = dataset(np.zeros((2, 2), np.uint16), "1.2.840.10008.5.1.4.1.1.88.11", "SR")
    for tag in ("PixelData", "Rows", "Columns"):
        delattr(report, tag)
    save(report, tmp_path / "report.dcm")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, pixels)
    assert not volume.notices


def test_nothing_but_damaged_files(tmp_path):
    (tmp_path / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(InputError, match="no DICOM series and no PNG or TIFF"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match="no DICOM image in the 1 files"):
        read_stack([tmp_path / "bad.dcm"])


def test_window_of_several_values_or_none(tmp_path):
    pixels = np.arange(48).reshape(6, 8)
    path = write_dicom(tmp_path / "a.dcm", pixels, t0028_1050="40\\400", t0028_1051="80\\2000")
    assert read_volume(path).window == (40.0, 80.0)
    path = write_dicom(tmp_path / "b.dcm", pixels, t0028_1050="", t0028_1051="")
    assert read_volume(path).window is None


def test_files_without_positions_are_sorted_by_number(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 500, (3, 6, 8))
    for index in range(3):
        path = write_dicom(tmp_path / f"{9 - index}.dcm", pixels[index], t0020_0013=str(index + 1))
        # The writer always adds a position, so it is taken out again.
        slice_of_none = pydicom.dcmread(path)
        del slice_of_none.ImagePositionPatient
        slice_of_none.save_as(path)
    [series] = list_series(tmp_path)
    assert series.warning == (
        "The files hold no positions: sorted by number, the distance of slices is unknown"
    )
    assert [Path(file).name for file in series.files] == ["9.dcm", "8.dcm", "7.dcm"]
    assert series.spacing_mm[0] == 1.0
    volume = read_volume(tmp_path)
    assert not volume.spacing_known
    assert "have no positions" in volume.notices[0]


def test_pydicoms_own_files_open_or_are_refused():
    folder = Path(pydicom.__file__).parent / "data"
    files = [path for path in folder.rglob("*") if path.is_file() and is_dicom(path)]
    opened = 0
    for path in files:
        try:
            volume = read_volume(path, allow_constant=True)
        except InputError as error:
            assert str(error).endswith(".")
            assert "expected" in str(error).lower()
        else:
            opened += 1
            assert np.isfinite(volume.array).all()
    assert opened > len(files) / 3


def test_an_element_of_gigabytes_is_refused(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", np.arange(80).reshape(8, 10))

    def read(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(pydicom, "dcmread", read)
    with pytest.raises(InputError, match=r"a\.dcm is damaged"):
        read_volume(path)


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
def test_a_kind_of_object_that_is_damage_is_not_shown(tmp_path):
    report = dataset(np.zeros((2, 2), np.uint16), "1.2.3" + "\n" * 30 + "x" * 900, "SR")
    report.file_meta.MediaStorageSOPClassUID = "1.2.3"
    for tag in ("PixelData", "Rows", "Columns"):
        delattr(report, tag)
    path = save(report, tmp_path / "report.dcm")
    with pytest.raises(InputError, match=r"^report\.dcm holds no image, but") as caught:
        read_volume(path)
    assert len(str(caught.value)) < 200
