"""Fixtures of all tests that open a window."""

from __future__ import annotations

import sys

import pytest
from qtpy.QtCore import QSettings

from napari_dino_uad.widgets import settings, workers


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Keep the tests out of the user's last choices."""
    path = str(tmp_path / "settings.ini")
    monkeypatch.setattr(
        settings, "QSettings", lambda *_: QSettings(path, QSettings.Format.IniFormat)
    )
    monkeypatch.setattr(settings, "_page", lambda: None)


@pytest.fixture(autouse=True, scope="session")
def torch_beside_a_window():
    """Take the care with torch that widgets take, before other fixtures import it plainly."""
    # No window is open yet, so `import_torch` would let triton in, to crash beside the next one.
    sys.modules.setdefault("triton", None)
    workers.import_torch()
