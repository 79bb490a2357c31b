"""Explanations of a map agree with the map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dino_uad import Case, detect, drain, fit, load_backbone
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.explain.overlays import explain_scan, kinds_of, patch_placement
from napari_dino_uad.core.explain.parts import place_of, score_parts, typical_rate
from napari_dino_uad.core.explain.slices import Explainer
from napari_dino_uad.core.maps.colours import ColourAxes
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE
from napari_dino_uad.core.slices.patch_grid import PatchGrid
from napari_dino_uad.core.slices.planes import PLANES, plane_index, to_plane

SMALL = {
    "dpmm": {"components": 40, "epochs": 1, "max_patches": 8000},
    "ar": {"epochs": 1, "hidden": 16},
    "memory-bank": {"patches": 500},
    "fusion": {"members": ("memory-bank", "dpmm")},
}


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(PHANTOM_BACKBONE)


@pytest.fixture(scope="module")
def explainer(model, ill, backbone):
    return Explainer(drain(detect(ill.volume, model, backbone=backbone)), backbone)


def explained(explainer, index):
    return next(one for one in explainer.slices([index]) if one is not None)


def lesion_voxel(anomaly, ill):
    scores = np.where(ill.lesion & anomaly.foreground, anomaly.scores, -np.inf)
    return np.unravel_index(int(scores.argmax()), scores.shape)


def test_parts_sum_to_the_score_of_the_map(explainer, ill):
    anomaly = explainer.anomaly
    place = place_of(anomaly, lesion_voxel(anomaly, ill))
    parts = score_parts(anomaly, explained(explainer, place.index), place)
    summed = (
        parts.model + parts.symmetry + parts.brightness + parts.smoothing + parts.centring
        + parts.planes + parts.edges
    )  # fmt: skip
    assert summed == pytest.approx(parts.score, abs=1e-5)
    assert parts.score == pytest.approx(float(anomaly.scores[place.voxel]), abs=1e-5)
    assert parts.planes == 0
    assert parts.centring != 0
    assert parts.brightness > 0
    assert parts.model > 1
    assert parts.false_positive_rate < 0.05


def test_patch_scores_are_those_of_the_model(explainer, model, ill):
    index = int(ill.lesion.sum(axis=(1, 2)).argmax())
    one = explained(explainer, index)
    packed = explainer._entry.read([index])
    bright = explainer.anomaly.scan.brightness([index], explainer.grid)
    usual = explainer.anomaly.scan.usual_brightness
    scores, _ = model.score(packed, one.tissue[None], brightness=bright, usual=usual)
    summed = one.model + one.symmetry + one.brightness
    np.testing.assert_allclose(summed[one.tissue], scores[0][one.tissue], 1e-3, 1e-3)


def test_a_lesion_is_far_from_typical_tissue(explainer, ill):
    anomaly = explainer.anomaly
    lesion = typical_rate(anomaly, place_of(anomaly, lesion_voxel(anomaly, ill)))
    assert lesion < 0.05
    assert typical_rate(anomaly, place_of(anomaly, (0, 0, 0))) is None


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("dpmm", ["component", "colours", "mirror"]),
        ("ar", ["colours", "observed", "expected", "residual", "mirror"]),
        ("memory-bank", ["colours", "mirror"]),
        ("fusion", ["component", "colours", "mirror"]),
    ],
)
def test_every_method_says_what_it_can_show(method, kinds, healthy, ill, backbone):
    cases = [Case(head.volume) for head in healthy]
    model = drain(fit(cases, method=method, settings=SMALL[method], backbone=backbone))
    anomaly = drain(detect(ill.volume, model, backbone=backbone))
    one = explained(Explainer(anomaly, backbone), int(anomaly.foreground.sum((1, 2)).argmax()))
    assert kinds_of(one) == kinds
    if method == "fusion":
        assert set(one.p_values) == {"memory-bank", "dpmm"}
        assert all((0 < rates).all() and (rates <= 1).all() for rates in one.p_values.values())
    if method == "ar":
        assert one.expected.shape == (*one.tissue.shape, 3)
        assert not np.array_equal(one.expected, one.observed)


def test_the_component_map_covers_the_tissue(explainer):
    overlay = drain(explain_scan(explainer, "component"))
    anomaly = explainer.anomaly
    assert overlay.array.dtype == np.uint16
    count = len(explainer.mixture.mixture.components)
    assert 1 < len(np.unique(overlay.array)) and overlay.array.max() <= count
    index = explainer.scored[len(explainer.scored) // 2]
    one = explained(explainer, index)
    rows, columns = explainer.grid.content
    inside = one.tissue[:rows, :columns]
    np.testing.assert_array_equal(overlay.array[index] > 0, inside)
    # The patch of a voxel is where the overlay puts it.
    voxel = np.argwhere(anomaly.foreground[index])[1000]
    place = place_of(anomaly, (index, *voxel))
    at = [
        round((v - f) / s)
        for v, f, s in zip(voxel, overlay.first[1:], overlay.step[1:], strict=True)
    ]
    assert np.abs(np.subtract(at, place.patch)).max() == 0


def test_another_backbone_is_refused(explainer):
    with pytest.raises(InputError, match="fitted on"):
        Explainer(explainer.anomaly, load_backbone("efficientnet-lite0@2"))


@pytest.mark.parametrize("plane", PLANES)
def test_a_voxel_is_found_in_its_plane(plane):
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    place = plane_index((1, 2, 4), array.shape, plane)
    assert to_plane(array, plane)[place] == array[1, 2, 4]


@pytest.mark.parametrize("plane", PLANES)
def test_patches_lie_on_the_voxels_they_cover(plane):
    shape = (40, 50, 60)
    rows, columns = to_plane(np.zeros(shape), plane).shape[1:]
    grid = PatchGrid.fit((rows, columns), (1.0, 1.0), 64, 8, 8)
    step, first = patch_placement(shape, grid.patch_pixels, grid.content, plane)
    voxel = (13, 21, 34)
    _, row, column = plane_index(voxel, shape, plane)
    patch = grid.patch_at(row, column)
    counts = dict(zip("rc", grid.content, strict=True))
    at = [(v - f) / s for v, f, s in zip(voxel, first, step, strict=True)]
    axes = {"axial": (1, 2), "coronal": (0, 2), "sagittal": (0, 1)}[plane]
    own = [round(at[axis]) for axis in axes]
    if plane != "axial":
        own[0] = counts["r"] - 1 - own[0]
    assert tuple(own) == patch


def test_colours_use_their_range_and_keep_their_sign():
    torch.manual_seed(0)
    patches = torch.randn(500, 8) * torch.arange(1, 9)
    axes = ColourAxes.fit(patches)
    colours = axes.apply(patches.T[None, :, None])
    assert colours.shape == (1, 1, 500, 3) and colours.dtype == np.uint8
    assert colours.min() == 0 and colours.max() == 255
    again = ColourAxes.fit(patches.flip(0))
    np.testing.assert_allclose(again.axes, axes.axes, atol=1e-4)


def test_few_patches_leave_axes_black():
    axes = ColourAxes.fit(torch.eye(2))
    assert not axes.axes[2:].any()
