"""A mask counts where it lies in the patient, not where its voxels stand in an array."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_dino_uad import Case, drain, evaluate, find_cases, fit, read_volume, save_model
from napari_dino_uad.cli import app
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.grids import match_mask
from scan_files import real_scan, rotation

SIZE, SPACING, ORIGIN = (20, 16, 12), (1.0, 1.5, 3.0), (-90.0, 126.0, -72.0)
# As ITK reads a file of RAS axes, and an oblique one.
STRAIGHT = np.diag([-1.0, -1.0, 1.0])
OBLIQUE = rotation() @ STRAIGHT


def write(path, array, direction=STRAIGHT, spacing=SPACING, origin=ORIGIN):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in spacing])
    image.SetOrigin([float(value) for value in origin])
    image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def voxels(seed=0):
    return np.random.default_rng(seed).integers(1, 2000, SIZE[::-1]).astype(np.int16)


def lesion():
    array = np.zeros(SIZE[::-1], np.uint8)
    array[2:5, 3:8, 11:18] = 1
    return array


def pair(tmp_path, mask=None, axes=STRAIGHT, suffix=".nii.gz", **other):
    """Write a scan and its mask, whose header may say something else."""
    scan = write(tmp_path / f"p_flair{suffix}", voxels(), axes)
    header = {"direction": axes, **other}
    path = write(tmp_path / f"p_lesion{suffix}", lesion() if mask is None else mask, **header)
    return scan, path


def match(scan, mask, geometry="check"):
    read = read_volume(scan)
    return match_mask(read_volume(mask, allow_constant=True), read, geometry)


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_the_same_grid_is_taken_as_it_is(tmp_path, direction):
    scan, mask = pair(tmp_path, axes=direction)
    array, note = match(scan, mask)
    assert note == ""
    assert np.array_equal(array, read_volume(mask).array)
    assert array.sum() == lesion().sum()


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_stored_on_other_axes_is_the_same_grid(tmp_path, direction, order):
    scan, mask = pair(tmp_path, axes=direction)
    expected = match(scan, mask)[0]
    turned = sitk.Flip(sitk.PermuteAxes(sitk.ReadImage(str(mask)), order), (True, False, True))
    for name in ("turned.nii.gz", "turned.nrrd", "turned.mha"):
        sitk.WriteImage(turned, str(tmp_path / name))
        array, note = match(scan, tmp_path / name)
        assert note == ""
        assert np.array_equal(array, expected)


def test_what_a_header_rounds_is_the_same_grid(tmp_path):
    scan, mask = pair(tmp_path, axes=np.round(OBLIQUE, 9), suffix=".mha")
    text = sitk.ReadImage(str(mask))
    text.SetOrigin([value + 0.05 for value in ORIGIN])
    sitk.WriteImage(text, str(mask))
    write(scan, voxels(), OBLIQUE)
    assert np.array_equal(match(scan, mask)[0], read_volume(mask).array)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ({"origin": (0, 0, 0)}, "the origin (0, 0, 0) mm instead of (-90, 126, -72) mm"),
        ({"origin": (0, 0, 0), "direction": np.eye(3)}, "axes to LPS instead of RAS"),
        ({"origin": (0, 0, 0), "direction": np.diag([-1, -1, 1]), "spacing": (1, 1, 1)},
         "voxels of 1 x 1 x 1 mm instead of 1 x 1.5 x 3 mm"),
        ({"direction": np.eye(3)}, "axes to LPS instead of RAS"),
    ],
)  # fmt: skip
def test_a_lost_header_is_refused_and_named(tmp_path, header, named):
    scan, mask = pair(tmp_path, **header)
    with pytest.raises(InputError) as error:
        match(scan, mask)
    assert named in str(error.value)
    assert " mm from the scan's; " in str(error.value)
    assert "--mask-geometry ignore" in str(error.value)
    assert "p_lesion.nii.gz does not lie on p_flair.nii.gz" in str(error.value)


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_ignored_geometry_takes_the_order_of_the_file(tmp_path, direction):
    scan, mask = pair(tmp_path, axes=direction)
    expected = match(scan, mask)[0]
    write(tmp_path / "lost.nii.gz", lesion(), np.eye(3), origin=(0, 0, 0))
    assert np.array_equal(match(scan, tmp_path / "lost.nii.gz", "ignore")[0], expected)
    write(tmp_path / "cut.nii.gz", lesion()[1:], np.eye(3), origin=(0, 0, 0))
    with pytest.raises(InputError, match="expected the scan's shape 20 x 16 x 12, got 20 x 16 x"):
        match(scan, tmp_path / "cut.nii.gz", "ignore")


@pytest.mark.parametrize(
    "header",
    [
        {"origin": (-75, 126, -72)},
        {"origin": (-90, 126, -69)},
        {"direction": OBLIQUE, "origin": (-80, 120, -70)},
        {"spacing": (1, 1.5, 4)},
    ],
)
def test_another_geometry_is_refused_without_an_offer(tmp_path, header):
    scan, mask = pair(tmp_path, **header)
    with pytest.raises(InputError, match="does not lie on") as error:
        match(scan, mask)
    assert "ignore" not in str(error.value)


def test_half_a_voxel_off_is_refused(tmp_path):
    scan, mask = pair(tmp_path, origin=(-89.5, 126, -72))
    with pytest.raises(InputError, match=r"corners up to 0.5 mm"):
        match(scan, mask)


def test_a_part_of_the_scan_is_refused(tmp_path):
    scan, mask = pair(tmp_path, mask=lesion()[:-1])
    with pytest.raises(InputError, match="the shape 20 x 16 x 11 instead of 20 x 16 x 12"):
        match(scan, mask)


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("edge", ["outer edge", "first centre"])
def test_another_resolution_is_resampled_and_said(tmp_path, direction, edge):
    scan, mask = pair(tmp_path, axes=direction)
    fine = np.repeat(lesion(), 3, axis=0)
    spacing = np.array([1.0, 1.5, 1.0])
    start = np.zeros(3) if edge == "first centre" else np.array([0, 0, -1.0])
    origin = np.array(ORIGIN) + np.asarray(direction) @ start
    if edge == "first centre":
        fine = np.roll(fine, -1, axis=0)
    write(mask, fine, direction, spacing, origin)
    array, note = match(scan, mask)
    write(tmp_path / "same.nii.gz", lesion(), direction)
    assert np.array_equal(array, match(scan, tmp_path / "same.nii.gz")[0])
    assert "nearest neighbour" in note
    assert "p_lesion.nii.gz has 1 x 1.5 x 1 mm, its scan 1 x 1.5 x 3 mm" in note


def test_a_coarser_mask_gives_each_voxel_its_nearest(tmp_path):
    coarse = np.zeros((6, 8, 10), np.uint8)
    coarse[1, 2, 3] = 1
    scan = write(tmp_path / "s.nii.gz", voxels(), np.eye(3))
    origin = np.array(ORIGIN) + np.array(SPACING) / 2
    mask = write(tmp_path / "m.nii.gz", coarse, np.eye(3), 2 * np.array(SPACING), origin)
    array, note = match(scan, mask)
    assert note
    assert np.argwhere(array).min(axis=0).tolist() == [2, 4, 6]
    assert np.argwhere(array).max(axis=0).tolist() == [3, 5, 7]
    assert array.sum() == 8


def test_another_box_at_another_resolution_is_refused(tmp_path):
    scan = write(tmp_path / "s.nii.gz", voxels())
    mask = write(tmp_path / "m.nii.gz", np.repeat(lesion(), 3, axis=0),
                 spacing=(1, 1.5, 1), origin=(-80, 126, -73))  # fmt: skip
    with pytest.raises(InputError, match="does not lie on"):
        match(scan, mask)


def test_pictures_are_compared_by_size(tmp_path):
    for name, size in (("s", (20, 30)), ("m", (20, 30)), ("n", (30, 20))):
        values = np.random.default_rng(0).integers(0, 2, size).astype(np.uint8) * 255
        sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / f"{name}.png"))
    array, note = match(tmp_path / "s.png", tmp_path / "m.png")
    assert (array.shape, note) == ((1, 20, 30), "")
    with pytest.raises(InputError, match="the scan's shape 30 x 20 x 1, got 20 x 30 x 1"):
        match(tmp_path / "s.png", tmp_path / "n.png")


def test_a_picture_as_mask_of_a_turned_scan_is_refused(tmp_path):
    scan = write(tmp_path / "s.nii.gz", voxels()[:1])
    values = lesion()[2] * np.uint8(255)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "m.png"))
    with pytest.raises(InputError, match=r"no geometry in m.png.*--mask-geometry ignore"):
        match(scan, tmp_path / "m.png")
    expected = np.flip(values > 0, axis=(0, 1))
    assert np.array_equal(match(scan, tmp_path / "m.png", "ignore")[0][0] > 0, expected)


def test_a_scan_given_as_mask_is_refused(tmp_path):
    scan, mask = pair(tmp_path, mask=voxels(1))
    case = Case(scan, mask)
    with pytest.raises(InputError, match="holds grey values, but labels are expected"):
        case.read_mask(case.read())


def test_only_check_and_ignore_are_known(tmp_path):
    with pytest.raises(InputError, match="expected check or ignore, got 'off'"):
        Case(tmp_path / "a.nii", mask_geometry="off")


@pytest.fixture
def ill_head(tmp_path, ill):
    """A head with lesions on a file's own axes, its mask, and the mask without geometry."""
    array, mask = ill.volume.array[::-1, ::-1], ill.lesion[::-1, ::-1].astype(np.uint8)
    spacing, turned = ill.volume.spacing_mm[::-1], np.diag([1.0, -1.0, -1.0])
    write(tmp_path / "p_flair.nii.gz", np.ascontiguousarray(array), turned, spacing)
    write(tmp_path / "p_lesion.nii.gz", np.ascontiguousarray(mask), turned, spacing)
    write(tmp_path / "p_lost.nii.gz", np.ascontiguousarray(mask), np.eye(3), spacing, (0, 0, 0))
    write(tmp_path / "p_fine.nii.gz", np.repeat(mask, 2, axis=0), turned,
          (*spacing[:2], spacing[2] / 2),
          np.array(ORIGIN) + turned @ [0, 0, -spacing[2] / 4])  # fmt: skip
    return tmp_path


