"""Planes, intensities, foreground, and the patch grid there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.intensity import IntensityScale
from napari_dino_uad.core.slices.patch_grid import PatchGrid
from napari_dino_uad.core.slices.planes import (
    PLANES,
    from_plane,
    plane_axis,
    plane_spacing_mm,
    to_plane,
)
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing


@pytest.fixture
def array():
    return np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("plane", PLANES)
def test_planes_there_and_back(array, plane):
    view = to_plane(array, plane)
    np.testing.assert_array_equal(from_plane(view, plane), array)
    assert len(view) == array.shape[plane_axis(plane)]


def test_head_is_up_in_coronal_and_sagittal_slices(array):
    # Axis 0 of the volume runs feet to head, and row 0 of a slice is at its top.
    np.testing.assert_array_equal(to_plane(array, "coronal")[2][0], array[-1, 2, :])
    np.testing.assert_array_equal(to_plane(array, "sagittal")[3][0], array[-1, :, 3])


def test_spacing_follows_the_plane(array):
    volume = volume_from_array(array, spacing_mm=(5, 2, 1))
    assert plane_spacing_mm(volume, "axial") == (5, 2, 1)
    assert plane_spacing_mm(volume, "coronal") == (2, 5, 1)
    assert plane_spacing_mm(volume, "sagittal") == (1, 5, 2)


def test_lengths_without_spacing_are_in_pixels():
    small = np.random.default_rng(0).random((1, 100, 150))
    preprocessing = Preprocessing(input_size=200)
    unknown = volume_from_array(small, (1, 1, 1), spacing_known=False)
    assert prepare(unknown, preprocessing).spacing_mm == (2, 2, 2)
    large = volume_from_array(small.repeat(3, 1).repeat(3, 2), spacing_known=False)
    scan = prepare(large, preprocessing)
    assert scan.spacing_mm == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert scan.grid(8, 8).content_shape == (200, 300)
    # A pixel's edge in mm stays what it is.
    assert prepare(volume_from_array(small, (5, 0.5, 0.5)), preprocessing).spacing_mm[1] == 0.5


def _head(peak=1000.0, background=0.0):
    rows, cols = np.mgrid[:64, :64]
    inside = (rows - 32) ** 2 + (cols - 32) ** 2 < 24**2
    tissue = np.random.default_rng(1).normal(0.6, 0.08, (8, 64, 64))
    return np.where(inside, tissue * peak, background).astype(np.float32), inside


def scale_intensity(array, preprocessing):
    return IntensityScale.of(array, preprocessing).apply(array)


def test_automatic_scaling_takes_no_notice_of_units():
    small, inside = _head(1.0)
    large, _ = _head(30_000.0)
    preprocessing = Preprocessing()
    np.testing.assert_allclose(
        scale_intensity(small, preprocessing), scale_intensity(large, preprocessing), atol=1e-5
    )
    foreground = scale_intensity(small, preprocessing) > preprocessing.foreground_threshold
    np.testing.assert_array_equal(foreground, np.broadcast_to(inside, foreground.shape))


def test_a_negative_background_is_not_tissue():
    head, inside = _head(background=-16.0)
    scaled = scale_intensity(head, Preprocessing())
    assert scaled.min() == 0
    assert (scaled[:, ~inside] == 0).all()


def test_percentile_is_that_of_the_foreground():
    head, inside = _head()
    scaled = scale_intensity(head, Preprocessing(percentile=99.5))
    assert (scaled[:, inside] >= 1).mean() == pytest.approx(0.005, abs=0.002)


def test_ct_window():
    hounsfield = np.array([-1000, 0, 40, 80, 3000], dtype=np.float32)
    scaled = scale_intensity(hounsfield[None, None], Preprocessing(window=(40, 80)))
    np.testing.assert_allclose(scaled[0, 0], [0, 0, 0.5, 1, 1])


def test_settings_survive_a_file_header():
    settings = Preprocessing(plane="coronal", window=(40, 80), neighbours=False)
    assert Preprocessing.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"plane": "oblique"}, "axial, coronal, sagittal"),
        ({"input_size": 8}, "at least 64"),
        ({"window": (40, 0)}, "above 0"),
    ],
)
def test_wrong_settings_are_refused(values, text):
    with pytest.raises(InputError, match=text):
        Preprocessing(**values)


@pytest.mark.parametrize(
    ("shape", "pixel_mm"), [((256, 256), (1, 1)), ((240, 155), (1, 1)), ((26, 256), (5.5, 1.0))]
)
def test_input_has_square_pixels_and_whole_patches(shape, pixel_mm):
    grid = PatchGrid.fit(shape, pixel_mm, 256, 8, 32)
    assert all(edge % 32 == 0 for edge in grid.input_shape)
    assert min(grid.content_shape) == 256
    millimetres = [n * mm for n, mm in zip(shape, pixel_mm, strict=True)]
    ratio = grid.content_shape[0] / grid.content_shape[1]
    assert ratio == pytest.approx(millimetres[0] / millimetres[1], rel=0.01)
    assert grid.shape == (grid.input_shape[0] // 8, grid.input_shape[1] // 8)


def test_a_spot_returns_to_where_it_was():
    grid = PatchGrid.fit((200, 160), (1, 1), 256, 8, 32)
    mask = np.zeros((1, 200, 160), dtype=np.float32)
    mask[0, 120:140, 40:60] = 1
    back = grid.to_slices(grid.to_grid(mask))[0]
    rows, cols = np.indices(back.shape)
    weight = back.sum()
    assert (rows * back).sum() / weight == pytest.approx(129.5, abs=0.7)
    assert (cols * back).sum() / weight == pytest.approx(49.5, abs=0.7)


@pytest.mark.parametrize(("slice_shape", "pixel_mm"), [((50, 70), (1.0, 1.3)), ((96, 128), (1, 1))])
def test_maps_are_enlarged_bilinearly(slice_shape, pixel_mm):
    grid = PatchGrid.fit(slice_shape, pixel_mm, 96, 8, 32)
    maps = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32)
    options = {"mode": "bilinear", "align_corners": False}
    full = F.interpolate(torch.from_numpy(maps)[:, None], grid.input_shape, **options)
    content = full[..., : grid.content_shape[0], : grid.content_shape[1]]
    expected = F.interpolate(content, slice_shape, **options)[:, 0]
    np.testing.assert_allclose(grid.to_slices(maps), expected, atol=1e-5)


def test_neighbouring_slices_are_the_channels():
    head, _ = _head()
    head *= np.arange(1, 9, dtype=np.float32)[:, None, None] / 8
    scan = prepare(volume_from_array(head), Preprocessing(input_size=64))
    images = scan.images([0, 4], scan.grid(8, 32))
    assert images.shape == (2, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    plain = images * std + mean
    np.testing.assert_allclose(plain[1].numpy(), scan.values(slice(3, 6)), atol=1e-5)
    # The first slice stands in for the one before it.
    np.testing.assert_allclose(plain[0].numpy(), scan.values([0, 0, 1]), atol=1e-5)
    single = prepare(volume_from_array(head), Preprocessing(input_size=64, neighbours=False))
    plain = single.images([4], single.grid(8, 32))[0] * std + mean
    np.testing.assert_allclose(plain.numpy(), single.values([4, 4, 4]), atol=1e-5)


def test_a_2d_image_has_one_plane():
    image = volume_from_array(_head()[0][0], name="photo")
    assert len(prepare(image, Preprocessing(input_size=64))) == 1
    with pytest.raises(InputError, match="single 2D image"):
        prepare(image, Preprocessing(plane="coronal"))


def _white_corners(rows=80, cols=120):
    """A slice of noisy tissue, turned, with what was added at its top and one corner in white."""
    tissue = np.random.default_rng(3).uniform(60, 140, (1, rows, cols)).astype(np.float32)
    row, col = np.mgrid[:rows, :cols]
    padding = (row < 12 - col / 20) | (row + col > rows + cols - 14)
    return np.where(padding, np.float32(255), tissue), padding


def test_bright_padding_is_no_tissue():
    image, padding = _white_corners()
    prepared = prepare(volume_from_array(image), Preprocessing())
    np.testing.assert_array_equal(prepared.foreground[0], ~padding)
    # The brightest tissue is white, although the padding is nearly twice as bright.
    assert (prepared.values([0])[0, ~padding] >= 1).mean() == pytest.approx(0.005, abs=0.002)
    window = prepare(volume_from_array(image), Preprocessing(window=(100, 200)))
    np.testing.assert_array_equal(window.foreground[0], ~padding)


def test_bright_tissue_that_reaches_a_corner_is_no_padding():
    image, padding = _white_corners()
    noisy = image + np.random.default_rng(4).normal(0, 1, image.shape).astype(np.float32)
    assert prepare(volume_from_array(noisy), Preprocessing()).foreground[0][padding].all()
    inside, _ = _white_corners()
    inside[0, 30:50, 40:70] = 255
    assert prepare(volume_from_array(inside), Preprocessing()).foreground[0, 30:50, 40:70].all()


def test_a_drawing_of_plain_areas_keeps_them():
    drawing = np.full((1, 64, 64), 100, np.float32)
    drawing[0, :, 32:] = 200
    assert prepare(volume_from_array(drawing), Preprocessing()).foreground.all()


@pytest.mark.parametrize(
    ("shape", "pixel_mm"), [((256, 256), (1, 1)), ((240, 155), (1, 1)), ((26, 256), (5.5, 1.0))]
)
def test_the_share_of_a_patch_is_that_of_the_resized_slice(shape, pixel_mm):
    grid = PatchGrid.fit(shape, pixel_mm, 256, 8, 32)
    masks = np.random.default_rng(0).uniform(size=(3, *shape)) > 0.6
    images = F.interpolate(
        torch.from_numpy(masks.astype(np.float32))[:, None], grid.content_shape, mode="area"
    )
    below, right = (
        whole - part for whole, part in zip(grid.input_shape, grid.content_shape, strict=True)
    )
    expected = F.avg_pool2d(F.pad(images, (0, right, 0, below)), 8)[:, 0]
    np.testing.assert_allclose(grid.to_grid(masks), expected.numpy(), atol=1e-5)


def test_small_masks_are_asked_for_a_share():
    grid = PatchGrid.fit((100, 120), (1.0, 1.3), 128, 8, 32)
    chance = np.random.default_rng(1)
    masks = np.zeros((60, 100, 120), dtype=bool)
    for number, mask in enumerate(masks):
        row, column, edge = chance.integers(0, 90), chance.integers(0, 110), number // 6
        mask[row : row + edge, column : column + edge] = True
    reached = grid.to_grid(masks).max(axis=(1, 2)) > 0.25
    told = grid.may_exceed(masks, 0.25)
    assert told[reached].all()
    assert reached.any()
    assert not told[:6].any()


def test_input_without_imagenet_is_in_zero_to_one(ill):
    usual = prepare(ill.volume, Preprocessing())
    plain = prepare(ill.volume, Preprocessing(imagenet=False))
    grid = usual.grid(8, 32)
    expected = usual.images([10], grid)[0]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    seen = plain.images([10], grid)[0]
    assert torch.allclose(seen, expected * deviation + mean, atol=1e-6)
    assert 0 <= float(seen.min()) < float(seen.max()) <= 1
    # Settings of earlier models and caches stay the same.
    assert "imagenet" not in Preprocessing().to_dict()
    assert Preprocessing.from_dict(plain.preprocessing.to_dict()) == plain.preprocessing
