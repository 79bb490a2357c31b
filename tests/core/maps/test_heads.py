"""Skull, scalp, and what distinguishes a scan from a cohort."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dino_uad.core.maps.domain_shift import differences
from napari_dino_uad.core.maps.heads import has_skull, scalp
from napari_dino_uad.core.maps.places import TissueFrame
from napari_dino_uad.core.scans.phantom import make_phantom
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

PLAIN = Preprocessing()


@pytest.fixture(scope="module")
def head():
    return make_phantom(0).volume


@pytest.fixture(scope="module")
def stripped(head):
    """The brain alone: what lies far enough below the surface of the head."""
    from scipy import ndimage

    scan = prepare(head, PLAIN)
    array = head.array.copy()
    for index, tissue in enumerate(scan.foreground):
        filled = ndimage.binary_fill_holes(tissue)
        depth = ndimage.distance_transform_edt(filled, sampling=head.spacing_mm[1:])
        array[index][depth < 18] = 0
    return replace(head, array=array)


def told(volume, preprocessing=PLAIN, name=""):
    scan = prepare(volume, preprocessing)
    frame = TissueFrame.of(volume, scan.foreground)
    return differences(volume, scan, frame, preprocessing, name)


def test_a_skull_is_seen(head, stripped):
    assert has_skull(prepare(head, PLAIN)) is True
    assert has_skull(prepare(stripped, PLAIN)) is False


def test_no_tissue_has_no_skull(head):
    scan = prepare(head, PLAIN)
    assert has_skull(replace(scan, foreground=np.zeros_like(scan.foreground))) is None


def test_the_scalp_lies_around_the_brain(head, stripped):
    scan = prepare(head, PLAIN)
    found = scalp(scan)
    assert found is not None
    assert 0.05 < found.sum() / scan.foreground.sum() < 0.5
    middle = tuple(n // 2 for n in head.shape)
    assert not found[middle]
    assert not found[~scan.foreground].any()
    assert scalp(prepare(stripped, PLAIN)) is None


def test_a_missing_skull_is_named(head, stripped):
    assert "skull-stripped" in told(stripped).text
    assert "skull-stripped" not in told(head).text


def test_sequences_are_compared_by_name(head):
    t1 = replace(head, name="sub-01_T1w", path=None)
    assert "its name says T1, that of the model FLAIR" in told(t1, name="FLAIR heads").text
    flair = replace(head, name="p1_flair", path=None)
    assert not told(flair, name="FLAIR heads").known
    assert not told(t1, name="lgg_dpmm").known


def test_ct_and_mr_are_told_apart(head):
    hounsfield = replace(head, array=head.array - 1000)
    assert "CT" in told(hounsfield).known[0]
    mr = replace(head, modality="MR")
    assert "MR" in told(mr, Preprocessing(window=(40, 80))).known[0]


def test_another_plane_and_coarse_slices_are_named():
    array = np.random.default_rng(0).random((64, 20, 64)).astype(np.float32)
    volume = volume_from_array(array, (1.0, 5.0, 1.0), (0.0, 0.0, 0.0), "coronal")
    text = told(volume).text
    assert "acquired in coronal slices, and the model reads axial ones" in text
    assert "only 20 pixels wide" in text


def test_spacing_is_a_fact_to_check(head):
    assert "mm apart" in told(head).text
