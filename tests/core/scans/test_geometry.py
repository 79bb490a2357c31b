"""Any permutation, flip, rotation and spacing of a scan comes back exactly, by hypothesis.

NAPARI_DINO_UAD_EXAMPLES=1000 tries more of each than `make test`.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_dino_uad import read_volume, write_volume
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.file_order import to_file_grid
from scan_files import rotation

_COUNT = os.environ.get("NAPARI_DINO_UAD_EXAMPLES")
# The same examples every time, unless more are asked for.
EXAMPLES = settings(
    max_examples=int(_COUNT or 40),
    deadline=None,
    derandomize=_COUNT is None,
    suppress_health_check=[HealthCheck.too_slow],
)

sizes = st.tuples(*[st.integers(2, 7)] * 3)
spacings = st.tuples(*[st.floats(0.05, 20.0)] * 3)
origins = st.tuples(*[st.floats(-1500, 1500)] * 3)
turns = st.tuples(*[st.floats(-np.pi, np.pi)] * 3)
orders = st.permutations(range(3))
signs = st.tuples(*[st.sampled_from((-1, 1))] * 3)
endings = st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"])


def direction(order, sign, angles) -> np.ndarray:
    matrix = np.zeros((3, 3))
    for axis, (world, one) in enumerate(zip(order, sign, strict=True)):
        matrix[world, axis] = one
    return rotation(angles) @ matrix


def an_image(size, spacing, origin, matrix) -> sitk.Image:
    """An image whose voxels have each a value of their own."""
    values = np.random.default_rng(sum(size)).permutation(int(np.prod(size)))
    image = sitk.GetImageFromArray(values.reshape(size[::-1]).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(matrix.ravel().tolist())
    return image


@EXAMPLES
@given(sizes, spacings, origins, orders, signs, turns, endings)
def test_what_is_read_lies_where_simpleitk_reads_it(
    size, spacing, origin, order, sign, angles, ending
):
    image = an_image(size, spacing, origin, direction(order, sign, angles))
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / f"scan{ending}", Path(folder) / f"copy{ending}"
        sitk.WriteImage(image, str(path))
        source = sitk.ReadImage(str(path))
        volume = read_volume(path)
        stored = sitk.GetArrayFromImage(source)
        # Every voxel keeps its value and its place in the world.
        for value in (0, stored.size // 2, stored.size - 1):
            z, y, x = map(int, np.argwhere(stored == value)[0])
            left, posterior, superior = source.TransformIndexToPhysicalPoint((x, y, z))
            found = np.argwhere(volume.array == value)[0]
            expected = (-left, -posterior, superior)
            np.testing.assert_allclose(volume.to_ras_mm(tuple(found)), expected, atol=1e-3)
        # What is written lies voxel for voxel on the source.
        write_volume(copy, volume.array.astype(np.int16), volume)
        again = sitk.ReadImage(str(copy))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(again), stored)
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            ours, theirs = getattr(again, get)(), getattr(source, get)()
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
        back = to_file_grid(volume.array.astype(np.int16), volume)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), stored)


@EXAMPLES
@given(sizes, spacings, origins, orders, signs, turns, st.booleans())
def test_the_affine_of_nibabel_is_kept(size, spacing, origin, order, sign, angles, qform_only):
    matrix = np.eye(4)
    matrix[:3, :3] = direction(order, sign, angles) @ np.diag(spacing)
    matrix[:3, 3] = origin
    values = np.random.default_rng(0).permutation(int(np.prod(size))).reshape(size)
    image = nibabel.Nifti1Image(values.astype(np.int16), matrix)
    image.set_qform(matrix, 1)
    image.set_sform(None if qform_only else matrix, 0 if qform_only else 2)
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "scan.nii", Path(folder) / "copy.nii"
        nibabel.save(image, path)
        affine = nibabel.load(path).affine
        volume = read_volume(path)
        i, j, k = map(int, np.argwhere(values == values.max())[0])
        found = np.argwhere(volume.array == values.max())[0]
        expected = affine @ (i, j, k, 1)
        # Readers of a quaternion in single precision differ by 1e-3 rad near half a turn.
        atol = 2e-3 + (1e-3 * np.linalg.norm(np.multiply(size, spacing)) if qform_only else 0)
        np.testing.assert_allclose(volume.to_ras_mm(tuple(found)), expected[:3], atol=atol)
        write_volume(copy, volume.array.astype(np.int16), volume)
        again = nibabel.load(copy)
        np.testing.assert_array_equal(np.asarray(again.dataobj), values)
        np.testing.assert_allclose(again.affine, affine, rtol=1e-5, atol=atol)


@EXAMPLES
@given(sizes, spacings, turns, st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_a_sheared_scan_is_straightened_or_refused(size, spacing, angles, lean):
    """Every value lies where it lay, or the user is told."""
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = lean
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(angles) @ shear @ np.diag(spacing)
    values = np.arange(int(np.prod(size)), dtype=np.float32).reshape(size)
    image = nibabel.Nifti1Image(values, matrix)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii"
        nibabel.save(image, path)
        try:
            volume = read_volume(path)
        except InputError as error:
            assert str(error).endswith(".")
            return
    if volume.notices:
        assert any(re.search("tilt|resampled|right angle", one) for one in volume.notices)
        return
    corners = [0, values.size - 1]
    for value in corners:
        place = matrix @ (*np.argwhere(values == value)[0], 1)
        found = volume.to_ras_mm(tuple(np.argwhere(volume.array == value)[0]))
        # What leans by less than half a pixel of a slice is taken as it is.
        assert np.linalg.norm(np.subtract(found, place[:3])) < 0.51 * min(spacing[:2]) + 1e-3
