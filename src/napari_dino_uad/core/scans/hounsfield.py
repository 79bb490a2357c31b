"""CT: how its values are told from those of other scans, and the windows it is read in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CT_WINDOWS", "CtWindow", "is_ct", "voxel_sample"]

# A scan of which a part is air in Hounsfield units, and nothing lies far below, is a CT. Ringing of
# bright MR scans may fall as low in a few voxels.
_AIR, _LOWEST, _LEAST_AIR = -700, -4096, 0.01
# Voxels looked at; a whole CT would take seconds and its size in memory.
_SAMPLE = 1_000_000


@dataclass(frozen=True)
class CtWindow:
    """A window in Hounsfield units, as radiologists use it."""

    centre: float
    width: float
    shows: str

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that is not clipped."""
        return self.centre - self.width / 2, self.centre + self.width / 2


#: By name.
CT_WINDOWS = {
    "brain": CtWindow(40, 80, "grey and white matter"),
    "stroke": CtWindow(40, 40, "early infarcts, which differ by few Hounsfield units"),
    "lung": CtWindow(-600, 1500, "airways and lung"),
    "abdomen": CtWindow(40, 400, "organs and soft tissue"),
    "bone": CtWindow(400, 1800, "bone"),
}


def is_ct(values: NDArray[Any], modality: str | None) -> bool:
    """Return whether a scan holds Hounsfield units.

    Parameters
    ----------
    values : ndarray
        Of the scan.
    modality : str or None
        DICOM says it; of other files the values tell.
    """
    if modality:
        return modality == "CT"
    sample = voxel_sample(values)
    if not sample.size:
        return False
    air = np.count_nonzero(sample <= _AIR) / sample.size
    return bool(sample.min() >= _LOWEST and air >= _LEAST_AIR)


def voxel_sample(array: NDArray[Any]) -> NDArray[Any]:
    """Return about a million finite values, spread over an array."""
    # A stride that shares no factor with the edges visits all rows and columns.
    step = max(1, array.size // _SAMPLE) | 1
    sample = np.asarray(array).reshape(-1)[::step]
    return sample[np.isfinite(sample)]
