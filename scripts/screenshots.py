"""Screenshots for the README and the docs: `make screenshots`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from napari_dino_uad import Case, drain, evaluate, write_volume
from napari_dino_uad.core.model import FittedModel
from napari_dino_uad.core.scans.phantom import make_phantom
from napari_dino_uad.demo import fit_phantoms, open_window
from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.fit import FitWidget

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (1300, 860)
PATIENCE_S = 300


def wait_for(condition: Callable[[], bool]) -> None:
    """Run the event loop until a condition is true and the window has been redrawn."""
    for _ in range(PATIENCE_S * 20):
        if condition():
            break
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
        rest(50)
    else:
        raise TimeoutError(f"the condition was not met in {PATIENCE_S} s")
    rest(800)


def rest(milliseconds: int) -> None:
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def take(viewer: napari.Viewer, name: str) -> None:
    # Close napari's own notifications.
    for notice in viewer.window._qt_window.findChildren(
        napari._qt.dialogs.qt_notification.NapariQtNotification
    ):
        notice.close()
    rest(300)
    viewer.screenshot(str(IMAGES / name), canvas_only=False, flash=False)
    print(IMAGES / name)


def failures(model: FittedModel) -> None:
    """Show a lesion that was missed in one of three heads."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "three heads"
        cases = []
        for number, lesions in enumerate((4, 3, 0)):
            head = make_phantom(2000 + number, lesions=lesions)
            scan, mask = (Path(temporary) / f"head{number}_{kind}.nii.gz" for kind in "sm")
            write_volume(scan, head.volume.array, head.volume)
            write_volume(mask, head.lesion.astype("uint8"), head.volume)
            cases.append(Case(scan, mask))
        drain(evaluate(cases, model, out=folder))
        viewer = napari.Viewer(title="napari")
        viewer.window.resize(*SIZE)
        dock = open_dock(viewer, "Failures")
        dock.open(folder)
        wait_for(lambda: dock.folder is not None and not dock.job.running)
        while "missed" not in dock.where.text():
            dock.step(1)
            wait_for(lambda: dock.shown is not None and not dock.job.running)
        take(viewer, "failures.png")
        viewer.close()


def detect_and_fit() -> None:
    model, ill = drain(fit_phantoms(), lambda progress: None)
    failures(model)
    viewer, widget = open_window(model, ill)
    viewer.window.resize(*SIZE)
    wait_for(lambda: widget.detection is not None and not widget.findings_job.running)
    take(viewer, "detect.png")
    viewer.close()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "healthy"
        folder.mkdir()
        for seed in range(6):
            head = make_phantom(seed)
            write_volume(folder / f"head{seed}_flair.nii.gz", head.volume.array, head.volume)
        viewer = napari.Viewer(title="napari")
        viewer.window.resize(*SIZE)
        viewer.open_sample("napari-dino-uad", "healthy_phantom")
        viewer.dims.set_point(0, 10.0)
        fit = open_dock(viewer, "Fit")
        assert isinstance(fit, FitWidget)
        wait_for(lambda: fit.advanced.form is not None)
        fit.add([folder])
        wait_for(lambda: len(fit.cases) > 0)
        fit.advanced.form.controls["components"].value = 150
        fit.advanced.form.controls["epochs"].value = 6
        fit.fit()
        wait_for(lambda: fit.fitted is not None)
        take(viewer, "fit.png")
        viewer.close()


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    detect_and_fit()
