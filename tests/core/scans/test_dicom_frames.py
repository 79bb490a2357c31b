import numpy as np
import pytest

from dicom_files import (
    AXIAL,
    CORONAL,
    CT,
    DOSE,
    PARAMETRIC_MAP,
    SAGITTAL,
    SEGMENTATION,
    dataset,
    enhanced,
    frame_groups,
    item,
    noise,
    save,
    write_slices,
)
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.dicom.reading import series_in
from napari_dino_uad.core.scans.volume import list_series, read_series, read_volume


def heights(volume) -> list[float]:
    return [round(volume.to_ras_mm((k, 0, 0))[2], 3) for k in range(volume.shape[0])]


def test_frames_are_sorted_by_position(tmp_path):
    pixels = noise(5, 4, 6)
    order = [0, 3, 1, 4, 2]
    groups = [frame_groups(3 * place) for place in order]
    path = enhanced(tmp_path / "e.dcm", pixels[order], groups)
    volume = read_volume(path)
    assert np.array_equal(volume.array, pixels)
    assert volume.spacing_mm == (3.0, 2.0, 1.0)
    assert heights(volume) == [0, 3, 6, 9, 12]


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, CORONAL])
def test_each_voxel_lies_where_its_frame_says(tmp_path, axes):
    pixels = np.random.default_rng(0).permutation(72).reshape(3, 4, 6).astype(np.uint16)
    right, down = np.array(axes[:3]), np.array(axes[3:])
    normal = np.cross(right, down)
    origin = np.array([10.0, -20.0, 30.0])
    # Slices run against the normal, as vendors with a negative distance of slices write them.
    places = [origin - normal * 3 * k for k in range(3)]
    path = enhanced(tmp_path / "e.dcm", pixels, [frame_groups(place, axes) for place in places])
    volume = read_volume(path)
    peak = np.unravel_index(volume.array.argmax(), volume.shape)
    k, row, col = np.unravel_index(pixels.argmax(), pixels.shape)
    x, y, z = places[k] + right * col * 1 + down * row * 2
    assert volume.to_ras_mm(peak) == pytest.approx((-x, -y, z))


def test_each_frame_has_its_own_rescale(tmp_path):
    pixels = noise(3, 4, 6)
    scales = [(1, 0), (0.25, -5), (2, 100)]
    groups = [frame_groups(3 * k, slope=scale) for k, scale in enumerate(scales)]
    volume = read_volume(enhanced(tmp_path / "e.dcm", pixels, groups))
    expected = [frame * a + b for frame, (a, b) in zip(pixels.astype(float), scales, strict=True)]
    np.testing.assert_allclose(volume.array, expected)


@pytest.mark.parametrize("key", ["time", "b", "stack"])
def test_volumes_of_one_file_are_offered(tmp_path, key):
    pixels = noise(6, 4, 6)
    values = ["1", "2"] if key == "stack" else [1, 1000]
    groups = [
        frame_groups(3 * place + (50 if key == "stack" and value == "2" else 0), **{key: value})
        for place in range(3)
        for value in values
    ]
    path = enhanced(tmp_path / "e.dcm", pixels, groups)
    with pytest.raises(InputError, match=r"the file e.dcm holds 2: .*choose one"):
        read_volume(path)
    series = series_in(path)
    assert [one.slices for one in series] == [3, 3]
    if key != "stack":
        name = {"time": "time point", "b": "b value"}[key]
        assert [one.label for one in series] == [f"scan {name} 1", f"scan {name} 1000"]
    for number, one in enumerate(series):
        volume = read_volume(path, one.uid)
        assert np.array_equal(volume.array, pixels[number::2])
        assert volume.name == f"e {one.label}"


def test_other_dimensions_part_volumes(tmp_path):
    pixels = noise(4, 4, 6)
    groups = [frame_groups(3 * place) for place in (0, 0, 1, 1)]
    for group, index in zip(groups, ([1, 1], [1, 2], [2, 1], [2, 2]), strict=True):
        group.FrameContentSequence[0].DimensionIndexValues = index
    pointers = [
        item(DimensionIndexPointer=0x00200032)[0],
        item(DimensionIndexPointer=0x00189073)[0],
    ]
    path = enhanced(tmp_path / "e.dcm", pixels, groups, DimensionIndexSequence=pointers)
    series = series_in(path)
    assert [one.label for one in series] == [
        "scan acquisition duration 1",
        "scan acquisition duration 2",
    ]
    assert np.array_equal(read_series(series[1], path).array, pixels[1::2])


def test_planes_of_one_file_are_offered(tmp_path):
    groups = [
        frame_groups(place, axes)
        for axes, places in (
            (AXIAL, [(0, 0, 0), (0, 0, 3)]),
            (SAGITTAL, [(0, 0, 0), (3, 0, 0)]),
            (CORONAL, [(0, 0, 0), (0, 3, 0)]),
        )
        for place in places
    ]
    path = enhanced(tmp_path / "e.dcm", noise(6, 4, 6), groups)
    assert {one.label: one.slices for one in series_in(path)} == {
        "scan axial": 2,
        "scan sagittal": 2,
        "scan coronal": 2,
    }


