"""What this machine remembers, the cache's entries and engines' times, is read strictly."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from napari_dino_uad.core.backbones.engines import measurement as engine_measurement
from napari_dino_uad.core.backbones.engines.measurement import (
    Measured,
    recall,
    remember,
    remembered,
)
from napari_dino_uad.core.features.cache import CacheKey, FeatureCache
from napari_dino_uad.core.storage.strict_json import parse_json, read_json

KEY = CacheKey("s" * 32, "backbone", "{}")
WHERE = {
    "version": 2, "processor": "p", "cores": 2, "backbone": "b", "layers": [1], "weights": "w",
    "input_size": 256, "engines": ["torch cpu float32", "torch cpu bfloat16"],
    "libraries": {"torch": "2", "timm": "1", "openvino": None},
}  # fmt: skip
MEASURED = [
    Measured("torch cpu float32", 1.0, 0.2),
    Measured("torch cpu bfloat16", failure="RuntimeError: no"),
]
NESTED = "[" * 200_000


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff", b"[]", b"null", NESTED.encode(), b'{"version": NaN}', b"9" * 10_000],
    ids=["empty", "not UTF-8", "list", "null", "nested", "NaN", "long number"],
)
def test_an_entry_with_another_description_is_begun_anew(text, tmp_path):
    cache = FeatureCache(tmp_path)
    entry = cache.entry(KEY, (2, 3))
    entry.write([0], np.ones((1, 3), np.float16))
    (entry.folder / "entry.json").write_bytes(text)
    assert not cache.entry(KEY, (2, 3)).known().any()
    assert json.loads((entry.folder / "entry.json").read_text())["shape"] == [2, 3]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path / "pipe.json")


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(ValueError, match="more than"):
        read_json(tmp_path / "huge.json")


def test_sound_json_is_read():
    value = {"a": [1, -2.5, None, True, "ü"], "b": {"c": 2**63}}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False)) == value


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Return the file of a measurement and a function that changes what it says."""
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path))
    monkeypatch.setattr(engine_measurement, "_known", {})
    remember(WHERE, MEASURED)
    [path] = (tmp_path / "engines").glob("*.json")

    def change(edit):
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


def test_what_was_measured_is_recalled(memory):
    assert recall(WHERE) == MEASURED
    assert remembered() == [(WHERE, MEASURED)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c["measured"].clear(),
        lambda c: c["measured"].pop(),
        lambda c: c["measured"].reverse(),
        lambda c: c["measured"][0].update(seconds="fast"),
        lambda c: c["measured"][0].update(seconds=float("nan")),
        lambda c: c["measured"][0].update(seconds=-1.0),
        lambda c: c["measured"][0].update(cosine=7.0),
        lambda c: c["measured"][0].update(cosine=0.5),
        lambda c: c["measured"][0].update(engine=3),
        lambda c: c["measured"][0].update(surplus=3),
        lambda c: c.update(measured={}),
        lambda c: c.update(backbone=None),
        lambda c: c.pop("input_size"),
        lambda c: c.update(surplus=1),
    ],
    ids=range(14),
)
def test_a_measurement_that_is_spoilt_is_not_believed(edit, memory):
    memory(edit)
    assert recall(WHERE) is None
    assert remembered() == []
