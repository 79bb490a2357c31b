"""Which entries of the cache are in use by living processes.

A process locks one file of its own in the cache while it lives, and leaves a mark named after that
file in every entry it uses. Marks of dead processes are ignored.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dino_uad.core.storage.folders import own_folder
from napari_dino_uad.core.storage.temporary import is_held, lock_of_own

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["in_use", "release", "sweep_users", "use"]

_USERS = ".users"
_MARK = "used-by-"


@dataclass
class _User:
    """A process as the user of one cache."""

    process: int
    name: str
    lock: BaseFileLock


_users: dict[Path, _User] = {}
_uses: Counter[Path] = Counter()
# Reentrant: the garbage collector may release an entry while this lock is held.
_changing = threading.RLock()


def use(entry: Path) -> None:
    """Mark an entry as used by this process; call it with the cache locked.

    Parameters
    ----------
    entry : Path
        Folder of an entry, directly inside that of the cache.

    Raises
    ------
    OSError
        If the cache cannot be written to.
    """
    with _changing:
        mark = entry / f"{_MARK}{_user(entry.parent).name}"
        # Count first: an older use may be released at this moment and would remove the mark.
        _uses[entry] += 1
        mark.touch()


def release(entry: Path, process: int) -> None:
    """Undo one `use`, if this is the process that made it."""
    with _changing:
        user = _users.get(entry.parent)
        if user is None or process != os.getpid() or user.process != process:
            return
        _uses[entry] -= 1
        if _uses[entry] <= 0:
            del _uses[entry]
            with suppress(OSError):
                (entry / f"{_MARK}{user.name}").unlink(missing_ok=True)


def in_use(entry: Path) -> bool:
    """Return whether a living process uses an entry; marks of dead ones are removed."""
    used = False
    for mark in entry.glob(f"{_MARK}*"):
        if is_held(_holder(entry.parent, mark.name.removeprefix(_MARK))):
            used = True
        else:
            with suppress(OSError):
                mark.unlink(missing_ok=True)
    return used


def sweep_users(cache: Path) -> None:
    """Remove the files of dead processes; call it with the cache locked."""
    for path in (cache / _USERS).glob("*"):
        if not is_held(path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _holder(cache: Path, name: str) -> Path:
    return cache / _USERS / name


def _user(cache: Path) -> _User:
    """Return this process as a user of a cache."""
    user = _users.get(cache)
    if user is not None and user.process == os.getpid():
        if _holder(cache, user.name).exists():
            return user
        # The whole cache was removed.
        user.lock.release(force=True)
    elif user is not None:
        # A forked process is another user, and holds nothing yet.
        _uses.clear()
    own_folder(cache / _USERS)
    lock = None
    while lock is None:
        name = secrets.token_hex(8)
        lock = lock_of_own(_holder(cache, name))
    _users[cache] = _User(os.getpid(), name, lock)
    return _users[cache]


@atexit.register
def _leave() -> None:
    """Release every cache."""
    for cache, user in list(_users.items()):
        if user.process == os.getpid():
            with suppress(OSError):
                _holder(cache, user.name).unlink(missing_ok=True)
            user.lock.release(force=True)
