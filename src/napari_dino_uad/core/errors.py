"""The exception for bad input that a user can fix."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input, described in one sentence: what was expected, what was found, what to do.

    Widgets show the message as it is; the command line prints it and exits with code 2.
    """
