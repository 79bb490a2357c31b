"""Objects of which each viewer has one, for as long as it lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["PerViewer"]

T = TypeVar("T")


class PerViewer(Generic[T]):
    """Makes one object for each viewer, at the first call, and forgets it with the viewer.

    Parameters
    ----------
    make : callable
        Called with the viewer; its result must not keep the viewer alive.
    """

    def __init__(self, make: Callable[[Viewer], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self, viewer: Viewer) -> T:
        """Return the object of a viewer."""
        key = id(viewer)
        if key not in self._made:
            self._made[key] = self._make(viewer)
            weakref.finalize(viewer, self._made.pop, key, None)
        return self._made[key]
