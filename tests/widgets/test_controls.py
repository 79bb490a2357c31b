"""The threshold, the settings form and the colormap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.widgets.layers import cut_colormap
from napari_dino_uad.widgets.plots import still_plot
from napari_dino_uad.widgets.settings_form import SettingsForm
from napari_dino_uad.widgets.threshold import ThresholdControl, format_rate, score_histogram


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
    control._line.setValue(calibration.threshold(0.002))
    assert control.rate == pytest.approx(0.002, rel=0.05)


def test_histogram_counts_every_score():
    edges = np.linspace(0, 1, 11)
    shares = score_histogram(np.array([-5, 0.05, 0.95, 7], dtype=np.float32), edges)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5)
    assert shares[-1] == pytest.approx(0.5)


def test_threshold_moves_transparency_only():
    low = cut_colormap((0.0, 1.0), 0.2, "autumn").colors
    high = cut_colormap((0.0, 1.0), 0.6, "autumn").colors
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
