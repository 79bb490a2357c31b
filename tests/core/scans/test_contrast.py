"""The contrast a scan opens with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_dino_uad.core.scans.contrast import auto_limits, first_limits
from napari_dino_uad.core.scans.volume import volume_from_array


def volume_of(values, **fields):
    made = volume_from_array(np.asarray(values, np.float32), (1.0, 1.0, 1.0), (0, 0, 0), "scan")
    return replace(made, **fields)


def hounsfield():
    values = np.random.default_rng(0).normal(40, 10, (6, 20, 20))
    values[:, :5], values[:, -3:] = -1000, 900
    return values


def test_auto_leaves_the_background_out():
    values = np.zeros((4, 30, 30))
    values[2, 10:13, 10:13] = 100
    assert auto_limits(values) == (0.0, 100.0)
    assert auto_limits(np.zeros((3, 4, 4))) == (0.0, 1.0)
    # What resampling leaves below the background does not lift it.
    values[2, 9, 10:13] = -30
    assert auto_limits(values) == (0.0, 100.0)
    # Without a background the lowest value is black.
    values[0, 0, 0] = 7
    assert auto_limits(values)[0] == -30


def test_the_header_tells_ct_from_mr():
    soft_tissue = (-160.0, 240.0)
    assert first_limits(volume_of(hounsfield())) == soft_tissue
    assert first_limits(volume_of(hounsfield(), modality="MR")) != soft_tissue
    # Ringing of a bright MR scan falls as low as air in a few voxels.
    ringing = np.random.default_rng(0).normal(4000, 600, (6, 20, 20))
    ringing[2, 3, 4:9] = -800
    assert first_limits(volume_of(ringing)) != soft_tissue
    brain = np.random.default_rng(0).normal(300, 60, (6, 20, 20)).clip(1)
    assert first_limits(volume_of(brain, modality="CT")) == soft_tissue
    assert first_limits(volume_of(brain)) == auto_limits(brain.astype(np.float32))


def test_the_file_comes_first():
    assert first_limits(volume_of(hounsfield(), window=(300.0, 200.0))) == (200.0, 400.0)
