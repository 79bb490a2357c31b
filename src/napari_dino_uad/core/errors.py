"""The exception for bad input that a user can fix."""

from __future__ import annotations

import errno

__all__ = ["OF_ONE_SCAN", "InputError", "sentence"]


class InputError(ValueError):
    """Bad input, described in one sentence: what was expected, what was found, what to do.

    Widgets show the message as it is; the command line prints it and exits with code 2.

    >>> from napari_dino_uad import InputError, read_volume
    >>> try:
    ...     read_volume("gone.nii.gz")
    ... except InputError as error:
    ...     print(error)
    There is no file or folder gone.nii.gz; check the path.
    """


#: Errors that one scan can cause; the other scans of a run are still done.
OF_ONE_SCAN = (InputError, OSError, RuntimeError, MemoryError)


def sentence(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        advice = {
            errno.ENOSPC: "free some space on the disk",
            errno.EDQUOT: "free some space on the disk",
            errno.EACCES: "choose another place or change its permissions",
            errno.EPERM: "choose another place or change its permissions",
            errno.EROFS: "choose another place",
        }.get(error.errno or 0, "check the path and the disk")
        return f"{where}{error.strerror}; {advice}."
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}"
