"""TIFF files of microscopes, scanners and other programs."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.image_files import read_image
from napari_dino_uad.core.scans.several import list_volumes
from napari_dino_uad.core.scans.volume import read_volume


def values(shape=(5, 40, 50), dtype=np.uint16) -> np.ndarray:
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32])
@pytest.mark.parametrize("packed", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_tiles_types_and_compression(tmp_path, dtype, packed, tile):
    array = (values() % 1000).astype(dtype)
    options = {"photometric": "minisblack", "compression": packed, "tile": tile}
    tifffile.imwrite(tmp_path / "scan.tif", array, **options)
    assert np.array_equal(read_image(tmp_path / "scan.tif").values, array)


def test_half_floats_keep_their_values(tmp_path):
    array = np.linspace(0, 1, 2000).reshape(40, 50).astype(np.float16)
    tifffile.imwrite(tmp_path / "scan.tif", array)
    volume = read_volume(tmp_path / "scan.tif")
    assert volume.is_2d and volume.array.max() == 1
    assert np.array_equal(volume.array[0], array.astype(np.float32))


def test_lzw_needs_no_other_package(tmp_path):
    array = values((3, 40, 50))
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "scan.tif"))
    writer.UseCompressionOn()
    writer.SetCompressor("LZW")
    writer.Execute(sitk.GetImageFromArray(array))
    assert np.array_equal(read_image(tmp_path / "scan.tif").values, array)


def test_channels_are_no_slices(tmp_path):
    tifffile.imwrite(
        tmp_path / "scan.tif", values((5, 3, 40, 50)), imagej=True, metadata={"axes": "ZCYX"}
    )
    with pytest.raises(InputError, match="has 3 channels, but one grey value is expected"):
        read_volume(tmp_path / "scan.tif")


def test_frames_of_a_hyperstack_are_volumes(tmp_path):
    array = values((3, 5, 40, 50))
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "TZYX"})
    assert len(list_volumes(path)) == 3
    assert np.array_equal(read_image(path, 2).values, array[1])
    assert "has 3 volumes; volume 1 is read" in read_volume(path).notices[0]


def test_unknown_axes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "scan.ome.tif", values((3, 5, 40, 50)), metadata={"axes": "QZYX"})
    with pytest.raises(InputError, match="has the axes QZYX of 3 x 5 x 40 x 50"):
        read_volume(tmp_path / "scan.ome.tif")


@pytest.mark.parametrize("unit", ["micron", "um", "mm"])
def test_spacing_of_imagej(tmp_path, unit):
    mm = 1 if unit == "mm" else 1e-3
    tifffile.imwrite(
        tmp_path / "scan.tif",
        values(),
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZYX", "spacing": 3.0, "unit": unit},
    )
    volume = read_volume(tmp_path / "scan.tif")
    assert volume.spacing_known
    assert volume.spacing_mm == pytest.approx((3 * mm, 0.5 * mm, 0.25 * mm))


def test_spacing_of_ome(tmp_path):
    tifffile.imwrite(
        tmp_path / "scan.ome.tif",
        values(),
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 2.0,
            "PhysicalSizeY": 4.0,
            "PhysicalSizeZ": 8.0,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZUnit": "µm",
        },
    )
    volume = read_volume(tmp_path / "scan.ome.tif")
    assert volume.spacing_known
    assert volume.spacing_mm == pytest.approx((0.008, 0.004, 0.002))


def test_the_resolution_of_a_printer_is_no_spacing(tmp_path):
    options = {"resolution": (300, 150), "resolutionunit": "inch"}
    tifffile.imwrite(tmp_path / "scan.tif", values((40, 50)), **options)
    volume = read_volume(tmp_path / "scan.tif")
    assert not volume.spacing_known
    assert volume.spacing_mm == (1, 2, 1)
    fields = {"axes": "ZYX", "unit": "inch", "spacing": 1.0}
    tifffile.imwrite(
        tmp_path / "scan.tif", values(), imagej=True, resolution=(4, 4), metadata=fields
    )
    assert not read_volume(tmp_path / "scan.tif").spacing_known


def test_pages_of_colour_are_refused_and_grey_in_colour_opens(tmp_path):
    path = tmp_path / "scan.tif"
    grey = values((40, 50), np.uint8)
    for planar in ("contig", "separate"):
        rgb = np.stack([grey] * 3, axis=-1 if planar == "contig" else 0)
        tifffile.imwrite(path, rgb, photometric="rgb", planarconfig=planar)
        assert np.array_equal(read_image(path).values[0], grey)
    tifffile.imwrite(path, values((5, 40, 50, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="3 values in every voxel"):
        read_volume(path)


def test_a_palette_of_greys_and_of_colours(tmp_path):
    path = tmp_path / "scan.tif"
    indices = values((40, 50), np.uint8)
    grey = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(path, indices, photometric="palette", colormap=grey)
    assert np.array_equal(read_image(path).values[0], 255 - indices)
    grey[1] = 0
    tifffile.imwrite(path, indices, photometric="palette", colormap=grey)
    colour = read_volume(path).colour[0]
    assert np.array_equal(colour[..., 0], 255 - indices)
    assert not colour[..., 1].any()


def test_complex_numbers_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "scan.tif", values((40, 50)).astype(np.complex64))
    with pytest.raises(InputError, match="complex numbers, but grey values"):
        read_volume(tmp_path / "scan.tif")
