"""fit and detect from end to end, on synthetic heads."""

from __future__ import annotations

import dataclasses
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_dino_uad import (
    Case,
    detect,
    drain,
    evaluate,
    fit,
    load_backbone,
    load_model,
    save_model,
)
from napari_dino_uad.core.detect import SliceMaps
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.maps.findings import find_findings
from napari_dino_uad.core.memory import give_back
from napari_dino_uad.core.metrics import pixel_metrics
from napari_dino_uad.core.model import FittedModel
from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.progress import Inner
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.preprocessing import Preprocessing

SMALL = {"components": 40, "epochs": 2, "max_patches": 8000}


@pytest.fixture(scope="module")
def anomaly(model, ill):
    return drain(detect(ill.volume, model))


def test_lesions_are_found(anomaly, ill):
    inside = anomaly.foreground
    metrics = pixel_metrics(ill.lesion[inside], anomaly.scores[inside], {})
    assert metrics["auroc"] > 0.9
    # Chance would be the lesions' share of the tissue.
    assert metrics["average_precision"] > 15 * ill.lesion[inside].mean()
    assert anomaly.scores.shape == ill.volume.shape


def test_slice_on_screen_comes_first(model, ill):
    order = []
    for progress in detect(ill.volume, model, first_slice=5):
        if isinstance(progress.result, SliceMaps):
            order += progress.result.indices
            if len(order) >= 5:
                break
    assert order[0] == 5
    assert set(order[1:3]) == {4, 6}


def test_early_slices_are_those_of_the_map(model, ill):
    running = Inner(detect(ill.volume, model, first_slice=5))
    steps = [one.result for one in running if one.result]
    assert steps[-1].level == pytest.approx(running.value.level, rel=1e-5)
    assert sorted(index for step in steps for index in step.indices) == list(range(28))
    for step in steps:
        assert step.maps.shape == (len(step.indices), *step.grid.shape)
        assert np.isfinite(step.maps).all()


def test_a_seed_gives_the_same_model_and_map(healthy, ill):
    cases = [Case(head.volume) for head in healthy[:3]]
    first, second = (drain(fit(cases, settings=SMALL, seed=3)) for _ in range(2))
    for name, tensor in first.normative.tensors().items():
        assert np.array_equal(tensor.numpy(), second.normative.tensors()[name].numpy()), name
    maps = [drain(detect(ill.volume, one)).scores for one in (first, second)]
    assert np.array_equal(*maps)


def test_scores_do_not_depend_on_the_batch(model, ill, tmp_path):
    cache = FeatureCache(tmp_path)
    first = drain(detect(ill.volume, model, cache=cache)).scores
    for batch in (1, 3):
        assert np.array_equal(
            drain(detect(ill.volume, model, cache=cache, batch=batch)).scores, first
        )


def test_slices_are_scored_one_by_one(model, ill, monkeypatch):
    # On many processors the rounding of a product depends on how many rows it has.
    counts = []
    score = FittedModel.score

    def counted(self, maps, *rest):
        counts.append(len(maps))
        return score(self, maps, *rest)

    monkeypatch.setattr(FittedModel, "score", counted)
    drain(detect(ill.volume, model))
    assert set(counts) == {1}


