"""The user's settings and last choices, kept between sessions of napari.

Settings are in napari's Preferences from napari 0.9 on, declared in `napari.yaml`; before that, and
for last choices, they are in Qt's own store.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QSettings, Signal

__all__ = [
    "SETTINGS",
    "Setting",
    "apply_cache_settings",
    "change_setting",
    "has_preferences",
    "last_model",
    "recall",
    "remember",
    "remember_model",
    "setting",
    "settings_changed",
]

_ORGANISATION = "napari-dino-uad"
_LAST_MODEL = "last model"


@dataclass(frozen=True)
class Setting:
    """A setting of the Preferences page; `napari.yaml` declares the same.

    Attributes
    ----------
    section : str
        Section of the page.
    title : str
    default : bool, str or float
    choices : tuple of str
        Of a text with few possible values; empty otherwise.
    tooltip : str
    """

    section: str
    title: str
    default: bool | str | float
    choices: tuple[str, ...] = ()
    tooltip: str = ""


#: The settings by name.
SETTINGS = {
    "go_to_worst": Setting(
        "detect",
        "Go to the worst slice",
        True,
        tooltip="After Detect, show the worst slice of the largest finding.",
    ),
    "detect_on_opening": Setting(
        "detect",
        "Detect on opening a scan",
        False,
        tooltip="Start Detect with the last model when a scan is opened.",
    ),
    "default_model": Setting(
        "detect",
        "Default model",
        "",
        tooltip="Model file to load when Detect opens; empty for the one used last.",
    ),
    "colours": Setting(
        "detect",
        "Colours of the heat",
        "inferno",
        ("inferno", "plasma", "magma", "viridis"),
        tooltip="All of them are even in brightness and suit colour-blind eyes.",
    ),
    "device": Setting(
        "computer",
        "Device",
        "auto",
        ("auto", "cpu", "cuda", "mps"),
        tooltip="Where networks run; auto takes a GPU if there is one.",
    ),
    "cache_folder": Setting(
        "computer",
        "Cache folder",
        "",
        tooltip="Where embeddings are kept; empty for the system's own cache folder.",
    ),
    "cache_limit_gb": Setting(
        "computer",
        "Cache limit in GB",
        20.0,
        tooltip="The oldest embeddings are deleted beyond it.",
    ),
}


class _Watcher(QObject):
    """Emits the name of each setting that the user changes."""

    changed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._watched: list[Any] = []

    def watch(self, page: Any) -> None:
        """Follow a page of napari's Preferences."""
        if any(page is one for one in self._watched):
            return
        self._watched.append(page)
        for name, one in SETTINGS.items():
            events = getattr(getattr(page, one.section).events, name)
            events.connect(lambda _=None, name=name: self.changed.emit(name))


_WATCHER: _Watcher | None = None


def settings_changed() -> Any:
    """Return the signal that a setting was changed; it carries the name."""
    global _WATCHER
    if _WATCHER is None:
        _WATCHER = _Watcher()
    page = _page()
    if page is not None:
        _WATCHER.watch(page)
    return _WATCHER.changed


def has_preferences() -> bool:
    """Return whether napari shows our settings in its Preferences."""
    return _page() is not None


def setting(name: str) -> Any:
    """Return the value of a setting; its default if what is stored does not fit.

    Parameters
    ----------
    name : str
        A key of `SETTINGS`.
    """
    one, page = SETTINGS[name], _page()
    if page is not None:
        return getattr(getattr(page, one.section), name)
    stored = QSettings(_ORGANISATION, "settings").value(name, None)
    return one.default if stored is None else _fitting(one, stored)


def change_setting(name: str, value: bool | str | float) -> None:
    """Change a setting."""
    one, page = SETTINGS[name], _page()
    changed = settings_changed()
    if page is not None:
        setattr(getattr(page, one.section), name, value)
        return
    QSettings(_ORGANISATION, "settings").setValue(name, value)
    changed.emit(name)


def _fitting(one: Setting, stored: Any) -> bool | str | float:
    """Return a stored value in the type of a setting; Qt stores some types as text."""
    if isinstance(one.default, bool):
        return str(stored).lower() in ("true", "1")
    if isinstance(one.default, float):
        try:
            return float(stored)
        except (TypeError, ValueError):
            return one.default
    text = str(stored)
    return text if not one.choices or text in one.choices else one.default


def _page() -> Any:
    """Return our page of napari's Preferences; None where there is none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return None
    try:
        page = get_plugin_settings("napari-dino-uad")
    except KeyError:
        return None
    sections = {one.section for one in SETTINGS.values()}
    return page if all(hasattr(page, section) for section in sections) else None


def apply_cache_settings() -> None:
    """Make this process use the cache folder and limit of the settings.

    Environment variables that the user has set win.
    """
    from napari_dino_uad.core.features.cache import LIMIT_VARIABLE
    from napari_dino_uad.core.storage.folders import FOLDER_VARIABLE

    for variable, name in ((FOLDER_VARIABLE, "cache_folder"), (LIMIT_VARIABLE, "cache_limit_gb")):
        value = setting(name)
        if variable in os.environ and variable not in _APPLIED:
            continue
        if value == SETTINGS[name].default:
            os.environ.pop(variable, None)
            _APPLIED.discard(variable)
        else:
            os.environ[variable] = str(value)
            _APPLIED.add(variable)


# Environment variables that were set here, not by the user.
_APPLIED: set[str] = set()


def remember_model(path: Path) -> None:
    """Keep a model file as the one used last."""
    remember(_LAST_MODEL, str(Path(path).absolute()))


def last_model() -> Path | None:
    """Return the model file to start with: the default one, or that used last; None if gone."""
    for text in (setting("default_model"), recall(_LAST_MODEL)):
        if text and Path(text).is_file():
            return Path(text)
    return None


def remember(key: str, value: str) -> None:
    """Keep a choice."""
    QSettings(_ORGANISATION, "widgets").setValue(key, value)


def recall(key: str, default: str = "") -> str:
    """Return a kept choice, or the default."""
    value = QSettings(_ORGANISATION, "widgets").value(key, default)
    return value if isinstance(value, str) else default
