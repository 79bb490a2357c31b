"""The demo: fit on synthetic healthy heads, and find the lesions in another head in napari."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.phantom import Phantom
    from napari_dino_uad.widgets.detect import DetectWidget

__all__ = ["fit_phantoms", "open_window", "run"]

_HEALTHY = 10
# Seed far from those of the cohort, so that the model has not seen the head with lesions.
_ILL_SEED = 1004
_LESIONS = 3
# Enough for ten heads, and fast.
_COMPONENTS = 150
_EPOCHS = 6
_WAIT_S = 300


def fit_phantoms() -> Generator[Progress, None, tuple[FittedModel, Phantom]]:
    """Create a synthetic cohort, fit a model on it, and create a head with lesions.

    Yields
    ------
    Progress
        After every head and every batch.

    Returns
    -------
    tuple of (FittedModel, Phantom)
    """
    from napari_dino_uad.core.backbones.backbone import load_backbone
    from napari_dino_uad.core.fit import fit
    from napari_dino_uad.core.scans.cohort import Case
    from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE, make_phantom

    cases = []
    for number in range(_HEALTHY):
        yield Progress("Making synthetic heads", number, _HEALTHY + 1)
        cases.append(Case(make_phantom(number).volume))
    yield Progress("Making synthetic heads", _HEALTHY, _HEALTHY + 1)
    ill = make_phantom(_ILL_SEED, lesions=_LESIONS)
    settings = {"components": _COMPONENTS, "epochs": _EPOCHS}
    backbone = load_backbone(PHANTOM_BACKBONE)
    model = yield from fit(cases, method="dpmm", settings=settings, backbone=backbone)
    return model, ill


def open_window(model: FittedModel, ill: Phantom) -> tuple[Viewer, DetectWidget]:
    """Open napari on a head with lesions, with the Detect widget running on it."""
    import napari
    from napari.layers import Layer
    from qtpy.QtCore import QTimer

    from napari_dino_uad.layer_data import volume_layer
    from napari_dino_uad.widgets.commands import open_dock
    from napari_dino_uad.widgets.detect import DetectWidget
    from napari_dino_uad.widgets.session import session

    viewer = napari.Viewer(title="napari-dino-uad demo")
    viewer.add_layer(Layer.create(*volume_layer(ill.volume)))
    viewer.dims.set_point(0, _middle_of_lesions(ill))
    widget = open_dock(viewer, "Detect")
    assert isinstance(widget, DetectWidget)
    session().add_model("healthy phantoms", model)
    QTimer.singleShot(0, widget.detect)
    return viewer, widget


def _middle_of_lesions(ill: Phantom) -> float:
    """Return the position in mm of the slice with the largest lesion area."""
    index = int(ill.lesion.sum(axis=(1, 2)).argmax())
    return ill.volume.origin_mm[0] + index * ill.volume.spacing_mm[0]


def run(
    screenshot: Path | None = None, on_progress: Callable[[Progress], None] | None = None
) -> None:
    """Run the demo.

    Parameters
    ----------
    screenshot : Path, optional
        Save a screenshot of the window to this file once the map is done, then close.
    on_progress : callable, optional
        Called with every `Progress` while creating the cohort and fitting.

    Raises
    ------
    InputError
        If nilearn or a Qt binding is not installed, or no window can be opened.
    """
    from napari_dino_uad.core.progress import drain

    _check_window()
    model, ill = drain(fit_phantoms(), on_progress)

    import napari

    viewer, widget = open_window(model, ill)
    if screenshot is None:
        napari.run()
        return
    from qtpy.QtCore import QEventLoop, QTimer

    failed: list[str] = []
    # A loop of its own: Qt 6 closes all windows when the application quits.
    loop = QEventLoop()

    def take() -> None:
        viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
        loop.quit()

    def fail(reason: str) -> None:
        failed.append(reason)
        loop.quit()

    # Wait a moment until the canvas has drawn the result.
    widget.findings_job.succeeded.connect(lambda _: QTimer.singleShot(500, take))
    widget.job.failed.connect(fail)
    widget.findings_job.failed.connect(fail)
    QTimer.singleShot(_WAIT_S * 1000, lambda: fail(f"no map after {_WAIT_S} seconds"))
    viewer.window.resize(1300, 860)
    loop.exec()
    viewer.close()
    if failed:
        raise InputError(f"The demo did not finish: {failed[0]}")


def _check_window() -> None:
    """Check that a window can be opened, before minutes are spent on the fit."""
    import os
    import sys

    try:
        import napari  # noqa: F401
        import qtpy  # noqa: F401
    except ImportError as error:
        raise InputError(
            "The demo opens a window, but napari or a Qt binding is not installed; install both "
            "with: pip install 'napari-dino-uad[pyqt6,demo]'."
        ) from error
    headless = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and headless:
        raise InputError(
            "Expected a display to open a window on, got none; run it under Xvfb: xvfb-run -a "
            "napari-dino-uad demo --screenshot demo.png."
        )
