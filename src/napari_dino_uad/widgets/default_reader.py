"""Whether napari opens scans with this plugin without asking which reader to take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dino_uad.core.scans.formats import VOLUME_SUFFIXES
from napari_dino_uad.widgets.settings import recall, remember

if TYPE_CHECKING:
    from napari.utils.notifications import Notification

__all__ = ["clear_default", "is_default", "make_default", "offer_default", "other_readers"]

_PLUGIN = "napari-dino-uad"
_OFFERED = "default reader offered"

#: Files by their ending, in small and capital letters, and every folder.
PATTERNS = (
    *(f"*{one}" for suffix in VOLUME_SUFFIXES for one in (suffix, suffix.upper())),
    f"*{os.sep}",
)

# Short: napari cuts a longer line off.
_QUESTION = "Open scans with DINO UAD from now on?"


def other_readers() -> dict[str, str]:
    """Return which of the patterns the user has given to another reader.

    Returns
    -------
    dict
        Name of the reader's plugin, by pattern. A choice for "*.gz" is one for "*.nii.gz".
    """
    out = {}
    for pattern in PATTERNS:
        reader = _reader_of(pattern)
        if reader not in (None, _PLUGIN):
            out[pattern] = str(reader)
    return out


def is_default() -> bool:
    """Return whether napari takes this plugin for all its files and folders."""
    return all(_reader_of(pattern) == _PLUGIN for pattern in PATTERNS)


def make_default(*, override: bool = False) -> dict[str, str]:
    """Make napari open scans and folders with this plugin without asking.

    Parameters
    ----------
    override : bool
        Whether to replace choices of other readers; ask the user first.

    Returns
    -------
    dict
        What stays with other readers, as `other_readers` returns it.
    """
    kept = {} if override else other_readers()
    chosen = _chosen()
    mine = {pattern: _PLUGIN for pattern in PATTERNS if pattern not in kept}
    # napari takes the first of several patterns that match.
    _choose({**mine, **{one: reader for one, reader in chosen.items() if one not in mine}})
    return kept


def clear_default() -> None:
    """Let napari ask again."""
    _choose({one: reader for one, reader in _chosen().items() if reader != _PLUGIN})


def offer_default() -> Notification | None:
    """Ask once, in a notification with a button; return it, or None if there is nothing to ask."""
    if recall(_OFFERED) or is_default():
        return None
    from napari.utils.notifications import (
        Notification,
        NotificationSeverity,
        notification_manager,
    )

    remember(_OFFERED, "yes")
    others = sorted(set(other_readers().values()))
    question = _QUESTION
    if others:
        question += f" What you gave to {', '.join(others)} stays there."
    actions: list[tuple[str, Callable[..., object]]] = [
        ("Yes, without asking", lambda *_: make_default())
    ]
    notification = Notification(question, NotificationSeverity.INFO, actions)
    notification_manager.dispatch(notification)
    return notification


def _reader_of(pattern: str) -> str | None:
    """Return the reader that napari takes for files of a pattern."""
    from napari.plugins.utils import get_preferred_reader

    # A folder has to exist to be taken for one.
    folder = str(Path(os.sep).resolve())
    is_folder = pattern.endswith(os.sep)
    return get_preferred_reader(folder if is_folder else pattern.replace("*", f"{folder}scan"))


def _chosen() -> dict[str, str]:
    from napari.settings import get_settings

    return dict(get_settings().plugins.extension2reader)


def _choose(readers: dict[str, str]) -> None:
    from napari.settings import get_settings

    get_settings().plugins.extension2reader = readers
