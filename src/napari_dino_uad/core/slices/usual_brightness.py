"""The usual brightness of a scan's tissue, which tells what is bright or dark in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["UsualBrightness"]

# Distance from the median, in interquartile ranges, at which a patch is wholly on one side.
_FULL_SIDE = 0.7
# Least interquartile range of intensities in [0, 1], so that flat scans have no noise for a side.
_LEAST_RANGE = 0.01


@dataclass(frozen=True)
class UsualBrightness:
    """The brightness of a scan's tissue, lesions included.

    Attributes
    ----------
    median : float
        In [0, 1], as the scan's intensities are scaled.
    spread : float
        Interquartile range.
    """

    median: float
    spread: float

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> UsualBrightness | None:
        """Measure it on the intensities of tissue, (N,); None if there are none."""
        if not values.size:
            return None
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(median), max(float(high - low), _LEAST_RANGE))

    def side(self, brightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return on which side of the median each patch is: -1 (dark) to 1 (bright)."""
        reach = np.float32(_FULL_SIDE * self.spread)
        return np.clip((brightness - np.float32(self.median)) / reach, -1, 1)
