"""Write files whole or not at all; they stay whole after a power cut.

New files are written to a hidden folder beside their final place. Each is synced to the disk
(fsync) and renamed; then the folder is synced. Two processes that write the same file never share
a temporary name, and the last one wins.

New files and folders are their owner's alone, as scans are; a file that replaces another one has
the other's permissions.

A process holds a lock on its hidden folder while it lives. The next run that writes there
recognises the remains of a killed run by their free lock, and removes them.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.storage.folders import own_folder
from napari_dino_uad.core.storage.temporary import LOCK_NAME, sweep_sometimes, temporary_folder

__all__ = [
    "blocked",
    "cannot_write",
    "csv_text",
    "json_text",
    "replace_file",
    "staged",
    "sync_file",
    "sync_folder",
    "write_json",
    "write_text",
    "write_texts",
    "writing",
]

_OWN_FOLDER, _OWN_FILE = 0o700, 0o600

# Errors of file systems that cannot sync files, or folders.
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}

_ADVICE = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some space on the disk",
    errno.EACCES: "choose another place or change its permissions",
    errno.EPERM: "choose another place or change its permissions",
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error while a file is written into one sentence.

    Parameters
    ----------
    path : Path
        Name of the file, for messages.

    Raises
    ------
    InputError
        In place of an OSError: what cannot be written, why, and what to do.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the error to raise for a file that cannot be written."""
    reason = error.strerror or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "check the path and the disk")
    return InputError(f"{path} cannot be written: {reason}; {advice}.")


def blocked(path: Path) -> InputError | None:
    """Return the error to raise if the path of a new file is a folder; else None."""
    if path.is_dir():
        return InputError(f"{path} is a folder, but a file goes there; move the folder away.")
    return None


@contextmanager
def staged(folder: Path, last: str | None = None) -> Iterator[Path]:
    """Write files or whole folders that appear together, or not at all.

    Parameters
    ----------
    folder : Path
        Final folder; created if needed.
    last : str, optional
        Name of the file that describes the others: the old one is removed before the others are
        replaced, and the new one comes last, so it never describes files of another run.

    Yields
    ------
    Path
        A temporary folder on the same disk. Its content is moved to `folder` at the end; after
        an error nothing is.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full.
    InputError
        If a folder lies where a file goes.
    """
    own_folder(folder)
    sweep_sometimes(folder)
    with temporary_folder(folder) as partial:
        yield partial
        made = sorted(path for path in partial.iterdir() if path.name != LOCK_NAME)
        # The file that describes the others comes last.
        made.sort(key=lambda path: path.name == last)
        for path in made:
            problem = None if path.is_dir() else blocked(folder / path.name)
            if problem is not None:
                raise problem
        for path in made:
            _keep_own(path, folder / path.name)
            _sync(path)
        if made:
            with _alone(folder):
                if last is not None and len(made) > 1:
                    (folder / last).unlink(missing_ok=True)
                for path in made:
                    path.replace(folder / path.name)
            sync_folder(folder)


def _keep_own(path: Path, target: Path) -> None:
    """Give a new file the permissions of the one it replaces, or else to its owner alone."""
    if path.is_dir():
        for inside in path.iterdir():
            _keep_own(inside, target / inside.name)
        path.chmod(_OWN_FOLDER)
        return
    mode = stat.S_IMODE(target.stat().st_mode) if target.is_file() else _OWN_FILE
    path.chmod(mode)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from replacing files at the same time, if the system can."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network disks cannot lock folders. Files of two runs could then mix, which the
        # checksums in their report reveal.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Sync a file, or a folder with everything in it, to the disk."""
    if not path.is_dir():
        sync_file(path)
        return
    for inside in path.iterdir():
        _sync(inside)
    sync_folder(path)


def sync_file(path: Path) -> None:
    """Sync the content of a file to the disk.

    Raises
    ------
    OSError
        If the disk is full or broken.
    """
    # Windows syncs only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    _sync_and_close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk; Windows does so by itself."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    _sync_and_close(descriptor)


def _sync_and_close(descriptor: int) -> None:
    """Sync an open file or folder and close it; file systems without fsync are excused."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def replace_file(source: Path, target: Path) -> None:
    """Sync a finished file to the disk and rename it, replacing an older one.

    Raises
    ------
    OSError
        If that is impossible.
    InputError
        If a folder lies where the file goes.
    """
    problem = blocked(target)
    if problem is not None:
        raise problem
    _keep_own(source, target)
    sync_file(source)
    source.replace(target)
    sync_folder(target.parent)


def write_texts(folder: Path, texts: Mapping[str, str], last: str | None = None) -> None:
    """Write text files that belong together, all or none; create their folder if needed.

    Parameters
    ----------
    folder : Path
        Folder to write to.
    texts : mapping of str to str
        Content by file name.
    last : str, optional
        As in `staged`.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    shown = folder / (last or next(iter(texts)))
    with writing(shown), staged(folder, last) as partial:
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; create its folder if needed.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    write_texts(path.parent, {path.name: text})


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return plain values as the text of a JSON file."""
    return json.dumps(value, indent=1) + "\n"


def csv_text(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table as the text of a CSV file.

    Parameters
    ----------
    names : sequence of str
        Names of the columns.
    rows : iterable of mapping
        One value per column; None gives an empty cell.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
