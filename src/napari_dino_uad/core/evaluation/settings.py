"""What an evaluation measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.storage.tables import read_table

__all__ = ["CONVENTIONS", "EvaluationSettings", "read_groups"]

#: Which pixels count. Figures of the two cannot be compared: background is easy, and there is much
#: of it, so that figures over all pixels look better.
CONVENTIONS = {
    "tissue": "pixels of the foreground in slices with enough tissue",
    "all": "all pixels of all slices, the background with the lowest score",
}


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation measures.

    Attributes
    ----------
    rates : tuple of float
        Nominal false-positive rates at which Dice is reported, as in the DPMM paper.
    finding_rate : float
        False-positive rate at which findings are compared with lesions.
    froc_rates : tuple of float
        False-positive rates of the points of the FROC curve.
    minimum_size : float or None
        Smallest finding, above `Calibration.core_threshold`, in the unit of the scan; None for
        that of `find_findings`.
    lesion_overlap : float
        Share of a lesion's voxels that findings must cover for it to count as met, and share of a
        finding's voxels that must be lesion for it not to count as false; 0 for a single voxel.
    bootstrap : int
        Resamples of the cases for the 95 % intervals; 0 for no intervals.
    seed : int
        Of the resampling.
    groups : mapping of str to mapping
        For each column, the group of each case by its name.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    rates: tuple[float, ...] = (0.1, 0.05, 0.01)
    finding_rate: float = 0.01
    froc_rates: tuple[float, ...] = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)
    minimum_size: float | None = None
    lesion_overlap: float = 0.0
    bootstrap: int = 1000
    seed: int = 0
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rate in (*self.rates, self.finding_rate, *self.froc_rates):
            if not 0 < rate < 1:
                raise InputError(f"A false-positive rate must be between 0 and 1, got {rate}.")
        if not 0 <= self.lesion_overlap <= 1:
            raise InputError(
                "The share of a lesion that findings must cover is a number from 0 to 1, got "
                f"{self.lesion_overlap}; change it."
            )
        if self.bootstrap < 0:
            raise InputError(
                f"The number of resamples must be 0 or more, got {self.bootstrap}; raise it."
            )

    @property
    def rule(self) -> str:
        """The rule by which findings meet lesions, in words."""
        if self.lesion_overlap == 0:
            return "a finding meets a lesion if they share a voxel"
        share = f"{self.lesion_overlap:.0%}"
        return (
            f"a lesion is met if findings cover {share} of its voxels; a finding is false unless "
            f"{share} of its voxels are lesion"
        )


def read_groups(path: Path) -> dict[str, dict[str, str]]:
    """Read the groups of cases from a CSV file with a column "case" and a column for each grouping.

    Raises
    ------
    InputError
        If the file cannot be read, has no such column, or names a case twice.
    """
    names, rows = read_table(path, "table of groups")
    columns = [name for name in names if name and name != "case"]
    if "case" not in names or not columns:
        raise InputError(
            f"A table of groups needs a column case and at least one more, such as site; {path} "
            f"has {', '.join(names) or 'none'}."
        )
    cases = [row["case"] for row in rows]
    twice = next((name for name in cases if cases.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} names the case {twice} twice; leave one row of it.")
    return {name: {row["case"]: row[name] for row in rows} for name in columns}
