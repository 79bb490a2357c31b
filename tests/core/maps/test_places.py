"""Sides of findings in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dino_uad.core.maps.places import TissueFrame, describe_side, place_mm
from napari_dino_uad.core.scans.phantom import make_phantom
from napari_dino_uad.core.scans.volume import volume_from_array


def block(shape=(30, 60, 60), spacing=(5.0, 2.0, 2.0), margin=10):
    """A volume with a block of tissue in the middle."""
    array = np.zeros(shape, np.float32)
    inside = (slice(None), slice(margin, -margin), slice(margin, -margin))
    array[inside] = 1
    return volume_from_array(array, spacing, (0.0, 0.0, 0.0), "block"), array > 0


@pytest.mark.parametrize(
    ("voxel", "words"),
    [
        ((15, 30, 12), "right side"),
        ((15, 30, 48), "left side"),
        ((15, 30, 30), "midline"),
        ((15, 12, 12), "right side, front"),
        ((27, 48, 48), "upper left side, back"),
        ((2, 30, 30), "lower midline"),
    ],
)
def test_sides_are_told_from_the_tissue(voxel, words):
    volume, tissue = block()
    assert describe_side(volume, voxel, tissue) == words


@pytest.mark.parametrize(
    ("voxel", "words"),
    [
        ((15, 12, 12), "right frontal side"),
        ((27, 12, 48), "upper left frontal side"),
        ((15, 48, 30), "occipital midline"),
        ((27, 48, 12), "upper right side, back"),
        ((2, 12, 12), "lower right side, front"),
        ((15, 30, 12), "right side"),
    ],
)
def test_heads_get_words_of_the_head(voxel, words):
    volume, tissue = block()
    assert describe_side(volume, voxel, tissue, head=True) == words


def test_the_centre_is_that_of_the_tissue():
    volume, tissue = block()
    tissue[:, :, :30] = False
    assert describe_side(volume, (15, 30, 32), tissue) == "right side"


def test_rotated_scans_keep_their_sides():
    volume, tissue = block()
    turn = np.deg2rad(20)
    rotation = np.array(
        [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    )
    turned = replace(volume, direction=rotation)
    for voxel in ((15, 30, 12), (15, 12, 30), (15, 48, 48)):
        right, front, _ = np.array(turned.to_ras_mm(voxel)) - turned.to_ras_mm((15, 30, 30))
        words = describe_side(turned, voxel, tissue)
        assert ("right" in words) == (right > 5)
        assert ("front" in words) == (front > 15)


def test_phantom_heads_are_heads_and_blocks_are_not():
    head = make_phantom(0)
    tissue = head.volume.array > 0.1 * head.volume.array.max()
    assert TissueFrame.of(head.volume, tissue).head
    assert not TissueFrame.of(*block()).head
    whole = np.ones(head.volume.shape, bool)
    assert not TissueFrame.of(head.volume, whole).head


def test_pictures_have_no_sides():
    volume = volume_from_array(
        np.eye(20, dtype=np.float32),
        (1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0),
        "picture",
        spacing_known=False,
    )
    assert describe_side(volume, (0, 3, 4), None) == ""


def test_a_single_slice_has_no_height():
    volume, tissue = block()
    one = replace(volume, array=volume.array[15:16], is_2d=True)
    assert describe_side(one, (0, 12, 12), tissue[15:16]) == "right side, front"


def test_empty_tissue_counts_as_the_whole_volume():
    volume, tissue = block()
    assert describe_side(volume, (15, 30, 5), np.zeros_like(tissue)) == "right side"


def test_one_scan_has_one_notation_that_fits_its_sides():
    def scan(origin, shape=(10, 20, 31)):
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        return volume_from_array(array, (2.0, 2.0, 2.0), origin, "scan")

    # Axes run up, back and left; zero is in the middle between right and left.
    centred = scan((-4.0, 6.0, -30.0))
    assert place_mm(centred, (3, 4, 0)) == "R 30 P 14 S 2 mm"
    assert place_mm(centred, (0, 4, 30)) == "L 30 P 14 I 4 mm"
    # With zero at the right edge every place would lie on the left.
    for origin in (0.0, -60.0, 200.0):
        told = {place_mm(scan((0.0, 0.0, origin)), (3, 4, one))[:4] for one in (0, 15, 30)}
        assert told == {"RAS "}
    assert place_mm(scan((0.0, 0.0, 0.0)), (3, 4, 0)) == "RAS 0, -8, 6 mm"
    unknown = replace(centred, spacing_known=False)
    assert place_mm(unknown, (3, 4, 0)) == ""


def test_noise_around_a_head_is_no_part_of_it():
    head = make_phantom(0)
    tissue = head.volume.array > 0.1 * head.volume.array.max()
    clean = TissueFrame.of(head.volume, tissue)
    noisy = tissue | (np.random.default_rng(0).random(tissue.shape) < 0.02)
    frame = TissueFrame.of(head.volume, noisy)
    assert frame.head
    np.testing.assert_allclose(frame.half, clean.half, atol=5)
    np.testing.assert_allclose(frame.centre, clean.centre, atol=5)
