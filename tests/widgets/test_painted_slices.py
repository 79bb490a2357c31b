"""What the user has painted is found slice by slice."""

from __future__ import annotations

import numpy as np

from napari_dino_uad.widgets.results.found import painted_slices


def test_only_slices_that_were_painted_are_found():
    drawn = np.zeros((6, 5, 4), np.uint8)
    drawn[2] = 3
    now = drawn.copy()
    now[1, 2, 3] = 1
    now[2, 0] = 0
    painted = painted_slices(now, drawn)
    assert sorted(painted) == [1, 2]
    marked, changed = painted[1]
    assert np.argwhere(changed).tolist() == [[2, 3]] and marked[2, 3]
    marked, changed = painted[2]
    assert changed[0].all() and changed.sum() == 4 and not marked[0].any()


def test_another_number_is_no_change():
    drawn = np.ones((3, 4, 4), np.uint8)
    assert painted_slices(2 * drawn, drawn) == {}