def test_a_missing_frame_leaves_a_gap(tmp_path):
    groups = [frame_groups(3 * place) for place in (0, 1, 3, 4)]
    volume = read_volume(enhanced(tmp_path / "e.dcm", noise(4, 4, 6), groups))
    assert heights(volume) == [0, 3, 9, 12]
    assert volume.spacing_mm == (3.0, 2.0, 1.0)
    [notice] = volume.notices
    assert notice.startswith("1 slice is missing, and the gap stays empty: 6.0 mm after slice 2")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_float_pixels(tmp_path, kind):
    pixels = np.random.default_rng(0).random((3, 4, 6)).astype(kind)
    groups = [frame_groups(3 * place) for place in range(3)]
    path = enhanced(tmp_path / "m.dcm", pixels, groups, PARAMETRIC_MAP, modality="MR")
    assert np.array_equal(read_volume(path).array, pixels.astype(np.float32))


def test_real_world_values_of_a_parametric_map(tmp_path):
    groups = [frame_groups(3 * place) for place in range(2)]
    for group in groups:
        group.RealWorldValueMappingSequence = item(
            RealWorldValueSlope=0.5, RealWorldValueIntercept=-1.0
        )
    pixels = noise(2, 4, 6)
    path = enhanced(tmp_path / "m.dcm", pixels, groups, PARAMETRIC_MAP)
    np.testing.assert_allclose(read_volume(path).array, pixels * 0.5 - 1.0)


def segmentation(path, frames, groups, names, **tags):
    bits = np.packbits(frames.ravel(), bitorder="little").tobytes()
    segments = [
        item(SegmentNumber=number, SegmentLabel=name)[0] for number, name in enumerate(names, 1)
    ]
    return enhanced(
        path,
        frames.astype(np.uint8),
        groups,
        SEGMENTATION,
        modality="SEG",
        **{
            "PixelData": bits + b"\0" * (len(bits) % 2),
            "BitsAllocated": 1,
            "BitsStored": 1,
            "HighBit": 0,
            "SegmentationType": "BINARY",
            "SegmentSequence": segments,
        }
        | tags,
    )


