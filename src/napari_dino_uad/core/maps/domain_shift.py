"""Domain shift: whether a scan is of the kind a model knows, from healthy statistics alone.

A lesion makes some tissue atypical. A scan of another sequence, without its skull or from another
scanner is atypical nearly everywhere, and then its anomaly map is meaningless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_dino_uad.core.calibration import Calibration

__all__ = ["UNLIKE_RATE", "DomainShift", "measure_shift"]

#: Scans below this rate are unlike the cohort. It is half of 0.14, the lowest rate of ten
#: validation patients with gliomas; the others have 0.28 to 0.71. T1, another scanner's FLAIR and
#: a skull-stripped scan have 0.002 to 0.005.
UNLIKE_RATE = 0.07


@dataclass(frozen=True)
class DomainShift:
    """The distance of a scan as a whole from the healthy ones.

    Attributes
    ----------
    median_rate : float
        Share of healthy tissue that is less typical than the median of this scan's tissue: near
        0.5 for a scan like the cohort's, near 0 for another kind.
    """

    median_rate: float

    @property
    def unlike(self) -> bool:
        """Whether the map should not be trusted."""
        return self.median_rate < UNLIKE_RATE

    @property
    def warning(self) -> str:
        """A sentence for the user; empty if nothing is wrong."""
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
    """Measure how different a scan is from the cohort.

    Parameters
    ----------
    level : float
        Median distance of the scan's tissue to typical healthy patches; infinity for a scan
        without tissue, which counts as unlike the cohort.
    levels : Calibration
        The same distances for healthy patches.

    Returns
    -------
    DomainShift
    """
    return DomainShift(float(levels.false_positive_rate(level)))
