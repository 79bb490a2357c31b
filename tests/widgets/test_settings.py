"""Settings, with and without a page in napari's Preferences."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from npe2 import PluginManifest

from napari_dino_uad.core.features.cache import open_cache
from napari_dino_uad.widgets import settings
from napari_dino_uad.widgets.settings import (
    SETTINGS,
    apply_cache_settings,
    change_setting,
    last_model,
    remember_model,
    setting,
    settings_changed,
)
from napari_dino_uad.widgets.settings_dialog import SettingsDialog


def manifest():
    return PluginManifest.from_distribution("napari-dino-uad")


def test_the_manifest_declares_the_same_settings():
    declared = manifest().contributions.configurations
    for name, one in SETTINGS.items():
        entry = declared[one.section].properties[name]
        assert entry.default == one.default
        assert entry.title == one.title
        assert entry.description == one.tooltip
        assert tuple(entry.enum or ()) == one.choices
    assert sum(len(one.properties) for one in declared.values()) == len(SETTINGS)


def test_settings_are_kept_with_their_types():
    assert setting("go_to_worst") is True
    changed = []
    settings_changed().connect(changed.append)
    for name, value in (("go_to_worst", False), ("cache_limit_gb", 3.5), ("colours", "viridis")):
        change_setting(name, value)
        assert setting(name) == value
        assert type(setting(name)) is type(value)
    settings_changed().disconnect(changed.append)
    assert changed == ["go_to_worst", "cache_limit_gb", "colours"]
    change_setting("colours", "no such colours")
    assert setting("colours") == "inferno"


def test_a_page_of_preferences_is_used(monkeypatch):
    page = SimpleNamespace(detect=SimpleNamespace(colours="magma"), computer=SimpleNamespace())
    monkeypatch.setattr(settings, "_page", lambda: page)
    assert setting("colours") == "magma"


def test_the_last_model_comes_back_unless_another_is_the_default(tmp_path):
    assert last_model() is None
    for name in ("last", "other"):
        (tmp_path / f"{name}.safetensors").touch()
    remember_model(tmp_path / "last.safetensors")
    assert last_model() == tmp_path / "last.safetensors"
    change_setting("default_model", str(tmp_path / "other.safetensors"))
    assert last_model() == tmp_path / "other.safetensors"
    (tmp_path / "other.safetensors").unlink()
    assert last_model() == tmp_path / "last.safetensors"


def test_the_cache_follows_the_settings(tmp_path, monkeypatch):
    for name in ("NAPARI_DINO_UAD_CACHE", "NAPARI_DINO_UAD_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)
    change_setting("cache_folder", str(tmp_path / "mine"))
    change_setting("cache_limit_gb", 2.0)
    apply_cache_settings()
    cache = open_cache()
    assert (tmp_path / "mine") in cache.folder.parents or cache.folder == tmp_path / "mine"
    assert cache.limit_bytes == pytest.approx(2e9, rel=0.1)
    change_setting("cache_folder", "")
    change_setting("cache_limit_gb", 20.0)
    apply_cache_settings()
    assert "NAPARI_DINO_UAD_CACHE" not in os.environ


def test_an_environment_of_the_user_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path))
    change_setting("cache_folder", str(tmp_path / "mine"))
    apply_cache_settings()
    assert os.environ["NAPARI_DINO_UAD_CACHE"] == str(tmp_path)


def test_the_dialog_changes_settings(qtbot):
    dialog = SettingsDialog()
    qtbot.addWidget(dialog)
    assert set(dialog.controls) == set(SETTINGS)
    dialog.controls["detect_on_opening"].setChecked(True)
    dialog.controls["colours"].setCurrentText("plasma")
    dialog.controls["cache_limit_gb"].setValue(7)
    assert setting("detect_on_opening") is True
    assert setting("colours") == "plasma"
    assert setting("cache_limit_gb") == 7.0
