"""DICOM files whose lengths do not fit what their headers say."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_files import dataset, save
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


@pytest.mark.parametrize(
    ("place", "number"), [(0, 0), (0, 1), (0, 2**31), (4, 0), (4, 900), (8, 9), (8, 10**6)]
)
def test_planes_of_run_lengths_that_are_elsewhere_are_refused(tmp_path, place, number):
    from pydicom.uid import RLELossless

    out = dataset(np.arange(300, dtype=np.uint16).reshape(20, 15))
    out.compress(RLELossless, generate_instance_uid=False)
    path = save(out, tmp_path / "scan.dcm")
    assert read_volume(path).shape == (1, 20, 15)
    data = bytearray(path.read_bytes())
    head = data.index(b"\x02\0\0\0\x40\0\0\0")
    data[head + place : head + place + 4] = number.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"scan\.dcm is truncated or damaged|scan\.dcm cannot"):
        read_volume(path)


@pytest.mark.parametrize("plane", [0, 1])
def test_run_lengths_that_end_early_are_refused(tmp_path, plane):
    from pydicom.uid import RLELossless

    pixels = np.random.default_rng(0).integers(0, 4000, (40, 30)).astype(np.uint16)
    out = dataset(pixels)
    out.compress(RLELossless, generate_instance_uid=False)
    path = save(out, tmp_path / "scan.dcm")
    assert np.array_equal(read_volume(path).array[0], pixels)
    data = bytearray(path.read_bytes())
    head = data.index(b"\x02\0\0\0\x40\0\0\0")
    starts = np.frombuffer(data, "<u4", 2, head + 4)
    middle = head + int(starts[plane]) + 300
    # 128 stands for nothing.
    data[middle : middle + 100] = b"\x80" * 100
    path.write_bytes(data)
    with pytest.raises(InputError, match="truncated or damaged"):
        read_volume(path)
