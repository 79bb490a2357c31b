"""Tables in DICOM headers that turn stored values into those of the scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.scans.dicom.elements import first_item, value
from napari_dino_uad.core.scans.dicom.headers import Header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Lookup", "lookup_of"]


@dataclass(frozen=True, eq=False)
class Lookup:
    """A modality lookup table.

    Attributes
    ----------
    first : int
        The stored value of the table's first entry; lower ones get that entry too, and values
        beyond the table its last.
    table : ndarray of uint8 or uint16, (entries,)
    """

    first: int
    table: NDArray[Any]

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the table's value of each pixel."""
        places = np.clip(pixels.astype(np.int64) - self.first, 0, len(self.table) - 1)
        return self.table[places]


def lookup_of(header: Header, dataset: Dataset) -> Lookup | str | None:
    """Read the modality lookup table of a classic object.

    Returns
    -------
    Lookup, str or None
        One sentence where the table is damaged; None where there is none.
    """
    item = first_item(dataset, "ModalityLUTSequence")
    if item is None:
        return None
    descriptor, data = value(item, "LUTDescriptor"), value(item, "LUTData")
    try:
        count, first, bits = (int(one) for one in descriptor)
        count = count or 1 << 16
        if isinstance(data, bytes):
            order = "<" if item.is_little_endian is not False else ">"
            # Tables of 8 bits are stored in bytes or, by many writers, in words.
            small = bits <= 8 and len(data) < 2 * count
            data = np.frombuffer(data, np.uint8 if small else f"{order}u2")
        table = np.atleast_1d(np.asarray(data)).astype(np.uint16)[:count]
    except (TypeError, ValueError, OverflowError):
        return _refusal(header)
    if len(table) != count or not 1 <= bits <= 16:
        return _refusal(header)
    if header.signed and first >= 1 << 15:
        first -= 1 << 16
    return Lookup(first, table)


def _refusal(header: Header) -> str:
    return (
        f"{Path(header.file).name} is damaged: a whole table from stored values to those of the "
        "scan (modality LUT) is expected; export it again."
    )
