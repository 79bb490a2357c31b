"""What the user should know of a scan, shown by napari once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

__all__ = ["show_notices"]


def show_notices(notices: Sequence[str]) -> None:
    """Show sentences as one warning of napari.

    Only the thread of the window may show one; others leave it to the caller.

    Parameters
    ----------
    notices : sequence of str
        The sentences; without any, nothing is shown.
    """
    if not notices or threading.current_thread() is not threading.main_thread():
        return
    from napari.utils.notifications import show_warning

    show_warning("\n".join(notices))
