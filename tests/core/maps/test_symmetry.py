"""Left against right: the comparison, and whether a cohort is symmetric at all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_dino_uad import Case, detect, drain, fit
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.maps.score_map import SYMMETRY_WEIGHT_BESIDE, MapSettings
from napari_dino_uad.core.maps.symmetry import SYMMETRIC_RATIO, measure_symmetry, mirror_distance
from napari_dino_uad.core.progress import Inner

SETTINGS = {"components": 40, "epochs": 2, "max_patches": 10_000}


def reference(unit: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
    """The same with loops over patches and their counterparts."""
    batch, _, height, width = unit.shape
    out = torch.zeros(batch, height, width)
    for b in range(batch):
        if not tissue[b].any():
            continue
        columns = torch.nonzero(tissue[b])[:, 1].double()
        twice = int(torch.round(2 * columns.mean()))
        for y, x in torch.nonzero(tissue[b]).tolist():
            place = twice - x
            if not 0 <= place < width:
                continue
            found = [
                float(unit[b, :, y, x] @ unit[b, :, v, u])
                for v in range(max(0, y - 1), min(height, y + 2))
                for u in range(max(0, place - 1), min(width, place + 2))
                if tissue[b, v, u]
            ]
            out[b, y, x] = 1 - max(found) if found else 0
    return out


def test_against_loops():
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(4, 6, 7, 9, generator=generator), dim=1)
    tissue = torch.rand(4, 7, 9, generator=generator) > 0.4
    tissue[1, :, :4] = False
    # A mirror line at the edge, and no tissue at all.
    tissue[2, :, 1:] = False
    tissue[3] = False
    torch.testing.assert_close(
        mirror_distance(features, tissue), reference(features, tissue), atol=1e-5, rtol=0
    )


def test_lesion_has_a_distance_on_both_sides():
    half = torch.randn(1, 8, 10, 5, generator=torch.Generator().manual_seed(1))
    features = F.normalize(torch.cat([half, half.flip(3)], dim=3), dim=1)
    tissue = torch.ones(1, 10, 10, dtype=torch.bool)
    assert float(mirror_distance(features, tissue).max()) < 1e-5
    features[0, :, 4:7, 1:4] = F.normalize(
        torch.randn(8, 1, 1, generator=torch.Generator().manual_seed(2)), dim=0
    )
    distance = mirror_distance(features, tissue)
    assert float(distance[0, 5, 2]) > 0.2
    assert float(distance[0, 5, 7]) > 0.2
    assert float(distance[0, 0].max()) < 1e-5


@pytest.mark.parametrize(("symmetric", "low", "high"), [(True, 0.0, 0.4), (False, 0.9, 1.1)])
def test_measured_symmetry(symmetric, low, high):
    generator = torch.Generator().manual_seed(3)
    half = torch.randn(6, 16, 24, 16, generator=generator)
    other = half.flip(3) if symmetric else torch.randn(half.shape, generator=generator)
    noise = 0.1 * torch.randn(6, 16, 24, 32, generator=generator)
    slices = torch.cat([half, other], dim=3) + noise
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (16,))
    features.add(slices.half().numpy(), np.ones((6, 24, 32), dtype=bool))
    measuring = Inner(measure_symmetry(features))
    assert list(measuring)[-1].done == 6
    assert low <= measuring.value <= high


def test_every_third_slice_is_counted_through_the_scans():
    features = FeatureSet(Context(normalise="none", neighbourhood=1), (1,))
    for first, count in ((0, 4), (4, 1), (5, 8)):
        numbers = np.arange(first, first + count, dtype=np.float16)
        features.add(numbers.reshape(count, 1, 1, 1), np.ones((count, 1, 1), dtype=bool))
    found = [(part.flatten().tolist(), scan) for part, _, scan in features.transformed(2, step=3)]
    assert found == [([0, 3], 0), ([6, 9], 2), ([12], 2)]


@pytest.fixture(scope="module")
def three_planes(healthy):
    """A model of axial, coronal and sagittal slices; embedding these takes most of the time."""
    cases = [Case(head.volume) for head in healthy[:2]]
    return drain(fit(cases, settings=SETTINGS, planes=("axial", "coronal", "sagittal")))


def test_sagittal_slices_are_never_compared(three_planes):
    weights = [view.scale.symmetry for view in three_planes.views]
    assert weights == [SYMMETRY_WEIGHT_BESIDE, SYMMETRY_WEIGHT_BESIDE, 0]
    assert [view.scale.brightness > 0 for view in three_planes.views] == [True, True, False]
    assert 0 < SYMMETRIC_RATIO < 1


def test_sagittal_slices_alone_refuse_a_weight(healthy):
    cases = [Case(head.volume) for head in healthy[:3]]
    with pytest.raises(InputError, match="different sagittal slices"):
        drain(fit(cases, settings=SETTINGS, planes=("sagittal",), maps=MapSettings(symmetry=0.5)))


def test_three_planes_make_one_map(three_planes, ill):
    anomaly = drain(detect(ill.volume, three_planes))
    assert [one.plane for one in anomaly.planes] == ["axial", "coronal", "sagittal"]
    inside = anomaly.foreground & ill.lesion
    healthy_tissue = anomaly.foreground & ~ill.lesion
    assert np.median(anomaly.scores[inside]) > np.quantile(anomaly.scores[healthy_tissue], 0.9)
    axial = dataclasses.replace(three_planes, views=three_planes.views[:1])
    alone = drain(detect(ill.volume, axial))
    np.testing.assert_array_equal(alone.planes[0].scores, anomaly.planes[0].scores)
    assert not np.allclose(alone.scores, anomaly.scores)
