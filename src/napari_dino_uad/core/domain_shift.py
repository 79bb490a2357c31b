"""Whether a scan is of the kind a model knows, told from healthy statistics alone.

A lesion takes some tissue away from what is typical. A scan of another sequence, without its skull,
or of another scanner lies far from it nearly everywhere, and then a map of what is unusual means
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_dino_uad.core.calibration import Calibration

__all__ = ["UNLIKE_RATE", "DomainShift", "measure_shift"]

#: Below this a scan is unlike the cohort: half of what the lowest of ten validation patients with
#: gliomas has, 0.14; the others have 0.28 to 0.71. T1, another scanner's FLAIR and a skull-stripped
#: one have 0.002 to 0.005.
UNLIKE_RATE = 0.07


@dataclass(frozen=True)
class DomainShift:
    """How far a scan as a whole lies from the healthy ones.

    Attributes
    ----------
    median_rate : float
        Share of healthy tissue that lies farther from what is typical than the median of this
        scan's tissue: near 0.5 for a scan of the cohort's kind, near 0 for another.
    """

    median_rate: float

    @property
    def unlike(self) -> bool:
        """Whether the map should not be trusted."""
        return self.median_rate < UNLIKE_RATE

    @property
    def warning(self) -> str:
        """A sentence for the user; empty where nothing is wrong."""
        if not self.unlike:
            return ""
        share = 100 * (1 - self.median_rate)
        healthy = "nearly all" if share >= 99.5 else f"{share:.0f} % of"
        return (
            "This scan does not look like those the model knows: half of its tissue is less "
            f"typical than {healthy} healthy tissue. It may be another sequence, skull-stripped "
            "or from another scanner; do not trust the map, and use a model of such scans."
        )


def measure_shift(level: float, levels: Calibration) -> DomainShift:
    """Measure how unlike the cohort a scan is.

    Parameters
    ----------
    level : float
        Median distance of the scan's tissue to typical healthy patches; infinity for a scan
        without tissue, which is unlike any.
    levels : Calibration
        Those distances of healthy patches.

    Returns
    -------
    DomainShift
    """
    return DomainShift(float(levels.false_positive_rate(level)))