def test_a_segmentation_opens_as_labels(tmp_path):
    """Frames of empty slices are left out, and sizes are no multiple of 8 bits."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 2, (4, 3, 5)).astype(np.uint8)
    frames[3] &= 1 - frames[2]
    groups = [
        frame_groups(place, segment=segment) for place, segment in ((9, 1), (0, 1), (3, 1), (3, 2))
    ]
    volume = read_volume(segmentation(tmp_path / "s.dcm", frames, groups, ["liver", "tumour"]))
    expected = np.stack([frames[1], frames[2] + 2 * frames[3], 0 * frames[0], frames[0]])
    assert np.array_equal(volume.array, expected)
    assert heights(volume) == [0, 3, 6, 9]
    assert volume.label_names == ((1, "liver"), (2, "tumour"))
    assert volume.notices == ("A segmentation, opened as labels: 1 liver, 2 tumour",)


def test_overlapping_and_fractional_segments(tmp_path):
    frames = np.ones((2, 3, 5), np.uint8)
    groups = [frame_groups(0, segment=segment) for segment in (2, 1)]
    volume = read_volume(segmentation(tmp_path / "s.dcm", frames, groups, ["a", "b"]))
    assert (volume.array == 2).all()
    assert volume.notices[1] == "Segments overlap in 15 voxels, which have the higher number"
    shares = np.array([[0, 100, 101, 200]], np.uint8)[None]
    path = segmentation(
        tmp_path / "f.dcm",
        shares,
        groups[:1],
        ["a"],
        PixelData=shares.tobytes(),
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        SegmentationType="FRACTIONAL",
        MaximumFractionalValue=200,
    )
    volume = read_volume(path)
    assert volume.array.ravel().tolist() == [0, 0, 2, 2]
    assert "fractional" in volume.notices[1]


def test_dose_is_scaled(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**32, (3, 4, 6), dtype=np.uint32)
    dose = dataset(
        pixels,
        DOSE,
        "RTDOSE",
        PixelSpacing=[2, 1],
        ImageOrientationPatient=list(AXIAL),
        ImagePositionPatient=[0, 0, 5],
        GridFrameOffsetVector=[0, 2.5, 5],
        FrameIncrementPointer=0x3004000C,
        DoseGridScaling=1e-9,
    )
    volume = read_volume(save(dose, tmp_path / "d.dcm"))
    np.testing.assert_allclose(volume.array, pixels * 1e-9, rtol=1e-6)
    assert heights(volume) == [5, 7.5, 10]


def test_a_cine_is_refused(tmp_path):
    cine = dataset(noise(9, 4, 6), "1.2.840.10008.5.1.4.1.1.3.1", "US", FrameTime="33")
    path = save(cine, tmp_path / "c.dcm")
    with pytest.raises(InputError, match=r"c.dcm holds 9 frames without positions.* not slices"):
        read_volume(path)
    [series] = list_series(tmp_path)
    assert (series.slices, "without positions" in series.warning) == (9, True)


def test_four_dimensional_series_are_offered(tmp_path):
    """Nothing but the instance number tells the time points apart."""
    pixels = noise(6, 4, 6)
    write_slices(tmp_path, pixels, [0, 3, 6, 0, 3, 6])
    series = list_series(tmp_path)
    assert [one.label for one in series] == ["scan repetition 1", "scan repetition 2"]
    assert np.array_equal(read_series(series[1], tmp_path).array, pixels[3:])


def test_b_value_and_direction_together_part_a_series(tmp_path):
    pixels = noise(6, 4, 6)

    def each(out, index):
        volume = index // 2
        out.DiffusionBValue = [0.0, 1000.0, 1000.0][volume]
        out.DiffusionGradientOrientation = [[0.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0]][volume]
        out.InstanceNumber = 1

    write_slices(tmp_path, pixels, [0, 3] * 3, each=each)
    series = list_series(tmp_path)
    assert [one.slices for one in series] == [2, 2, 2]
    assert len({one.label for one in series}) == 3


def test_a_request_for_another_series_is_another(tmp_path):
    from napari_dino_uad.cli.resume import Request

    model = tmp_path / "m"
    model.write_bytes(b"model")
    plain, chosen = (Request.of(model, 0.05, None, uid) for uid in (None, "1.2.3#2"))
    assert "series" not in plain.entries(model)
    assert chosen.entries(model)["series"] == "1.2.3#2"


def test_a_frame_that_nothing_places_is_missed(tmp_path):
    pixels = noise(5, 4, 6)
    path = enhanced(tmp_path / "e.dcm", pixels, [frame_groups(3 * place) for place in range(4)])
    with pytest.raises(InputError, match=r"e.dcm is damaged: its header places 4 frames, but 5"):
        read_volume(path)


def test_a_mosaic_in_an_enhanced_object_is_refused(tmp_path):
    kind = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    groups = [frame_groups(0, time=1), frame_groups(0, time=2)]
    path = enhanced(tmp_path / "m.dcm", noise(2, 8, 12), groups, ImageType=kind)
    for series in series_in(path):
        with pytest.raises(InputError, match=r"m.dcm is a Siemens mosaic .* position of each"):
            read_volume(path, series.uid)
    for group in groups:
        group.MRImageFrameTypeSequence = item(FrameType=kind)
    path = enhanced(tmp_path / "n.dcm", noise(2, 8, 12), groups)
    with pytest.raises(InputError, match=r"n.dcm is a Siemens mosaic"):
        read_series(series_in(path)[0], path)


def lookup_table(first, table, kind="US"):
    out = item(ModalityLUTType="US")
    out[0].add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table), first, 16])
    values = table if kind == "US" else np.array(table, "<u2").tobytes()
    out[0].add_new("LUTData", kind, values)
    return out


@pytest.mark.parametrize("compressed", [False, True])
def test_a_table_of_values_is_applied(tmp_path, compressed):
    from pydicom.uid import RLELossless

    pixels = np.arange(24, dtype=np.uint16).reshape(1, 4, 6)
    table = (np.arange(20) ** 2 + 7).tolist()

    def each(out, index):
        out.ModalityLUTSequence = lookup_table(2, table, "OW" if compressed else "US")
        if compressed:
            out.compress(RLELossless, generate_instance_uid=False)

    folder = write_slices(tmp_path / "s", pixels, [0], each=each, sop_class=CT)
    expected = np.array(table)[np.clip(pixels.astype(int) - 2, 0, 19)]
    assert np.array_equal(read_volume(folder).array, expected)


def test_a_table_for_signed_values_and_dark_ones(tmp_path):
    pixels = np.arange(-12, 12, dtype=np.int16).reshape(4, 6)
    out = dataset(pixels, ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=list(AXIAL))
    out.PixelSpacing = [2, 1]
    out.ModalityLUTSequence = lookup_table(-12, list(range(100, 148, 2)))
    assert read_volume(save(out, tmp_path / "a.dcm")).array.ravel().tolist() == list(
        range(100, 148, 2)
    )
    out.PhotometricInterpretation = "MONOCHROME1"
    assert read_volume(save(out, tmp_path / "b.dcm")).array.ravel().tolist() == list(
        range(46, -2, -2)
    )


def test_a_cut_table_of_values_is_refused(tmp_path):
    out = dataset(noise(1, 4, 6)[0])
    out.ModalityLUTSequence = lookup_table(0, [1, 2, 3])
    out.ModalityLUTSequence[0].LUTDescriptor = [900, 0, 16]
    path = save(out, tmp_path / "t.dcm")
    with pytest.raises(InputError, match=r"t.dcm is damaged: a whole table from stored values"):
        read_volume(path)
