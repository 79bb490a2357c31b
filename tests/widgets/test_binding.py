"""The window runs on the Qt binding that was asked for, and on no other."""

from __future__ import annotations

import os
import sys

import pytest

BINDINGS = {"pyqt5": "PyQt5", "pyqt6": "PyQt6", "pyside6": "PySide6"}


def test_only_the_binding_asked_for_is_loaded(make_napari_viewer):
    asked = os.environ.get("QT_API", "").lower()
    if asked not in BINDINGS:
        pytest.skip("QT_API names no binding")
    make_napari_viewer()
    loaded = {name for name in BINDINGS.values() if f"{name}.QtCore" in sys.modules}
    assert loaded == {BINDINGS[asked]}
