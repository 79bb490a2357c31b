"""The threshold, the settings form and the colormap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from qtpy.QtWidgets import QPushButton

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.controls import RunControl, allow, short_paths
from napari_dino_uad.widgets.layers import cut_colormap
from napari_dino_uad.widgets.plots import paint_plot, still_plot, theme_colours
from napari_dino_uad.widgets.settings_form import SettingsForm
from napari_dino_uad.widgets.threshold import ThresholdControl, format_rate, score_histogram
from napari_dino_uad.widgets.workers import Job


@pytest.fixture
def calibration():
    return Calibration.from_scans([np.random.default_rng(0).gamma(2, 0.1, 200_000)])


@pytest.mark.parametrize(
    ("rate", "text"), [(0.1, "10 %"), (0.05, "5.0 %"), (0.01, "1.0 %"), (0.00123, "0.12 %")]
)
def test_rates_are_written_in_percent(rate, text):
    assert format_rate(rate) == text


def test_threshold_is_the_calibrated_score_of_its_rate(qtbot, calibration):
    control = ThresholdControl()
    qtbot.addWidget(control)
    assert not control.isEnabled()
    control.set_calibration(calibration)
    assert control.isEnabled()
    control.rate = 0.05
    assert control.rate == pytest.approx(0.05, rel=0.02)
    assert control.threshold == pytest.approx(calibration.threshold(0.05), rel=0.01)
    control.rate = 1e-9
    assert control.rate == pytest.approx(1e-4)


def test_dragging_and_resting_are_told_apart(qtbot, calibration):
    control = ThresholdControl()
    qtbot.addWidget(control)
    control.set_calibration(calibration)
    dragged, rested = [], []
    control.dragged.connect(dragged.append)
    control.rested.connect(rested.append)
    for step in (110, 120, 130):
        control.slider.setValue(step)
    assert len(dragged) == 3
    assert rested == []
    qtbot.waitUntil(lambda: len(rested) == 1, timeout=2000)
    assert rested[0] == dragged[-1]


def test_line_in_the_histogram_moves_the_slider(qtbot, calibration):
    control = ThresholdControl()
    qtbot.addWidget(control)
    control.set_calibration(calibration)
    qtbot.waitUntil(lambda: control.ready, timeout=20_000)
    control._line.setValue(calibration.threshold(0.002))
    assert control.rate == pytest.approx(0.002, rel=0.05)


def test_histogram_counts_every_score():
    edges = np.linspace(0, 1, 11)
    shares = score_histogram(np.array([-5, 0.05, 0.95, 7], dtype=np.float32), edges)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5)
    assert shares[-1] == pytest.approx(0.5)


def test_threshold_moves_transparency_only():
    low = cut_colormap((0.0, 1.0), 0.2, "inferno").colors
    high = cut_colormap((0.0, 1.0), 0.6, "inferno").colors
    np.testing.assert_array_equal(low[:, :3], high[:, :3])
    position = np.linspace(0, 1, 256)
    assert (low[position < 0.2, 3] == 0).all()
    assert (low[position > 0.2, 3] > 0.3).all()
    assert (high[position < 0.6, 3] == 0).all()
    assert low[-1, 3] < 1, "the anatomy must stay visible"


@dataclass(frozen=True)
class _Settings:
    """Settings.

    Attributes
    ----------
    kind : {"a", "b"}
        What kind it is.
    count : int
        How many there are,
        in all.
    share : float
        A share.
    limit : float or None
        At most this.
    on : bool
        Whether.
    """

    kind: Literal["a", "b"] = "a"
    count: int = 3
    share: float = 0.05
    limit: float | None = None
    on: bool = False


def test_settings_form_follows_the_dataclass(qtbot):
    form = SettingsForm(_Settings(), hidden=("on",))
    qtbot.addWidget(form)
    assert list(form.controls) == ["kind", "count", "share", "limit"]
    assert form.controls["count"].native.toolTip() == "How many there are, in all."
    assert form.changed() == {}
    form.controls["kind"].value = "b"
    form.controls["share"].value = 0.2
    form.controls["limit"].value = "7"
    assert form.changed() == {"kind": "b", "share": pytest.approx(0.2), "limit": 7.0}
    form.controls["limit"].value = "many"
    with pytest.raises(InputError, match="Limit takes a number"):
        form.changed()


def test_plots_take_the_colour_of_a_new_theme(qtbot):
    plot = still_plot(80)
    qtbot.addWidget(plot)
    for colour in ("#000000", "#ffffff"):
        plot.setStyleSheet(f"QWidget {{ background-color: {colour}; }}")
        with qtbot.waitExposed(plot):
            plot.show()
        qtbot.wait(50)
        assert plot.grab().toImage().pixelColor(2, 2).name() == colour


@pytest.mark.parametrize("width", [220, 300, 350])
def test_marks_of_the_slider_keep_apart(qtbot, width):
    control = ThresholdControl()
    qtbot.addWidget(control)
    control.resize(width, 200)
    control.show()
    qtbot.wait(50)
    places = control.marks.places()
    assert {"10 %", "1", "0.1", "0.01 %"} <= {text for text, _, _ in places}
    edges = sorted((left, left + wide) for _, left, wide in places)
    assert all(end < start for (_, end), (start, _) in pairwise(edges))


def test_heat_stands_out_from_white_and_black():
    for name in ("inferno", "plasma", "magma", "viridis"):
        table = cut_colormap((0.0, 1.0), 0.1, name).colors[30:]
        shown, alpha = table[:, :3], table[:, 3:]
        weights = np.array([0.2126, 0.7152, 0.0722])
        for back in (0.0, 1.0):
            mixed = alpha * shown + (1 - alpha) * back
            # By brightness or by colour.
            far = np.abs(mixed @ weights - back)
            colourful = np.ptp(mixed, axis=1)
            assert (np.maximum(far, colourful) > 0.2).all(), (name, back)


def test_paths_in_messages_are_short():
    text = "Cannot write to /home/ann/studies/2026/cohort/results: the disk is full."
    assert short_paths(text) == "Cannot write to …/cohort/results: the disk is full."
    assert short_paths("1/2 of a/b") == "1/2 of a/b"


def test_a_success_removes_an_error(qtbot):
    job = Job()
    run = RunControl(job, "Go", "Go.", "Stop.")
    qtbot.addWidget(run)
    other = Job()
    run.watch(other)
    run.complain("The disk is full.")
    assert run.complaining
    with qtbot.waitSignal(other.stopped, timeout=20_000):
        other.start(quick)
    assert not run.complaining
    assert run.text == ""


def quick():
    yield Progress("Working", 0, 1)


def test_plots_follow_the_theme(qtbot):
    plot = still_plot(80)
    qtbot.addWidget(plot)
    for theme in ("dark", "light"):
        background, text = theme_colours(theme)
        paint_plot(plot, background, text)
        assert plot.backgroundBrush().color().name() == background[:7]
        assert plot.getAxis("bottom").pen().color().name() == text[:7]


def test_what_cannot_be_used_says_why(qtbot):
    button = QPushButton("Go")
    qtbot.addWidget(button)
    button.setToolTip("Goes on.")
    allow(button, "Open a scan first.")
    assert not button.isEnabled() and button.toolTip() == "Open a scan first."
    allow(button, "")
    assert button.isEnabled() and button.toolTip() == "Goes on."


@pytest.mark.parametrize("name", ["Detect", "Findings", "Inspect", "View", "Fit", "Failures"])
def test_every_disabled_button_of_an_empty_window_says_why(make_napari_viewer, name):
    viewer = make_napari_viewer()
    widget = open_dock(viewer, name)
    disabled = [one for one in widget.findChildren(QPushButton) if not one.isEnabled()]
    reasons = ("first", "press Detect", "No ", "Nothing", "This backbone", "recommends no")
    for button in disabled:
        assert any(one in button.toolTip() for one in reasons), (button.text(), button.toolTip())
    widget.release()