def test_evaluate_refuses_resamples_and_ignores(ill_head, model):
    def metrics(mask, geometry="check"):
        cases = find_cases([ill_head], "*_flair.nii.gz", mask, mask_geometry=geometry)
        notes = []
        found = drain(evaluate(cases, model), lambda step: notes.append(step.note))
        return found.metrics["conventions"]["tissue"], [note for note in notes if "nearest" in note]

    expected, notes = metrics("*_lesion.nii.gz")
    assert not notes
    with pytest.raises(InputError, match="--mask-geometry ignore"):
        metrics("*_lost.nii.gz")
    assert metrics("*_lost.nii.gz", "ignore") == (expected, [])
    resampled, notes = metrics("*_fine.nii.gz")
    assert resampled == expected
    assert len(notes) == 1


def test_fit_leaves_out_the_slices_of_a_resampled_mask(ill_head, healthy):
    settings = {"components": 20, "epochs": 1, "max_patches": 4000}

    def fitted(name, geometry="check"):
        notes = []
        case = Case(ill_head / "p_flair.nii.gz", ill_head / name, mask_geometry=geometry)
        pipeline = fit([case, case], valid=[Case(healthy[0].volume)], settings=settings)
        model = drain(pipeline, lambda step: notes.append(step.note))
        return model.cohort["slices"], [note for note in notes if "nearest" in note]

    slices, notes = fitted("p_lesion.nii.gz")
    assert not notes
    assert fitted("p_lost.nii.gz", "ignore") == (slices, [])
    same, notes = fitted("p_fine.nii.gz")
    assert same == slices
    # Two masks were resampled; it is said once.
    assert len(notes) == 1
    with pytest.raises(InputError, match=r"p_lost.nii.gz does not lie on p_flair.nii.gz"):
        fitted("p_lost.nii.gz")


