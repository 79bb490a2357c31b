from __future__ import annotations

import builtins

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans import phantom as module
from napari_dino_uad.core.scans.phantom import make_phantom


def test_a_seed_makes_one_head(healthy):
    again = make_phantom(1)
    assert np.array_equal(again.volume.array, healthy[1].volume.array)
    assert not np.array_equal(healthy[0].volume.array, healthy[1].volume.array)


def test_the_head_is_where_its_geometry_says(healthy):
    volume = healthy[0].volume
    assert volume.spacing_mm == (5.0, 1.0, 1.0)
    # The origin of MNI space, the anterior commissure, lies in the brain.
    centre = -np.asarray(volume.origin_mm) / np.asarray(volume.spacing_mm)
    middle = volume.array[tuple(np.round(centre).astype(int))]
    assert middle > 200
    assert volume.array[:, :4].max() < 150


def test_lesions_are_bright_and_apart(ill):
    assert not make_phantom(0).lesion.any()
    assert label(ill.lesion)[1] == 3
    inside = ill.volume.array[ill.lesion]
    brain = ill.volume.array[(ill.volume.array > 300) & ~ill.lesion]
    assert np.median(inside) > np.percentile(brain, 90)
    millilitres = ill.lesion.sum() * 5 / 1000
    assert 3 < millilitres < 40


def test_lesions_are_all_that_differs():
    well, sick = make_phantom(5), make_phantom(5, lesions=1)
    changed = np.abs(well.volume.array - sick.volume.array) > 20
    away = distance_transform_edt(~sick.lesion, sampling=sick.volume.spacing_mm)
    # Soft edges reach a little beyond the mask, into the next thick slice.
    assert away[changed].max() < 15
    assert changed[sick.lesion].mean() > 0.95


def test_how_many_lesions_there_may_be():
    with pytest.raises(InputError, match="0 to 6 lesions, got 7"):
        make_phantom(0, lesions=7)


def test_nilearn_is_asked_for(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("nilearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    module._atlas.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"napari-dino-uad\[demo\]"):
        make_phantom(0)
