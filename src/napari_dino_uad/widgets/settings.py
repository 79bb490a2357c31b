"""The user's last choices, kept between sessions of napari."""

from __future__ import annotations

from qtpy.QtCore import QSettings

__all__ = ["recall", "remember"]

_ORGANISATION = "napari-dino-uad"


def remember(key: str, value: str) -> None:
    """Keep a choice."""
    QSettings(_ORGANISATION, "widgets").setValue(key, value)


def recall(key: str, default: str = "") -> str:
    """Return a kept choice, or the default."""
    value = QSettings(_ORGANISATION, "widgets").value(key, default)
    return value if isinstance(value, str) else default
