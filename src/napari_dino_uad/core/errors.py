"""The one exception for input a user can put right."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input, said in one sentence: what was expected, what came, what to do.

    Widgets show the message as it is; the command line prints it and exits with code 2.
    """
