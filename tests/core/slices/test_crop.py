"""The box around a mask."""

import numpy as np
import pytest

from napari_dino_uad.core.slices.crop import tight_box


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("margin", [0, 2])
def test_box_holds_the_mask_and_no_more(ndim, margin):
    chance = np.random.default_rng(ndim)
    for _ in range(20):
        mask = chance.uniform(size=(9, 11, 7)[:ndim]) > 0.97
        if not mask.any():
            continue
        places = np.argwhere(mask)
        for side, low, high, size in zip(
            tight_box(mask, margin), places.min(0), places.max(0), mask.shape, strict=True
        ):
            assert side.start == max(0, low - margin)
            assert side.stop == min(size, high + 1 + margin)


def test_box_of_nothing_is_empty():
    assert np.zeros((4, 5))[tight_box(np.zeros((4, 5), dtype=bool), 3)].size == 0