def test_a_model_is_the_same_from_its_file(model, anomaly, ill, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.summary() == model.summary()
    assert again.preprocessing == model.preprocessing
    np.testing.assert_array_equal(again.calibration.scores, model.calibration.scores)
    scores = drain(detect(ill.volume, again)).scores
    np.testing.assert_allclose(scores, anomaly.scores, rtol=2e-3, atol=2e-3)


def test_closing_stops_at_once(healthy):
    pipeline = fit([Case(head.volume) for head in healthy], settings=SMALL)
    for progress in pipeline:
        if progress.step == "Reading healthy scans" and progress.done == 1:
            break
    pipeline.close()
    with pytest.raises(StopIteration):
        next(pipeline)


def test_thresholds_hold_on_validation_scans(model, healthy):
    # The head that seed 0 holds out of four.
    rng = np.random.default_rng(0).permutation(4)[0]
    anomaly = drain(detect(healthy[rng].volume, model))
    threshold = model.calibration.threshold(0.05)
    share = (anomaly.scores[anomaly.foreground] > threshold).mean()
    assert 0.03 < share < 0.07


def test_findings_are_the_lesions(anomaly, ill, model):
    labels, findings = find_findings(
        anomaly.scores,
        ill.volume,
        model.calibration.threshold(0.005),
        model.calibration,
        foreground=anomaly.foreground,
        minimum_size=0.5,
    )
    assert findings
    hit = sum(bool(ill.lesion[labels == finding.label].any()) for finding in findings)
    assert hit >= 2
    assert labels.dtype == np.uint8
    for finding in findings:
        voxel_ml = 5 * 1 * 1 / 1000
        assert finding.volume_ml == pytest.approx((labels == finding.label).sum() * voxel_ml)


def test_slices_without_tissue_are_not_embedded(model, ill, monkeypatch):
    array = np.concatenate([np.zeros_like(ill.volume.array[:3]), ill.volume.array])
    # A speck of noise is no tissue.
    array[1, 5, 5] = array.max()
    backbone = model.load_backbone()
    given = []
    start = backbone.start
    monkeypatch.setattr(
        backbone, "start", lambda images: given.append(len(images)) or start(images)
    )
    volume = volume_from_array(array, ill.volume.spacing_mm)
    steps, first = [], None
    detecting = Inner(detect(volume, model, backbone=backbone, first_slice=0, cache=False))
    for step in detecting:
        if step.step == "Detecting" and step.result is not None:
            first = first or step.result.indices
            steps.append(step)
    anomaly = detecting.value
    assert sum(given) == steps[-1].done == steps[-1].total <= len(ill.volume.array)
    assert first == [3]
    assert not anomaly.scores[:3].any()
    assert not anomaly.planes[0].scores[:3].any()
    assert (anomaly.scores[3 + len(ill.volume.array) // 2] != 0).any()


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries give memory back")
def test_memory_that_was_freed_goes_back_after_a_large_scan(model, ill, monkeypatch):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    blocks = [np.ones(10_000) for _ in range(2000)]
    held = blocks[::100]
    del blocks
    before = resident()
    give_back()
    assert len(held) == 20
    assert before - resident() > 100e6
    calls = []
    monkeypatch.setattr("napari_dino_uad.core.detect.give_back", lambda: calls.append(1))
    drain(detect(ill.volume, model))
    assert not calls
    monkeypatch.setattr("napari_dino_uad.core.detect._LARGE_BYTES", ill.volume.array.nbytes - 1)
    drain(detect(ill.volume, model))
    assert calls == [1]


def test_a_scan_of_nothing_but_specks_has_no_findings(model):
    array = np.zeros((4, 96, 96), dtype=np.float32)
    array[:, 40, 40] = 1
    anomaly = drain(detect(volume_from_array(array, (5.0, 1.0, 1.0)), model))
    assert not anomaly.scores.any()
    assert anomaly.level == np.inf


def test_another_plane(healthy, ill):
    preprocessing = Preprocessing(plane="coronal", input_size=128)
    cases = [Case(head.volume) for head in healthy[:2]]
    backbone = load_backbone(PHANTOM_BACKBONE)
    model = drain(fit(cases, settings=SMALL, preprocessing=preprocessing, backbone=backbone))
    anomaly = drain(detect(ill.volume, model))
    assert anomaly.scores.shape == ill.volume.shape
    inside = anomaly.foreground
    assert pixel_metrics(ill.lesion[inside], anomaly.scores[inside], {})["auroc"] > 0.8


def test_two_dimensional_images(healthy):
    images = [
        volume_from_array(head.volume.array[12:13], (1, 1, 1), name=f"i{number}")
        for number, head in enumerate(healthy)
    ]
    model = drain(fit([Case(image) for image in images], settings=SMALL))
    anomaly = drain(detect(images[0], model))
    assert anomaly.scores.shape == images[0].shape


def test_lesion_slices_are_left_out_of_the_fit(healthy, ill):
    cases = [Case(ill.volume, ill.lesion), Case(healthy[0].volume)]
    model = drain(fit(cases, valid=[Case(healthy[1].volume)], settings=SMALL))
    without = drain(fit([Case(ill.volume), cases[1]], valid=[Case(healthy[1].volume)],
                        settings=SMALL))  # fmt: skip
    near = np.flatnonzero(ill.lesion.any(axis=(1, 2)))
    assert model.cohort["slices"] < without.cohort["slices"]
    assert without.cohort["slices"] - model.cohort["slices"] >= len(near)


def test_evaluation_counts_and_separates(model, ill):
    evaluation = drain(evaluate([Case(ill.volume, ill.lesion)], model))
    pixel = evaluation.metrics["conventions"]["tissue"]
    assert pixel["auroc"] > 0.9
    assert 0 < pixel["max_dice"] <= 1
    assert set(pixel["dice_at_fpr"]) == {"0.1", "0.05", "0.01"}
    assert evaluation.metrics["conventions"]["tissue"]["lesion_pixels"] == int(ill.lesion.sum())
    assert evaluation.cases[0]["case"] == ill.volume.name


def test_a_model_refuses_another_backbone(model):
    other = dataclasses.replace(model, backbone_sha256="0" * 64)
    with pytest.raises(InputError, match="fitted on other weights"):
        other.load_backbone()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "dream"}, "no method 'dream'"),
        ({"settings": {"components": 1}}, "from 2 up, got 1"),
    ],
)
def test_bad_settings_are_refused_before_work_begins(healthy, arguments, message):
    with pytest.raises(InputError, match=message):
        next(fit([Case(head.volume) for head in healthy], **arguments))


def test_one_scan_is_too_few(healthy):
    with pytest.raises(InputError, match="at least two scans"):
        drain(fit([Case(healthy[0].volume)]))
    with pytest.raises(InputError, match="got none"):
        drain(fit([]))


def test_the_autoregressive_model_goes_the_same_way(healthy, ill, tmp_path):
    settings = {"epochs": 2, "components": 32, "hidden": 32, "position_map": False}
    cases = [Case(head.volume) for head in healthy]
    model = drain(fit(cases, method="ar", settings=settings))
    save_model(model, tmp_path / "ar.safetensors")
    scores = drain(detect(ill.volume, load_model(tmp_path / "ar.safetensors"))).scores
    again = drain(detect(ill.volume, model)).scores
    np.testing.assert_allclose(scores, again, rtol=1e-2, atol=1e-3 * float(again.max()))
    assert scores.std() > 0


def test_every_method_is_there():
    for key, method in METHODS.items():
        assert method.model_class().method == key
        assert method.config_class()().seed == 0
