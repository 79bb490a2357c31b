"""Benchmarks keep up with the code they measure."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("channels", [384, 488])
def test_scaling_writes_models_that_load(channels, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import scaling

    normative = new_mixture(scaling, channels)
    restored, megabytes = scaling.as_file(normative, channels, tmp_path)
    assert restored.config() == normative.config()
    assert megabytes > 0


def new_mixture(scaling, channels):
    """A mixture of a few made-up patches."""
    model = scaling.new_normative("dpmm", 0, {"components": 4, "epochs": 1})
    for _ in model.fit(*(scaling.healthy_slices(2, channels, seed=seed) for seed in (1, 2))):
        pass
    return model
