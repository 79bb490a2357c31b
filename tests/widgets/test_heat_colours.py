"""The threshold on screen while it is dragged, and when it rests."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad.widgets.results import heat_colours
from napari_dino_uad.widgets.results.colour_bar import TITLE, drawn_bar
from napari_dino_uad.widgets.results.result_layers import ResultLayers

pytestmark = pytest.mark.window


@pytest.fixture
def shown(make_napari_viewer):
    """A ramp of scores on a scan, in a window, with a region of 20 x 20 pixels as a finding."""
    viewer = make_napari_viewer(show=True)
    scan = viewer.add_image(np.zeros((3, 64, 64), dtype=np.float32), name="scan")
    layers = ResultLayers(viewer, scan)
    scores = np.broadcast_to(np.linspace(0, 10, 64, dtype=np.float32), (3, 64, 64)).copy()
    labels = np.zeros((3, 64, 64), dtype=np.uint8)
    labels[:, 20:40, 20:40] = 1
    layers.show_heat(scores, (0.0, 10.0), 2.0, [(1.0, "10 %"), (9.0, "0.01 %")])
    layers.show_findings(labels)
    picture(viewer)
    return viewer, layers


def picture(viewer):
    return viewer.screenshot(canvas_only=True, flash=False).astype(int)


def test_a_brief_change_of_the_heat_looks_like_a_whole_one(shown):
    viewer, layers = shown
    before = picture(viewer)
    told = []
    layers.heat.events.colormap.connect(told.append)
    layers.cut(6.0, briefly=True)
    brief = picture(viewer)
    assert not told
    layers.settle()
    whole = picture(viewer)
    assert len(told) == 1
    assert (brief != before).any(axis=2).mean() > 0.02
    # The bar too, which stands at the right.
    assert (brief != before)[:, -brief.shape[1] // 8 :].any()
    np.testing.assert_array_equal(brief, whole)
    layers.settle()
    assert len(told) == 1


def test_another_napari_is_told_of_every_change(shown, monkeypatch):
    viewer, layers = shown
    monkeypatch.setattr(heat_colours, "_TABLE", "no such table")
    told = []
    layers.heat.events.colormap.connect(told.append)
    before = picture(viewer)
    layers.cut(6.0, briefly=True)
    assert len(told) == 1
    assert (picture(viewer) != before).any()


def test_labels_under_smooth_outlines_are_not_drawn(shown):
    viewer, layers = shown
    node = viewer.window._qt_viewer.canvas.layer_to_visual[layers.findings].node
    assert not node.visible
    layers.findings.opacity = 0.5
    assert not node.visible
    layers.findings.visible = False
    layers.findings.visible = True
    assert not node.visible
    layers.findings.mode = "paint"
    assert node.visible
    layers.findings.mode = "pan_zoom"
    assert not node.visible


def test_a_brief_change_of_findings_moves_their_outlines_alone(shown):
    viewer, layers = shown
    before = picture(viewer)
    redrawn = []
    layers.findings.events.set_data.connect(redrawn.append)
    layers.findings.data[:, 20:60, 20:60] = 1
    layers.redraw_findings(briefly=True)
    brief = picture(viewer)
    assert not redrawn
    assert (brief != before).any()
    layers.redraw_findings()
    np.testing.assert_array_equal(picture(viewer), brief)
    assert redrawn
    layers.findings.mode = "paint"
    layers.redraw_findings(briefly=True)
    assert len(redrawn) >= 2


def test_the_bar_says_what_its_labels_count(shown):
    viewer, layers = shown
    layers.place()
    bar = drawn_bar(viewer, layers.heat)
    (title,) = (child for child in bar.node.children if getattr(child, "text", "") == TITLE)
    # Beside the colours, within the box that napari draws behind all of it.
    left = bar.node.img.transform.translate[0]
    assert 0 < title.pos[0, 0] < left
    assert bar.x_size > left + bar.overlay.size[0] + bar.overlay.tick_length
    viewer.theme = "light"
    assert title.color.rgba.tolist() == bar.node.ticks.text_color.rgba.tolist()
