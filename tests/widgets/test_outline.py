"""Smooth outlines of findings."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_dino_uad.widgets.results.outline import outlines

RED = (1.0, 0.0, 0.0, 1.0)


def disc(size=256, radius=40.0, label=1):
    rows, columns = np.ogrid[:size, :size]
    centre = size / 2
    inside = (rows - centre) ** 2 + (columns - centre) ** 2 < radius**2
    return np.where(inside, label, 0).astype(np.uint8)


def test_an_outline_is_smooth_and_keeps_to_its_region():
    points, colours = outlines(disc(), lambda _: RED)
    middle = points - 128
    assert np.abs(np.hypot(*middle.T) - 40).max() < 0.6
    # Each line runs across the radius; those of a staircase deviate by 45 degrees.
    lines = middle[1::2] - middle[::2]
    radial = (lines * middle[::2]).sum(axis=1)
    length = np.hypot(*lines.T) * np.hypot(*middle[::2].T)
    assert np.abs(radial / np.maximum(length, 1e-6))[length > 1].max() < 0.5
    assert np.hypot(*lines.T).sum() == pytest.approx(2 * np.pi * 40, rel=0.02)
    assert (colours == RED).all()


def test_outlines_are_closed():
    points, _ = outlines(disc(radius=20), lambda _: RED)
    ends, counts = np.unique(points.round(3), axis=0, return_counts=True)
    assert (counts == 2).mean() > 0.99
    assert len(ends) == len(points) // 2


def test_every_region_has_its_colour():
    image = disc(radius=20)
    image[10:20, 10:20] = 3
    points, colours = outlines(image, lambda label: RED if label == 1 else (0, 0, 1, 1))
    blue = colours[:, 2] == 1
    assert points[blue].max() < 21 and points[~blue].min() > 100


def test_a_single_voxel_is_outlined():
    image = np.zeros((20, 20), np.uint8)
    image[7, 5] = 1
    points, _ = outlines(image, lambda _: RED)
    np.testing.assert_allclose(points.mean(axis=0), (5, 7), atol=0.2)


def test_regions_without_colour_and_empty_slices_have_none():
    assert not len(outlines(disc(), lambda _: None)[0])
    assert not len(outlines(np.zeros((5, 5), np.uint8), lambda _: RED)[0])


@pytest.mark.slow
def test_an_outline_takes_less_than_a_frame():
    image = disc(240, 60.0)
    image[5:30, 5:40] = 2
    outlines(image, lambda _: RED)
    best = min(_seconds(image) for _ in range(10))
    assert best < 0.016


def _seconds(image):
    start = time.perf_counter()
    outlines(image, lambda _: RED)
    return time.perf_counter() - start
