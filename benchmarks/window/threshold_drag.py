"""How fast the window follows the threshold: the slice on screen, and the rest after a pause.

    xvfb-run -a -s "-screen 0 1920x1080x24" python benchmarks/window/threshold_drag.py MODEL SCAN \
        [--shape 400 512 512]

The scan is resampled to the shape, detected on in a real window, and the slider goes over its whole
scale three times. Printed are the time from a movement to the picture drawn, beside that of a
redraw of napari alone with the same layers, and the time until the findings and their table follow
at rest, including the pause that the slider waits for. The last line is the ratio of the two
redraws.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

_PASSES, _STEPS = 3, 40
_LONG_S = 600.0


def resampled(scan: Path, shape: tuple[int, int, int] | None) -> Any:
    """Read a scan, resampled linearly to a shape (S, P, L)."""
    import SimpleITK as sitk

    from napari_dino_uad import read_volume

    volume = read_volume(scan)
    if shape is None or volume.shape == shape:
        return volume.array, volume.spacing_mm
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm[::-1])
    spacing = [
        step * old / new
        for step, old, new in zip(volume.spacing_mm, volume.shape, shape, strict=True)
    ]
    out = sitk.Resample(
        image, shape[::-1], sitk.Transform(), sitk.sitkLinear,
        image.GetOrigin(), spacing[::-1], image.GetDirection(),
    )  # fmt: skip
    return sitk.GetArrayFromImage(out), tuple(spacing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=None)
    parser.add_argument("--screenshot", type=Path, default=None)
    given = parser.parse_args()

    import napari
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    from napari_dino_uad.widgets.commands import open_dock
    from napari_dino_uad.widgets.results import results_of

    array, spacing = resampled(given.scan, tuple(given.shape) if given.shape else None)
    viewer = napari.Viewer()
    viewer.window.resize(1900, 1040)
    layer = viewer.add_image(array, scale=spacing, name="scan")
    layer.reset_contrast_limits()
    results: Any = results_of(viewer)
    dock = open_dock(viewer, "Detect")
    findings = open_dock(viewer, "Findings")
    open_dock(viewer, "Detect")

    def wait(condition: Any, what: str) -> None:
        end = time.monotonic() + _LONG_S
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"waited in vain for {what}")
            QTest.qWait(2)

    dock.load_model(given.model)
    wait(lambda: dock.choice.model is not None and not dock.loading.running, "the model")
    dock.detect()
    wait(lambda: results.shown is not None and results.shown.current, "the map")
    shown = results.shown
    if shown.held:
        shown.trust()
    QTest.qWait(1500)

    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    drawn = [0]
    canvas.events.draw.connect(lambda event: drawn.__setitem__(0, drawn[0] + 1), position="last")

    def until_drawn(act: Any) -> float:
        QApplication.processEvents()
        seen, started = drawn[0], time.perf_counter()
        act()
        while drawn[0] == seen and time.perf_counter() - started < 2:
            QApplication.processEvents()
        return 1000 * (time.perf_counter() - started)

    slider = dock.threshold.slider
    places = np.linspace(slider.minimum(), slider.maximum(), _STEPS).astype(int).tolist()
    moved, alone = [], []
    for number in range(_PASSES):
        for place in places if number % 2 else places[::-1]:
            if place != slider.value():
                moved.append(until_drawn(lambda place=place: slider.setValue(place)))
                alone.append(until_drawn(canvas.update))

    def rest(place: int) -> float:
        slider.setValue(place)
        started = time.perf_counter()
        wait(lambda: shown.current, "the findings")
        QApplication.processEvents()
        return 1000 * (time.perf_counter() - started)

    rests = [rest(slider.minimum() + int(part * (slider.maximum() - slider.minimum())))
             for part in (0.2, 0.5, 0.35, 0.6, 0.45)]  # fmt: skip
    print(f"{' x '.join(map(str, array.shape))}, {len(moved)} movements")
    print(f"  drawn: median {np.median(moved):.1f} ms, 90th percentile "
          f"{np.percentile(moved, 90):.1f} ms")  # fmt: skip
    print(f"  redraw alone: median {np.median(alone):.1f} ms, 90th percentile "
          f"{np.percentile(alone, 90):.1f} ms")  # fmt: skip
    print(f"  at rest: median {np.median(rests):.0f} ms, worst {max(rests):.0f} ms; "
          f"{len(shown.findings)} findings, {len(findings.table.rows)} rows")  # fmt: skip
    if given.screenshot:
        viewer.window.screenshot(str(given.screenshot), canvas_only=False)
    print(f"ratio: {np.percentile(moved, 90) / np.percentile(alone, 90):.2f}")
    viewer.close()


if __name__ == "__main__":
    main()
