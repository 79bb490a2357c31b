"""Engines in a window: converting a network must not bring it down, and what runs is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from napari_dino_uad.core.backbones.engines.torch_engine import EngineSpec
from napari_dino_uad.core.progress import Progress, drain
from napari_dino_uad.widgets.controls import RunControl
from napari_dino_uad.widgets.session import Session
from napari_dino_uad.widgets.workers import Job, gui_threads

# The window comes first, as in napari, and Mesa's LLVM with it; torch, OpenVINO and the
# measuring follow in the widget's worker.
_WINDOW = """
import sys, time
import napari, numpy
from qtpy.QtWidgets import QApplication

viewer = napari.Viewer()
viewer.add_image(numpy.random.default_rng(0).uniform(size=(5, 64, 64)))
assert "torch" not in sys.modules
_, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Detect")
deadline = time.monotonic() + 300
while widget.loading.running and time.monotonic() < deadline:
    QApplication.instance().processEvents()
    time.sleep(0.01)
import torch
print("threads", torch.get_num_threads())
print(widget.run.remarks)
viewer.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is not installed")
def test_engines_are_measured_beside_a_window(tmp_path):
    environment = {**os.environ, "NAPARI_DINO_UAD_CACHE": str(tmp_path)}
    environment.pop("NAPARI_DINO_UAD_ENGINE")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WINDOW],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"threads {gui_threads()}" in done.stdout
    assert "efficientnet-lite0 on CPU, " in done.stdout
    assert list((tmp_path / "engines").glob("*.json"))
    assert list((tmp_path / "networks").iterdir())


def test_a_backbone_is_placed_once_and_said_where(qtbot):
    session = Session()
    loaded = session.backbone("efficientnet-lite0")
    notes = []
    first = drain(session.place(loaded), lambda progress: notes.append(progress.note))
    assert first.engine.spec == EngineSpec("torch", "cpu", "float32")
    assert notes[-1].startswith("efficientnet-lite0 on CPU, torch float32.")
    assert drain(session.place(loaded)) is first
    assert drain(session.place(loaded, 320)) is not first


def test_remarks_stay_on_screen(qtbot):
    run = RunControl(Job(), "Run", "", "")
    qtbot.addWidget(run)
    run._on_progress(Progress("Loading", 1, 1, note="efficientnet-lite0 on CPU, torch float32."))
    run._on_progress(Progress("Detecting", 1, 2))
    assert run.remarks == "efficientnet-lite0 on CPU, torch float32."
    assert not run._remarks.isHidden()
