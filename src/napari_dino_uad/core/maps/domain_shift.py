"""Domain shift: whether a scan is of the kind a model knows, from healthy statistics alone.

A lesion makes some tissue atypical. A scan of another sequence, without its skull or from another
scanner is atypical nearly everywhere, and then its anomaly map is meaningless.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.maps.heads import has_skull
from napari_dino_uad.core.maps.places import TissueFrame
from napari_dino_uad.core.scans.hounsfield import is_ct
from napari_dino_uad.core.slices.planes import plane_axis

if TYPE_CHECKING:
    from napari_dino_uad.core.calibration import Calibration
    from napari_dino_uad.core.scans.volume import Volume
    from napari_dino_uad.core.slices.prepared import PreparedScan
    from napari_dino_uad.core.slices.preprocessing import Preprocessing

__all__ = ["UNLIKE_RATE", "Differences", "DomainShift", "differences", "measure_shift"]

#: Scans below this rate are unlike the cohort. It is half of 0.14, the lowest rate of ten
#: validation patients with gliomas; the others have 0.28 to 0.71. T1, another scanner's FLAIR and
#: a skull-stripped scan have 0.002 to 0.005.
UNLIKE_RATE = 0.07
# Some slices of a scan have up to twice the rate of the whole.
_DOUBTFUL_RATE = 2 * UNLIKE_RATE

# Names of sequences as they stand in names of files and models.
_SEQUENCES = {
    "FLAIR": ("flair",),
    "T1": ("t1", "t1w", "mprage"),
    "T2": ("t2", "t2w"),
    "DWI": ("dwi", "adc"),
    "CT": ("ct", "ncct"),
}
# A scan is thick along an axis if its spacing there is larger than along the others by this factor.
_THICK = 1.5
# Shorter edge of a slice, relative to the network's input, below which it is coarse.
_COARSE = 0.6


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
    def doubtful(self) -> bool:
        """Whether the scan is at the edge of the kind the model knows.

        Some slices alone cannot tell then if the whole scan is unlike the cohort.
        """
        return UNLIKE_RATE <= self.median_rate < _DOUBTFUL_RATE

    @property
    def warning(self) -> str:
        """A sentence for the user; empty if nothing is wrong."""
        if not self.unlike:
            return ""
        return (
            "This scan is not of the kind the model knows: half of its tissue is less typical "
            f"than {self._healthy} healthy tissue. It may be another sequence, skull-stripped or "
            "from another scanner: do not trust the map, and use a model of such scans."
        )

    @property
    def remark(self) -> str:
        """A sentence on a doubtful scan; empty for others."""
        if not self.doubtful:
            return ""
        return (
            "This scan is at the edge of what the model knows: half of its tissue is less typical "
            f"than {self._healthy} healthy tissue. Read its map with care."
        )

    @property
    def _healthy(self) -> str:
        share = 100 * (1 - self.median_rate)
        return "nearly all" if share >= 99.5 else f"{share:.0f} % of"


@dataclass(frozen=True)
class Differences:
    """What distinguishes a scan from the cohort of a model.

    Attributes
    ----------
    known : tuple of str
        Differences from what the model says of its cohort, such as "it is a T1, the model is named
        FLAIR".
    facts : tuple of str
        What can be told of the scan only, to be compared with the cohort, such as "skull-stripped".
    """

    known: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Sentences for the user; empty if nothing can be told."""
        parts = []
        if self.known:
            parts.append(f"What differs: {'; '.join(self.known)}.")
        if self.facts:
            parts.append(f"Check against the cohort: this scan is {', '.join(self.facts)}.")
        return " ".join(parts)


def differences(
    volume: Volume,
    scan: PreparedScan,
    frame: TissueFrame,
    preprocessing: Preprocessing,
    model_name: str = "",
) -> Differences:
    """Name what distinguishes a scan from a model's cohort, as far as that can be told.

    Parameters
    ----------
    volume : Volume
    scan : PreparedScan
        The same scan, prepared for the model.
    frame : TissueFrame
        Of the scan.
    preprocessing : Preprocessing
        Of the model.
    model_name : str
        Name of the model's file.
    """
    known = [
        *_sequence(volume, preprocessing, model_name),
        *_plane(volume, preprocessing),
        *_resolution(volume, preprocessing),
    ]
    facts = []
    if frame.head and preprocessing.plane == "axial" and has_skull(scan) is False:
        facts.append("skull-stripped (no skull and scalp around the brain)")
    if volume.spacing_known:
        across, *within = volume.spacing_mm
        facts.append(
            f"in slices {across:.2g} mm apart of {within[0]:.2g} x {within[1]:.2g} mm pixels"
        )
    return Differences(tuple(known), tuple(facts))


def _named(text: str) -> str:
    """Return the sequence that a name mentions; empty if none or several."""
    words = set(re.split(r"[^a-z0-9]+", text.lower()))
    found = [name for name, aliases in _SEQUENCES.items() if words & set(aliases)]
    return found[0] if len(found) == 1 else ""


def _sequence(volume: Volume, preprocessing: Preprocessing, model_name: str) -> list[str]:
    name = volume.name if volume.path is None else f"{volume.name} {volume.path.name}"
    scan, model = _named(name), _named(model_name)
    if is_ct(volume.array, volume.modality) and preprocessing.window is None:
        return ["it looks like a CT, and the model has no CT window"]
    if volume.modality == "MR" and preprocessing.window is not None:
        return ["it is an MR scan, and the model has a CT window"]
    if scan and model and scan != model:
        return [f"its name says {scan}, that of the model {model}"]
    return []


def _plane(volume: Volume, preprocessing: Preprocessing) -> list[str]:
    spacing = np.asarray(volume.spacing_mm)
    thick = int(spacing.argmax())
    if volume.is_2d or not volume.spacing_known or spacing[thick] < _THICK * np.median(spacing):
        return []
    if thick == plane_axis(preprocessing.plane):
        return []
    acquired = ("axial", "coronal", "sagittal")[thick]
    return [f"it was acquired in {acquired} slices, and the model reads {preprocessing.plane} ones"]


def _resolution(volume: Volume, preprocessing: Preprocessing) -> list[str]:
    axis = plane_axis(preprocessing.plane)
    narrowest = min(size for other, size in enumerate(volume.shape) if other != axis)
    if narrowest >= _COARSE * preprocessing.input_size:
        return []
    size = preprocessing.input_size
    return [f"its slices are only {narrowest} pixels wide, and the model looks at {size}"]


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
