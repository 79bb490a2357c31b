"""The difference in brightness between left and right, and what readers look for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad import Case, detect, drain, fit, load_model, save_model
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.fit import remap
from napari_dino_uad.core.maps.brightness import (
    BRIGHTNESS_WEIGHTS,
    LESIONS,
    brightness_term,
    mirror_difference,
)
from napari_dino_uad.core.maps.healthy_scale import reweighted
from napari_dino_uad.core.maps.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.patch_grid import PatchGrid
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.slices.usual_brightness import UsualBrightness

SETTINGS = {"components": 40, "epochs": 2, "max_patches": 10_000}
RNG = np.random.default_rng(0)


def symmetric_slice(shift: int = 0):
    """A slice whose tissue and brightness are symmetric around a column."""
    rows, cols = np.ogrid[:20, :24]
    centre = 11.5 + shift
    tissue = (rows - 10) ** 2 + (cols - centre) ** 2 < 64
    brightness = (0.3 + 0.02 * np.abs(cols - centre) + 0.01 * rows).astype(np.float32)
    return np.where(tissue, brightness, 0)[None].astype(np.float32), tissue[None]


@pytest.mark.parametrize("shift", [0, 2])
def test_a_symmetric_slice_differs_nowhere(shift):
    brightness, tissue = symmetric_slice(shift)
    np.testing.assert_allclose(mirror_difference(brightness, tissue), 0, atol=1e-3)


def test_a_bright_lesion_is_brighter_than_its_mirror_image():
    brightness, tissue = symmetric_slice()
    brightness[0, 8:12, 5:9] += 0.5
    difference = mirror_difference(brightness, tissue)
    assert difference[0, 9, 6] > 0.3
    assert difference[0, 9, 17] == pytest.approx(-difference[0, 9, 6], abs=1e-3)
    assert not difference[~tissue].any()


def test_nothing_is_compared_where_one_side_has_no_tissue():
    brightness, tissue = symmetric_slice()
    tissue[0, 8:13, 5:9] = False
    brightness[~tissue] = 0
    centroid = (tissue.sum(1) * np.arange(24)).sum() / tissue.sum()
    opposite = np.round(2 * centroid - 6.5).astype(int)
    assert tissue[0, 10, opposite]
    assert mirror_difference(brightness, tissue)[0, 10, opposite] == 0
    assert not mirror_difference(brightness, np.zeros_like(tissue)).any()


def test_readers_choose_what_counts():
    brighter = np.array([4, -4, 4, -4], np.float32)
    # The first two patches are stranger than their mirror images, the others less strange.
    stranger = np.array([9, 9, -9, -9], np.float32)
    side = np.array([1, -1, 0, 0], np.float32)
    found = {name: brightness_term(brighter, stranger, side, name) for name in LESIONS[:3]}
    either = np.array([2, 2, -2, -2])
    np.testing.assert_allclose(found["either"], either, atol=1e-5)
    np.testing.assert_allclose(found["bright"], either + 1.8 * side, atol=1e-5)
    np.testing.assert_allclose(found["dark"], either - 1.8 * side, atol=1e-5)
    without = brightness_term(brighter, stranger, None, "bright")
    np.testing.assert_allclose(without, either, atol=1e-5)


def test_the_usual_brightness_is_that_of_most_tissue():
    usual = UsualBrightness.of(np.linspace(0.2, 0.6, 101, dtype=np.float32))
    assert (usual.median, usual.spread) == pytest.approx((0.4, 0.2))
    side = usual.side(np.array([0.1, 0.4, 0.435, 0.9], np.float32))
    np.testing.assert_allclose(side, [-1, 0, 0.25, 1], atol=1e-5)
    assert UsualBrightness.of(np.full(9, 0.5, np.float32)).spread > 0
    assert UsualBrightness.of(np.zeros(0, np.float32)) is None


def test_the_usual_brightness_of_a_scan_ignores_the_air():
    array = RNG.uniform(50, 100, (40, 32, 32)).astype(np.float32)
    array[:, :20] = 0
    array[3] = 0
    scan = prepare(volume_from_array(array, (5, 2, 2)), Preprocessing(input_size=64))
    values = scan.values(slice(None))[scan.foreground]
    assert scan.usual_brightness.median == pytest.approx(np.median(values), abs=0.02)


def test_brightness_joins_the_score_in_healthy_deviations():
    brightness, tissue = symmetric_slice()
    brightness[0, 8:12, 5:9] += 0.5
    scores = RNG.normal(7, 2, brightness.shape).astype(np.float32)
    scale = ScoreScale(7, 2, brightness_deviation=0.1, brightness=1.5)
    own = ScoreScale(7, 2).combine(scores, None)
    usual = UsualBrightness(0.4, 0.2)
    found = scale.combine(scores, None, brightness, tissue, "dark", usual)
    term = brightness_term(
        mirror_difference(brightness, tissue) / np.float32(0.1),
        mirror_difference(own, tissue),
        usual.side(brightness),
        "dark",
    )
    np.testing.assert_allclose(found, own + 1.5 * term, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(own, ScoreScale(7, 2).combine(scores, None, None, tissue))


def test_patch_brightness_is_the_mean_of_the_tissue():
    array = RNG.uniform(20, 100, (2, 64, 64)).astype(np.float32)
    array[:, :, :10] = 0
    scan = prepare(volume_from_array(array, (5, 2, 2)), Preprocessing(input_size=64))
    grid = PatchGrid.fit((64, 64), (2, 2), 64, 8, 8)
    found = scan.brightness([1], grid)
    values, inside = scan.values([1])[0], scan.foreground[1]
    block = np.s_[8:16, 8:16]
    assert found.shape == (1, 8, 8)
    assert found[0, 1, 1] == pytest.approx(values[block][inside[block]].mean(), rel=1e-4)
    assert found[0, 1, 0] == 0


@pytest.fixture(scope="module")
def models(healthy):
    cases = [Case(head.volume) for head in healthy]
    return {
        lesions: drain(fit(cases, settings=SETTINGS, maps=MapSettings(lesions=lesions)))
        for lesions in LESIONS
    }


def test_a_symmetric_cohort_compares_brightness(models):
    for lesions, model in models.items():
        [view] = model.views
        assert view.scale.brightness == BRIGHTNESS_WEIGHTS[lesions]
        assert (0 < view.scale.brightness_deviation < 0.3) or lesions == "none"
        assert model.maps.lesions == lesions


def test_the_summary_names_the_lesions_looked_for(models):
    assert "bright or dark lesions" in models["either"].summary()
    assert "; dark lesions" in models["dark"].summary()
    assert "brightness not compared" in models["none"].summary()


def test_a_model_is_remapped_as_if_it_were_fitted_so(models, healthy):
    cases = [Case(head.volume) for head in healthy[:1]]
    backbone = models["either"].load_backbone()
    for lesions in ("none", "bright"):
        maps = MapSettings(lesions=lesions)
        again = drain(remap(models["either"], cases, maps, backbone=backbone))
        [view], [expected] = again.views, models[lesions].views
        assert again.maps == maps
        assert view.scale.symmetry == expected.scale.symmetry
        assert view.scale.brightness == expected.scale.brightness
        assert view.scale.deviation == pytest.approx(expected.scale.deviation)
    with pytest.raises(InputError, match="fit the model again"):
        drain(remap(models["none"], cases, MapSettings(lesions="dark"), backbone=backbone))


@pytest.mark.parametrize(
    ("measured", "wanted"),
    [
        ({"symmetry": 0.0}, {}),
        ({"symmetry": 0.0}, {"symmetry": 0.5}),
        ({"lesions": "none"}, {"lesions": "either"}),
    ],
)
def test_what_was_not_measured_cannot_be_weighted(measured, wanted):
    symmetry = 0.0 if "symmetry" in measured else 0.5
    scale = ScoreScale(0.0, 1.0, symmetry=symmetry)
    with pytest.raises(InputError, match="fit the model again"):
        reweighted(scale, MapSettings(**measured), MapSettings(**wanted), "axial")


def test_a_cohort_without_symmetry_stays_so():
    scale = ScoreScale(0.0, 1.0)
    assert reweighted(scale, MapSettings(), MapSettings(lesions="bright"), "axial") == scale
    assert reweighted(scale, MapSettings(), MapSettings(symmetry=0.5), "sagittal") == scale


def test_no_symmetry_means_no_brightness(healthy):
    maps = MapSettings(symmetry=0.0, lesions="bright")
    model = drain(fit([Case(head.volume) for head in healthy], settings=SETTINGS, maps=maps))
    assert model.views[0].scale.brightness == 0
    assert "brightness not compared" in model.summary()


def test_bright_lesions_stand_out_for_who_looks_for_them(models, ill):
    means = {}
    for lesions, model in models.items():
        anomaly = drain(detect(ill.volume, model))
        inside = ill.lesion & anomaly.foreground
        outside = anomaly.foreground & ~ill.lesion
        scores = anomaly.scores
        means[lesions] = (scores[inside].mean() - scores[outside].mean()) / scores[outside].std()
    brighter = ill.volume.array[ill.lesion].mean() > np.median(ill.volume.array[outside])
    looked_for, other = ("bright", "dark") if brighter else ("dark", "bright")
    assert means[looked_for] > means["none"] > means[other]
    assert means["either"] > means["none"]


def test_lesions_are_saved_with_the_model(models, ill, tmp_path):
    save_model(models["bright"], tmp_path / "a.safetensors")
    again = load_model(tmp_path / "a.safetensors")
    assert again.maps.lesions == "bright"
    assert again.views[0].scale == models["bright"].views[0].scale
    np.testing.assert_allclose(
        drain(detect(ill.volume, again)).scores,
        drain(detect(ill.volume, models["bright"])).scores,
        atol=0.05,
    )
