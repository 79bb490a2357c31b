"""What the findings of a map depend on, beside the map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DEFAULT_RATE", "FindingSettings"]

#: False-positive rate of the threshold where none is chosen, in the window and on the command line.
DEFAULT_RATE = 0.01


@dataclass(frozen=True)
class FindingSettings:
    """Settings that the findings depend on, beside the map.

    Attributes
    ----------
    rate : float
        The threshold, as a false-positive rate on healthy tissue.
    minimum_size : float
        In the scan's `size_unit`.
    tissue_only : bool
        Whether the background is left out.
    edits : ndarray of int8, (S, P, L), or None
        1 where the user added a voxel, -1 where the user removed one; never changed in place.
    without_scalp : bool
        Whether the scalp is left out too, where a skull was found.
    """

    rate: float
    minimum_size: float
    tissue_only: bool
    edits: NDArray[np.int8] | None = field(default=None, compare=False)
    without_scalp: bool = False

    def same(self, other: FindingSettings) -> bool:
        """Return whether both give the same findings."""
        return self == other and self.edits is other.edits
