"""Embeddings through threads and the cache: order, resume, and a backbone that may not run."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from napari_dino_uad.core.backbones.backbone import load_backbone
from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.features.cache import FeatureCache, content_digest
from napari_dino_uad.core.features.extract import cache_entry, extract_features, outwards
from napari_dino_uad.core.features.feature_set import collect_features
from napari_dino_uad.core.pipeline import in_background, prefetch, sharing_cores
from napari_dino_uad.core.progress import Inner
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing


def test_items_come_in_order_and_no_more_than_allowed_ahead():
    made, taken = [], []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    for item in prefetch(items(), ahead=2):
        time.sleep(0.002)
        taken.append(item)
        assert len(made) - len(taken) <= 2
    assert taken == list(range(20))


def test_closing_stops_the_threads_of_a_chain():
    before = threading.active_count()
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    chain = prefetch(prefetch(endless()))
    assert next(chain) == 1
    chain.close()
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert closed == [True]


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        raise ValueError("broken")

    taking = prefetch(items())
    assert next(taking) == 1
    with pytest.raises(ValueError, match="broken"):
        next(taking)


def test_waiting_can_be_cancelled():
    release = threading.Event()
    taking = prefetch((release.wait() for _ in range(1)), patience_s=0.01)
    assert next(taking) is None
    started = time.perf_counter()
    taking.close()
    assert time.perf_counter() - started < 0.3
    release.set()


def test_functions_run_side_by_side():
    both = threading.Barrier(2, timeout=5)
    running = Inner(in_background(lambda: (both.wait(), "a")[1], lambda: (both.wait(), "b")[1]))
    list(running)
    assert running.value == ["a", "b"]


class Counting:
    """A backbone that counts the slices it sees, and may be forbidden to run."""

    def __init__(self):
        self._backbone = load_backbone()
        self.spec, self.engine = self._backbone.spec, self._backbone.engine
        self.sha256 = self._backbone.sha256
        self.slices = 0
        self.forbidden = False

    def start(self, images):
        assert not self.forbidden, "the backbone ran"
        self.slices += len(images)
        return self._backbone.start(images)

    def maps(self, images):
        return self.start(images)()


@pytest.fixture(scope="module")
def backbone():
    return Counting()


@pytest.fixture
def scan():
    array = np.random.default_rng(0).uniform(0, 1, (9, 64, 64)).astype(np.float32)
    volume = volume_from_array(array, (2.0, 1.0, 1.0))
    return prepare(volume, Preprocessing(input_size=64)), content_digest(array, (2.0, 1.0, 1.0))


@pytest.fixture
def entry(tmp_path, scan, backbone):
    prepared, digest = scan
    grid = prepared.grid(backbone.spec.stride, backbone.spec.multiple)
    backbone.slices, backbone.forbidden = 0, False
    return cache_entry(FeatureCache(tmp_path), digest, prepared, grid, backbone), grid


def taken(generator):
    return [item for item in generator if item is not None]


def test_threads_and_cache_change_nothing(scan, entry, backbone):
    (prepared, _), (store, grid) = scan, entry
    order = outwards(range(9), 4)
    parts = taken(extract_features(prepared, grid, backbone, order, 2, 1, store))
    assert [index for indices, _ in parts for index in indices] == order
    assert parts[0][0] == [4]
    for indices, features in parts:
        plain = backbone.maps(prepared.images(indices, grid)).half().numpy()
        assert np.array_equal(features, plain)


def test_a_stopped_run_goes_on_where_it_was(scan, entry, backbone):
    (prepared, _), (store, grid) = scan, entry
    order = list(range(9))
    stopped = extract_features(prepared, grid, backbone, order, 2, entry=store)
    while store.known().sum() < 4:
        next(stopped)
    stopped.close()
    time.sleep(0.5)
    written = int(store.known().sum())
    backbone.slices = 0
    whole = np.concatenate(
        [
            part
            for _, part in taken(extract_features(prepared, grid, backbone, order, 2, None, store))
        ]
    )
    assert backbone.slices == 9 - written
    assert store.complete
    plain = taken(extract_features(prepared, grid, backbone, order, 2))
    assert np.array_equal(whole, np.concatenate([part for _, part in plain]))


def test_a_cached_scan_does_not_touch_the_backbone(scan, entry, backbone):
    (prepared, _), (store, grid) = scan, entry
    indices = np.array([1, 2, 5, 8])
    for _ in extract_features(prepared, grid, backbone, range(9), 2, entry=store):
        pass
    backbone.forbidden = True
    collecting = Inner(collect_features(prepared, grid, backbone, indices, 2, store))
    list(collecting)
    found = collecting.value
    layout = LayerLayout.of(backbone.spec, grid.shape)
    joined = layout.join(torch.from_numpy(store.read(indices))).numpy()
    assert np.array_equal(found[0:4], joined)
    assert found.shape == joined.shape == (4, backbone.spec.dimension, *grid.shape)
    uncached = Inner(collect_features(prepared, grid, load_backbone(), indices, 2))
    list(uncached)
    np.testing.assert_allclose(uncached.value[1:3], joined[1:3], atol=1e-2)


def test_a_tampered_slice_alone_is_computed_again(scan, entry, backbone):
    (prepared, _), (store, grid) = scan, entry
    first = taken(extract_features(prepared, grid, backbone, range(9), 2, entry=store))
    path = store.folder / "features.f16"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    again = taken(extract_features(prepared, grid, backbone, range(9), 2, entry=store))
    before, after = (np.concatenate([part for _, part in parts]) for parts in (first, again))
    assert np.allclose(before.astype(np.float32), after.astype(np.float32), atol=1e-3)
    assert all(store.read([index]) is not None for index in range(9))


def test_waiting_stage_computes_in_one_thread():
    before = torch.get_num_threads()
    # More than one, or there is nothing to see on a machine with one core.
    torch.set_num_threads(2)
    seen = []
    try:
        with sharing_cores(waited_s=1.0):
            inside = torch.get_num_threads()
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
        with sharing_cores(waited_s=0.0):
            unlimited = torch.get_num_threads()
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert inside == 1
    assert seen == [2] and unlimited == 2 and after == 2
