"""Files are written whole or not at all, by one process or several, on a full disk too."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.files.image_files import write_image
from napari_dino_uad.core.scans.files.nifti_forms import NiftiForms
from napari_dino_uad.core.storage import atomic
from napari_dino_uad.core.storage.atomic import staged, write_json, write_texts
from napari_dino_uad.core.storage.records import (
    are_as_recorded,
    read_sealed,
    record_files,
    write_sealed,
)
from napari_dino_uad.core.storage.temporary import sweep, temporary_folder

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"]


def image(seed: int = 0) -> sitk.Image:
    values = np.random.default_rng(seed).normal(size=(4, 20, 30)).astype(np.float32)
    return sitk.GetImageFromArray(values)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_many_writers_of_one_file(tmp_path):
    path, errors = tmp_path / "a.json", []

    def write(number: int) -> None:
        try:
            for _ in range(30):
                write_json(path, [number] * 2000)
        except Exception as error:  # noqa: BLE001  # counted below
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    values = json.loads(path.read_text())
    assert len(values) == 2000 and len(set(values)) == 1
    assert names(tmp_path) == ["a.json"]


def test_the_last_of_two_writers_wins_whole(tmp_path):
    with staged(tmp_path, last="c.json") as first:
        with staged(tmp_path, last="c.json") as second:
            for place, text in ((first, "1"), (second, "2")):
                for name in ("a.csv", "b.csv", "c.json"):
                    (place / name).write_text(text)
        assert {(tmp_path / name).read_text() for name in names(tmp_path) if name[0] != "."} == {
            "2"
        }
    assert [(tmp_path / name).read_text() for name in names(tmp_path)] == ["1", "1", "1"]


@pytest.mark.skipif(sys.platform == "win32", reason="asks the system which file is meant")
@pytest.mark.parametrize("kind", [*SUFFIXES, ".json", ".safetensors"])
def test_files_reach_the_disk_before_their_names(tmp_path, monkeypatch, kind):
    steps = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        steps.append(("fsync", os.path.realpath(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> Path:
        steps.append(("rename", str(source), str(target)))
        return replace(source, target)

    path = tmp_path / f"x{kind}"
    if kind == ".safetensors":
        model = tensor_writer()
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    if kind == ".json":
        write_json(path, {})
    elif kind == ".safetensors":
        model(path)
    else:
        write_image(path, image())
    renames = [step for step in steps if step[0] == "rename" and Path(step[2]).parent == tmp_path]
    assert {Path(step[2]).name for step in renames} == set(names(tmp_path))
    for step in renames:
        assert steps.index(("fsync", step[1])) < steps.index(step)
    assert steps[-1] == ("fsync", str(tmp_path))


def tensor_writer():
    """Return what writes tensors as `save_model` does, without a model."""
    from napari_dino_uad.core import model_file
    from napari_dino_uad.core.storage.atomic import writing
    from napari_dino_uad.core.storage.tensor_file import write_tensors

    assert model_file.write_tensors is write_tensors

    def write(path: Path) -> None:
        import torch

        with writing(path), staged(path.parent) as partial:
            write_tensors(partial / path.name, {"a": torch.zeros(3)}, {})

    return write


def test_a_model_may_be_read_by_whom_other_files_may(tmp_path):
    write_json(tmp_path / "a.json", {})
    tensor_writer()(tmp_path / "a.safetensors")
    modes = {path.suffix: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes[".safetensors"] == modes[".json"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_cut_off_by_a_full_disk(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"x{suffix}"
    write_image(path, image())
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    write = sitk.WriteImage

    def cut(one: sitk.Image, name: str, **options: bool) -> None:
        write(one, name, **options)
        if not name.endswith(".nii"):
            raise RuntimeError("file stream is fail after write")
        # Of this format the library says nothing.
        os.truncate(name, 3000)

    monkeypatch.setattr(sitk, "WriteImage", cut)
    with pytest.raises(InputError, match="cannot be written"):
        write_image(path, image(1))
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


@pytest.mark.parametrize("left", [0, 40, 3000])
def test_a_header_cut_off_by_a_full_disk(tmp_path, monkeypatch, left):
    forms = NiftiForms.of_geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3).ravel().tolist())
    write = sitk.WriteImage

    def cut(one: sitk.Image, name: str, **options: bool) -> None:
        write(one, name, **options)
        os.truncate(name, left)

    monkeypatch.setattr(sitk, "WriteImage", cut)
    with pytest.raises(InputError, match=r"x\.nii cannot be written"):
        write_image(tmp_path / "x.nii", image(), forms)
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.json cannot be written: .*; free some space"):
        write_json(path, 2)
    assert json.loads(path.read_text()) == 1
    assert names(tmp_path) == ["a.json"]


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(InputError, match=r"b\.csv is a folder, but a file goes there"):
        write_texts(tmp_path, {"a.json": "1", "b.csv": "2"})
    assert names(tmp_path) == ["b.csv"]


def test_both_files_of_an_mhd_belong_together(tmp_path):
    path = tmp_path / "x.mhd"
    for seed in range(2):
        write_image(path, image(seed))
    assert names(tmp_path) == ["x.mhd", "x.raw"]
    expected = sitk.GetArrayFromImage(image(1))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), expected)


def _hold(folder: str, ready) -> None:
    with temporary_folder(Path(folder)) as partial:
        (partial / "half").write_bytes(bytes(1000))
        ready.set()
        threading.Event().wait(60)


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60)
    (tmp_path / ".napari-dino-uad-thesis").mkdir()
    assert sweep(tmp_path) == 0
    assert len(names(tmp_path)) == 2
    process.kill()
    process.join()
    assert sweep(tmp_path) == 1
    assert names(tmp_path) == [".napari-dino-uad-thesis"]


def test_one_s_own_temporary_folder_is_not_swept(tmp_path):
    with temporary_folder(tmp_path) as partial:
        assert sweep(tmp_path) == 0
        assert partial.is_dir()
    assert names(tmp_path) == []


def test_sealed_json_that_was_changed_is_not_believed(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"a": (1, 2), "b": {3: None}})
    assert read_sealed(path) == {"a": [1, 2], "b": {"3": None}}
    content = path.read_text()
    for wrong in (
        content.replace("2", "3"), content[:-4], "", "null", "[]", "7", "{}", "[" * 100_000,
        '{"a": NaN}', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ):  # fmt: skip
        path.write_text(wrong, encoding="utf-8")
        assert read_sealed(path) is None
    path.unlink()
    path.mkdir()
    assert read_sealed(path) is None


def test_a_recorded_file_is_told_from_a_changed_one(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    records = record_files([path])
    assert are_as_recorded(tmp_path, records, ["a.bin"])
    # A copy has another time and the same content.
    os.utime(path, (1, 1))
    assert are_as_recorded(tmp_path, records, ["a.bin"])
    for wrong in (None, [], {"a.bin": 5}, {"a.bin": {"bytes": "100"}}, {}):
        assert not are_as_recorded(tmp_path, wrong, ["a.bin"])
    path.write_bytes(bytes(99) + b"1")
    assert not are_as_recorded(tmp_path, records, ["a.bin"])
    path.write_bytes(b"")
    assert not are_as_recorded(tmp_path, records, ["a.bin"])


def test_a_disk_without_fsync_of_folders_will_do(tmp_path, monkeypatch):
    def no_fsync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(atomic.os, "fsync", no_fsync)
    write_json(tmp_path / "a.json", 1)
    assert names(tmp_path) == ["a.json"]
