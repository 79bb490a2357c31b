"""The object of a picture whose background is light, by its embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_dino_uad import Case, detect, drain, evaluate, fit, read_volume
from napari_dino_uad.core.evaluation.folder import read_evaluation
from napari_dino_uad.core.evaluation.settings import EvaluationSettings
from napari_dino_uad.core.features.object_mask import object_patches
from napari_dino_uad.core.maps.finding_settings import FindingSettings
from napari_dino_uad.core.maps.review import Review
from napari_dino_uad.core.saved_review import open_review, save_review
from napari_dino_uad.core.slices.preprocessing import Preprocessing

ROWS, COLUMNS = 128, 160


def section(seed: int, lesion: bool = False):
    """Make a stained section on white glass: the picture, the section and its lesion."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:ROWS, :COLUMNS].astype(float)
    centre = ROWS / 2 + random.uniform(-5, 5), COLUMNS / 2 + random.uniform(-8, 8)
    inside = ((rows - centre[0]) / 42) ** 2 + ((columns - centre[1]) / 55) ** 2 < 1
    grain = gaussian_filter(random.normal(size=(ROWS, COLUMNS)), 1.5)[..., None]
    picture = np.full((ROWS, COLUMNS, 3), 240.0) + 4 * random.normal(size=(ROWS, COLUMNS, 1))
    stained = np.array([205.0, 120.0, 170.0]) * (1 + 0.8 * grain)
    picture[inside] = stained[inside]
    mask = np.zeros((ROWS, COLUMNS), bool)
    if lesion:
        mask = (rows - centre[0]) ** 2 + (columns - centre[1] + 20) ** 2 < 13**2
        picture[mask] = [70.0, 50.0, 130.0]
    return np.clip(np.round(picture), 0, 255).astype(np.uint8), inside, mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sections")
    for seed in range(10):
        Image.fromarray(section(seed)[0]).save(folder / f"h{seed}.png")
    for seed in (20, 21):
        picture, _, mask = section(seed, lesion=True)
        Image.fromarray(picture).save(folder / f"ill{seed}.png")
        Image.fromarray((255 * mask).astype(np.uint8)).save(folder / f"ill{seed}_mask.png")
    return folder


@pytest.fixture(scope="module")
def fitted(folder):
    healthy = [Case(path, healthy=True) for path in sorted(folder.glob("h*.png"))]
    return drain(
        fit(
            healthy,
            settings={"components": 20, "epochs": 4},
            preprocessing=Preprocessing(input_size=128, object_mask=True),
        )
    )


def test_the_side_with_less_of_the_border_is_the_object():
    embeddings = np.zeros((4, 9, 11), np.float32)
    embeddings[0, 2:7, 3:9] = 1
    # A hole with embeddings of the background, and a gap one patch wide at the rim.
    embeddings[0, 4, 5] = 0
    embeddings[0, 2, 7] = 0
    found = object_patches(embeddings)
    expected = np.zeros((9, 11), bool)
    expected[2:7, 3:9] = True
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(object_patches(1 - embeddings), expected)


def test_patches_that_are_all_alike_are_all_object():
    assert object_patches(np.ones((3, 4, 5), np.float32)).all()


def test_only_the_section_is_learnt_and_scored(folder, fitted):
    _, inside, lesion = section(20, lesion=True)
    anomaly = drain(detect(read_volume(folder / "ill20.png"), fitted))
    found = anomaly.foreground[0]
    overlap = 2 * (found & inside).sum() / (found.sum() + inside.sum())
    assert overlap > 0.9
    assert found[lesion].all()
    assert anomaly.scores[0][lesion].mean() > 3 * np.abs(anomaly.scores[0][inside & ~lesion]).mean()
    assert "the object alone" in fitted.summary()


def test_a_review_keeps_the_object(folder, fitted, tmp_path):
    anomaly = drain(detect(read_volume(folder / "ill20.png"), fitted))
    path = tmp_path / "ill20.review.json"
    save_review(path, anomaly, FindingSettings(0.05, 0.1, True), Review(), "sections")
    opened = drain(open_review(path))
    np.testing.assert_array_equal(opened.anomaly.foreground, anomaly.foreground)


def test_an_evaluated_folder_keeps_the_object(folder, fitted, tmp_path):
    cases = [Case(folder / f"ill{seed}.png", folder / f"ill{seed}_mask.png") for seed in (20, 21)]
    evaluation = drain(evaluate(cases, fitted, settings=EvaluationSettings(), out=tmp_path))
    opened = read_evaluation(tmp_path).open("ill20")
    anomaly = drain(detect(read_volume(folder / "ill20.png"), fitted))
    np.testing.assert_array_equal(opened.foreground, anomaly.foreground)
    assert evaluation.metrics["conventions"]["tissue"]["average_precision"] > 0.5
