"""A DICOM element whose length does not fit its type."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.volume import read_volume
from scan_files import write_dicom


def test_rows_of_three_bytes_are_refused(tmp_path):
    path = tmp_path / "scan.dcm"
    write_dicom(path, np.arange(4000).reshape(50, 80))
    data = path.read_bytes()
    # Rows (0028,0010), implicit, of two bytes.
    rows = b"\x28\x00\x10\x00\x02\x00\x00\x00"
    before, after = data.split(rows)
    path.write_bytes(before + rows[:4] + b"\x03\x00\x00\x00" + after[:2] + b"\0" + after[2:])
    with pytest.raises(InputError):
        read_volume(path)
