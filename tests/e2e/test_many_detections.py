"""Many detections in one window, finished and cancelled in turn: nothing grows.

`NAPARI_DINO_UAD_DETECTS=200 pytest tests/e2e/test_many_detections.py` detects more often than
`make test`, and then looks at the memory too.
"""

from __future__ import annotations

import os
import random
import threading

import pytest
from growth import LARGEST_MB, LOOKS, process_state
from qtpy.QtCore import QEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dino_uad import save_model, write_volume
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.session import session

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("NAPARI_DINO_UAD_DETECTS", "4"))
# Before that, heaps of threads and caches of napari are still being filled.
TELLING = 100


def look(viewer) -> dict[str, float]:
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()
    return process_state() | {
        "layers": len(viewer.layers),
        "callbacks": len(viewer.mouse_move_callbacks) + len(viewer.mouse_drag_callbacks),
        "keys": len(viewer.keymap),
        "widgets": len(QApplication.allWidgets()),
        "jobs": sum(one.name == "pipeline" for one in threading.enumerate()),
    }


def test_many_detections_leave_nothing_behind(make_napari_viewer, qtbot, ill, model, tmp_path):
    chance = random.Random(0)
    session().models.clear()
    viewer = make_napari_viewer(show=True)
    part = volume_from_array(ill.volume.array[10:20], ill.volume.spacing_mm, name="ill")
    write_volume(tmp_path / "ill.nii.gz", part.array, part)
    save_model(model, tmp_path / "model.safetensors")
    viewer.open(tmp_path / "ill.nii.gz", plugin="napari-dino-uad")
    dock = open_dock(viewer, "Detect")
    dock.load_model(tmp_path / "model.safetensors")
    qtbot.waitUntil(lambda: dock.choice.model is not None, timeout=120_000)
    qtbot.waitUntil(lambda: not dock.loading.running, timeout=120_000)

    def detect(cancelled: bool) -> None:
        dock.detect()
        if cancelled:
            QTest.qWait(chance.randint(0, 400))
            dock.cancel()
        qtbot.waitUntil(lambda: not dock.job.running, timeout=120_000)
        if not cancelled:
            qtbot.waitUntil(lambda: dock.shown.current, timeout=120_000)

    looks = []
    for number in range(2 * COUNT):
        detect(cancelled=False)
        detect(cancelled=True)
        # The first half of them warms up.
        if number >= COUNT and (number + 1) % max(1, COUNT // LOOKS) == 0:
            looks.append(look(viewer))
    half = len(looks) // 2
    for what in looks[0]:
        before, after = (min(one[what] for one in some) for some in (looks[:half], looks[half:]))
        if what != "memory in MB":
            assert after <= before, f"{what}: {before}, then {after}"
        elif COUNT >= TELLING:
            assert after - before <= LARGEST_MB, f"{before:.0f} MB, then {after:.0f} MB"
    session().models.clear()
