"""Jobs: cancelling, stale answers, errors that reach the user."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest
from qtpy.QtCore import QObject, QThreadPool

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.workers import Job, describe_error


@pytest.fixture
def job(qtbot):
    made = Job()
    yield made
    made.cancel()


def _steps(count, seconds=0.01, result="done"):
    def pipeline():
        for step in range(count):
            time.sleep(seconds)
            yield Progress("Working", step, count)
        return result

    return pipeline


def test_progress_and_result_arrive(qtbot, job):
    seen = []
    job.progressed.connect(seen.append)
    with qtbot.waitSignal(job.succeeded, timeout=20_000) as answer:
        job.start(_steps(5))
    assert answer.args == ["done"]
    assert [progress.done for progress in seen] == [0, 1, 2, 3, 4]
    assert not job.running


class _Scan:
    """Stands for what a pipeline holds."""


@pytest.mark.parametrize("end", ["at its end", "cancelled", "cancelled before it began"])
def test_what_a_pipeline_held_is_freed(qtbot, job, make_napari_viewer, end):
    # napari lists the workers of its current viewer, and keeps them.
    viewer = make_napari_viewer()
    assert viewer is not None
    scan = _Scan()
    freed = weakref.ref(scan)

    def pipeline(scan=scan):
        for step in range(5 if end == "at its end" else 10_000):
            time.sleep(0.01)
            yield Progress("Working", step, 5, result=scan)
        return "done"

    if end == "cancelled before it began":
        job.start(pipeline)
        job.cancel()
    elif end == "cancelled":
        with qtbot.waitSignal(job.progressed, timeout=20_000):
            job.start(pipeline)
        job.cancel()
    else:
        with qtbot.waitSignal(job.succeeded, timeout=20_000):
            job.start(pipeline)
    del pipeline, scan

    def gone():
        gc.collect()
        return freed() is None

    qtbot.waitUntil(gone, timeout=10_000)


def test_cancel_frees_the_widget_and_stops_the_thread(qtbot, job):
    with qtbot.waitSignal(job.progressed, timeout=20_000):
        job.start(_steps(10_000))
    worker = job._worker
    finished = []
    worker.finished.connect(lambda: finished.append(time.perf_counter()))
    answers = []
    job.succeeded.connect(answers.append)
    pressed = time.perf_counter()
    assert job.cancel()
    assert not job.running
    qtbot.waitUntil(lambda: bool(finished), timeout=5000)
    assert finished[0] - pressed < 1.0
    assert answers == []
    assert not job.cancel()


def test_cancel_closes_the_pipeline_in_its_own_thread(qtbot, job):
    threads = []

    def pipeline():
        try:
            while True:
                time.sleep(0.01)
                yield Progress("a", 0, 1)
        finally:
            threads.append(threading.current_thread())

    with qtbot.waitSignal(job.progressed, timeout=5000):
        job.start(pipeline)
    job.cancel()
    qtbot.waitUntil(lambda: len(threads) == 1, timeout=5000)
    assert threads[0] is not threading.main_thread()


def test_answer_of_a_superseded_run_is_dropped(qtbot, job):
    answers = []
    job.succeeded.connect(answers.append)
    job.start(_steps(3, 0.1, "old"))
    with qtbot.waitSignal(job.succeeded, timeout=20_000):
        job.start(_steps(3, 0.01, "new"))
    qtbot.wait(500)
    assert answers == ["new"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("Give at least two scans."), "Give at least two scans."),
        # torch raises RuntimeError for everything; the worker must not swallow it.
        (RuntimeError("mat1 and mat2 shapes"), "mat1 and mat2 shapes"),
        (KeyError("lost"), "KeyError"),
    ],
)
def test_errors_become_a_sentence(qtbot, job, error, text):
    def pipeline():
        yield Progress("Working", 0, 1)
        raise error

    with qtbot.waitSignal(job.failed, timeout=20_000) as answer:
        job.start(pipeline)
    assert text in answer.args[0]
    assert not job.running


def test_a_missing_redistributable_is_explained():
    error = OSError("DLL load failed")
    error.winerror = 1114
    assert "Redistributable" in describe_error(error)


def test_time_left_follows_the_pace_of_the_step(job, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert job.seconds_left(Progress("A", 0, 10)) is None
    now[0] += 4
    assert job.seconds_left(Progress("A", 2, 10)) == pytest.approx(16)
    # A new step starts its own clock.
    assert job.seconds_left(Progress("B", 5, 10)) is None
    now[0] += 1
    assert job.seconds_left(Progress("B", 6, 10)) == pytest.approx(4)


def test_what_comes_after_its_widget_is_gone_is_not_heard(qtbot):
    widget = QObject()
    job = Job(widget)
    with qtbot.waitSignal(job.progressed, timeout=20_000):
        job.start(_steps(30))
    with qtbot.waitSignal(widget.destroyed, timeout=20_000):
        widget.deleteLater()
    # Whatever it still sent would be raised here.
    qtbot.wait(500)


def test_torch_imported_first_does_not_crash():
    code = """
import torch
import napari
viewer = napari.Viewer(show=True)
viewer.screenshot(canvas_only=False)
from pathlib import Path
maps = Path("/proc/self/maps")
drawn_by_llvm = maps.exists() and "libLLVM" in maps.read_text()
from napari_dino_uad.widgets.workers import import_torch
import_torch()
import torchvision
print("alive", drawn_by_llvm)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    if "alive True" not in ran.stdout:
        pytest.skip("this window is not drawn through LLVM")


def test_jobs_leave_the_pool_that_qt_draws_in(qtbot):
    # napari hangs if Qt waits there, with Python's lock, for jobs that wait for the lock.
    jobs = [Job() for _ in range(3)]
    for job in jobs:
        with qtbot.waitSignal(job.progressed, timeout=20_000):
            job.start(_steps(10_000))
    assert QThreadPool.globalInstance().activeThreadCount() == 0
    for job in jobs:
        job.cancel()
    qtbot.waitUntil(lambda: not any(one.name == "pipeline" for one in threading.enumerate()))
