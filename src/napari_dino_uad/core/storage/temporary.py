"""Temporary folders; a lock tells those of living processes from those of killed ones."""

from __future__ import annotations

import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["LOCK_NAME", "is_held", "lock_of_own", "sweep", "sweep_sometimes", "temporary_folder"]

#: File in every temporary folder, locked by its process.
LOCK_NAME = "lock"

_PREFIX, _SUFFIX = ".napari-dino-uad-", ".partial"

# A temporary folder without a lock is brand new, or its process was killed before locking it.
_BEGINNING_S = 600.0
# Where locks do not work, as on some network disks, only the age shows a leftover.
_OLD_S = 86_400.0
# Folders are searched for leftovers no more often than this.
_SWEEP_EVERY_S = 60.0
_swept: dict[Path, float] = {}


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Create a folder and remove it at the end; if this run is killed, the next one removes it.

    Parameters
    ----------
    parent : Path
        An existing folder.

    Yields
    ------
    Path
        A new folder, which holds a file named "lock".
    """
    while True:
        folder = parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        folder.mkdir()
        lock = lock_of_own(folder / LOCK_NAME)
        if lock is not None:
            break
    try:
        yield folder
    finally:
        _remove(folder, lock)


def lock_of_own(path: Path) -> BaseFileLock | None:
    """Hold a file for as long as this process lives, or until the lock is released.

    Parameters
    ----------
    path : Path
        A file that does not exist yet, of a name that no other process makes.

    Returns
    -------
    FileLock or None
        None if another process has just mistaken it for a leftover and removed it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except (Timeout, FileNotFoundError):
        return None
    if not path.exists():
        lock.release(force=True)
        return None
    return lock


def is_held(path: Path) -> bool:
    """Return whether a living process holds a file of `lock_of_own`.

    Where locks do not work, a file up to a day old counts as held.
    """
    lock = _free_lock(path)
    if lock is None:
        return path.exists()
    lock.release(force=True)
    return False


def _free_lock(path: Path) -> BaseFileLock | None:
    """Take the lock of a dead process; None if the process lives or there is no lock."""
    from filelock import FileLock, Timeout

    if not path.exists():
        return None
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    except (OSError, NotImplementedError):
        return lock if _age(path) > _OLD_S else None
    return lock


def sweep(folder: Path) -> int:
    """Remove the temporary folders that killed runs left in a folder.

    Parameters
    ----------
    folder : Path
        A folder; those inside it are not searched.

    Returns
    -------
    int
        How many were removed. Those of living processes and files of other programs stay.
    """
    _swept[folder] = time.monotonic()
    removed = 0
    for partial in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        if partial.is_symlink() or not partial.is_dir():
            continue
        lock = _free_lock(partial / LOCK_NAME)
        if lock is not None or (
            not (partial / LOCK_NAME).exists() and _age(partial) > _BEGINNING_S
        ):
            _remove(partial, lock)
            removed += 1
    return removed


def sweep_sometimes(folder: Path) -> None:
    """Sweep a folder, unless this process has done so within the last minute."""
    if time.monotonic() - _swept.get(folder, -_SWEEP_EVERY_S) >= _SWEEP_EVERY_S:
        sweep(folder)


def _age(path: Path) -> float:
    """Return the seconds since a file or folder was changed."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _remove(folder: Path, lock: BaseFileLock | None) -> None:
    """Remove a temporary folder, its lock last, so that the next run can finish the removal."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name == LOCK_NAME:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    if lock is not None:
        if sys.platform == "win32":
            # Windows cannot remove an open file.
            lock.release(force=True)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release(force=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
