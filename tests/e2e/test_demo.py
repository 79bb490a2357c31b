"""The demo ends well, on the binding under test."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def test_the_demo_writes_its_picture_and_ends(tmp_path):
    """Fits heads from nothing, as a newcomer does, which takes most of a minute."""
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "NAPARI_DINO_UAD_CACHE": str(tmp_path / "cache"),
        "NAPARI_DINO_UAD_ENGINE": "torch float32",
    }
    picture = tmp_path / "demo.png"
    done = subprocess.run(
        [sys.executable, "-m", "napari_dino_uad", "demo", "--screenshot", str(picture)],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "demo.png written" in done.stdout + done.stderr
    with Image.open(picture) as image:
        assert np.asarray(image.convert("L")).std() > 20