def test_the_command_line_refuses_and_takes_the_option(ill_head, model, tmp_path):
    save_model(model, tmp_path / "m.safetensors")

    def run(*more):
        arguments = ["evaluate", ill_head, "--pattern", "*_flair.nii.gz", "--mask-pattern",
                     "*_lost.nii.gz", "-m", tmp_path / "m.safetensors", "-o", tmp_path / "e",
                     *more]  # fmt: skip
        return CliRunner().invoke(app, [str(one) for one in arguments])

    result = run()
    assert result.exit_code == 2
    assert "Error: p_lost.nii.gz does not lie on p_flair.nii.gz" in result.stderr
    assert run("--mask-geometry", "ignore").exit_code == 0
    result = run("--mask-geometry", "never")
    assert result.exit_code == 2
    assert "expected check or ignore, got 'never'" in result.stderr


def test_a_real_mask_that_lost_its_geometry_is_refused(tmp_path):
    folder = real_scan("ms")
    scan, mask = folder / "patient19_flair.nii.gz", folder / "patient19_lesion.nii.gz"
    expected, note = match(scan, mask)
    assert (note, int((expected > 0).sum())) == ("", 49_769)
    image = sitk.ReadImage(str(mask))
    lost = sitk.GetImageFromArray(sitk.GetArrayFromImage(image))
    lost.SetSpacing(image.GetSpacing())
    sitk.WriteImage(lost, str(tmp_path / "lost.nii.gz"))
    with pytest.raises(InputError, match=r"the origin \(0, 0, 0\) mm instead of \(-90, 126, -72\)"):
        match(scan, tmp_path / "lost.nii.gz")
    assert np.array_equal(match(scan, tmp_path / "lost.nii.gz", "ignore")[0], expected)
