"""Inspect explains the map on screen, in a headless viewer and once by mouse in a window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dino_uad import Case, detect, drain, load_backbone
from napari_dino_uad.core.explain.pictures import collect_pictures
from napari_dino_uad.core.maps.finding_settings import FindingSettings
from napari_dino_uad.core.scans.phantom import PHANTOM_BACKBONE
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.inspect import InspectWidget
from napari_dino_uad.widgets.inspect.pictures import shade
from napari_dino_uad.widgets.layers import is_ours, is_scan_layer
from napari_dino_uad.widgets.results import results_of
from napari_dino_uad.widgets.results.detection import Detection
from napari_dino_uad.widgets.results.found import Detected
from napari_dino_uad.widgets.session import session

LONG_MS = 120_000


@pytest.fixture(scope="module")
def anomaly(model, ill):
    return drain(detect(ill.volume, model))


def add_scan(viewer, volume):
    data, keywords, _ = volume_layer(volume)
    return viewer.add_layer(Image(data, **keywords))


def finish(viewer, scan, anomaly, name="healthy heads"):
    """Put a finished detection on a scan, as Detect does."""
    results = results_of(viewer)
    detection = Detection(viewer, scan, name, anomaly.model, FindingSettings(0.01, 0.1, True))
    array = np.zeros(anomaly.volume.shape, np.float32)
    detection.begin(array, results.of(scan))
    results.keep(detection)
    detection.finish(Detected(anomaly, array, np.zeros(96), "", 1.0, False))
    results.updated.emit(detection)
    return detection


@pytest.fixture
def viewer(ill):
    viewer = ViewerModel()
    add_scan(viewer, ill.volume)
    return viewer


@pytest.fixture
def widget(qtbot, viewer):
    session().models.clear()
    widget = InspectWidget(viewer)
    qtbot.addWidget(widget)
    yield widget
    widget.release()


@pytest.fixture
def detection(qtbot, viewer, widget, anomaly):
    detection = finish(viewer, viewer.layers[0], anomaly)
    results_of(viewer).search.start()
    qtbot.waitUntil(lambda: detection.current, timeout=LONG_MS)
    return detection


def ask(qtbot, widget, voxel):
    widget.ask(tuple(int(value) for value in voxel))
    qtbot.waitUntil(lambda: not widget.job.running, timeout=LONG_MS)


def marked(detection):
    """Return the voxel of finding 1 with the highest score; those at its edge may be in air."""
    scores = np.where(detection.found.labels == 1, detection.anomaly.scores, -np.inf)
    return np.unravel_index(int(scores.argmax()), scores.shape)


def choose(qtbot, widget, kind):
    widget.overlay.value = kind
    qtbot.waitUntil(lambda: not widget.overlay_job.running, timeout=LONG_MS)


def test_without_a_map_it_says_what_to_do(widget, viewer, anomaly):
    assert "Press Detect first" in widget.status.text()
    assert not widget.worst.isEnabled() and widget.worst.toolTip() == widget.status.text()
    detection = Detection(
        viewer, viewer.layers[0], "mine", anomaly.model, FindingSettings(0.01, 0.1, True)
    )
    results_of(viewer).keep(detection)
    results_of(viewer).updated.emit(detection)
    assert "not finished" in widget.status.text()
    viewer.layers.clear()
    assert "Open a scan" in widget.status.text()


def test_the_highest_point_of_the_finding_is_explained(qtbot, widget, viewer, detection, anomaly):
    assert widget.worst.isEnabled()
    widget.worst.click()
    qtbot.waitUntil(lambda: widget.explained is not None, timeout=LONG_MS)
    voxel = widget.place.voxel
    inside = detection.found.labels == 1
    assert anomaly.scores[voxel] == anomaly.scores[inside].max()
    assert "Marked" in widget.panel.verdict.text()
    assert "healthy heads" in widget.panel.whose.text()
    rows = dict(widget.panel.parts.rows)
    assert rows["Score"] == pytest.approx(float(anomaly.scores[voxel]), abs=1e-4)
    assert sum(rows.values()) == pytest.approx(2 * rows["Score"], abs=1e-3)
    facts = widget.panel.facts.text()
    assert "Nearest kind of healthy tissue" in facts and "Other side" in facts


def test_the_place_of_the_crosshair_is_explained(qtbot, widget, viewer, detection):
    voxel = tuple(int(value) for value in np.argwhere(detection.found.labels == 1)[0])
    crosshair_of(viewer).move(detection.scan.data_to_world(voxel))
    assert widget.here.isEnabled()
    widget.here.click()
    assert widget.place.voxel == voxel
    widget.worst.click()
    assert crosshair_of(viewer).voxel(detection.scan) == widget.place.voxel != voxel


def test_the_verdict_follows_the_threshold(qtbot, widget, viewer, detection):
    widget.worst.click()
    qtbot.waitUntil(lambda: widget.explained is not None, timeout=LONG_MS)
    assert "<b>Marked" in widget.panel.verdict.text()
    voxel = np.argwhere(detection.found.labels == 1)
    low = voxel[detection.anomaly.scores[tuple(voxel.T)].argmin()]
    ask(qtbot, widget, low)
    assert "<b>Marked" in widget.panel.verdict.text()
    detection.choose(rate=1e-4)
    results_of(viewer).updated.emit(detection)
    assert "<b>Not marked" in widget.panel.verdict.text()


def test_a_second_place_in_a_slice_needs_no_job(qtbot, widget, detection, anomaly):
    index = int(anomaly.foreground.sum((1, 2)).argmax())
    first, second = np.argwhere(anomaly.foreground[index])[[500, 1500]]
    ask(qtbot, widget, (index, *first))
    text = widget.panel.whose.text()
    widget.ask((index, *(int(value) for value in second)))
    assert not widget.job.running
    assert widget.panel.whose.text() != text
    ring = detection.layers.explained["place"]
    np.testing.assert_array_equal(ring.data[0], (index, *second))


def test_a_map_that_waits_is_not_explained(qtbot, widget, viewer, detection):
    detection.warning = "another kind"
    results_of(viewer).updated.emit(detection)
    assert "another kind than the model knows" in widget.status.text()
    widget.ask(tuple(marked(detection)))
    assert widget.place is None
    detection.trust()
    results_of(viewer).updated.emit(detection)
    assert "Click a place" in widget.status.text()


def test_background_is_told_apart(qtbot, widget, detection):
    ask(qtbot, widget, (0, 0, 0))
    assert "background" in widget.status.text()
    assert widget.panel.isHidden()


def test_the_component_map_lies_on_the_scan(qtbot, widget, viewer, detection, anomaly):
    voxel = marked(detection)
    ask(qtbot, widget, voxel)
    choose(qtbot, widget, "component")
    layer = detection.layers.explained["overlay"]
    assert isinstance(layer, Labels) and layer.data.dtype == np.uint16
    assert is_ours(layer) and not is_scan_layer(layer)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("S", "P", "L")
    world = detection.scan.data_to_world(tuple(voxel))
    component = int(widget.explained.component[widget.place.patch])
    patch = tuple(round(float(value)) for value in layer.world_to_data(world))
    assert layer.data[patch] == component + 1
    picked, other = (layer.colormap.color_dict[one] for one in (component + 1, component + 2))
    assert picked[3] > 0.8 > 0.3 > other[3]
    assert "Here it is nearest to" in widget.panel.facts.text()
    order = [layer.name.split(":")[0] for layer in viewer.layers[1:]]
    assert order == ["anomaly", "kinds of tissue", "findings", "asked here"]


@pytest.mark.parametrize("kind", ["colours", "mirror"])
def test_every_overlay_hides_the_heat_and_gives_it_back(qtbot, widget, detection, kind):
    ask(qtbot, widget, marked(detection))
    choose(qtbot, widget, kind)
    assert not detection.layers.heat.visible
    assert detection.layers.explained["overlay"].rgb == (kind == "colours")
    choose(qtbot, widget, "nothing")
    assert detection.layers.heat.visible
    assert "overlay" not in detection.layers.explained


def test_one_overlay_takes_the_place_of_another(qtbot, widget, viewer, detection):
    widget.ask_highest()
    qtbot.waitUntil(lambda: not widget.job.running and bool(widget._slices), timeout=LONG_MS)
    kinds = [kind for kind in widget.overlay.choices if kind != "nothing"][:2]
    for kind in kinds:
        widget.overlay.value = kind
        qtbot.waitUntil(lambda: not widget.overlay_job.running, timeout=LONG_MS)
        assert widget.overlay.value == kind
        assert "overlay" in detection.layers.explained


def test_a_deleted_overlay_is_no_longer_chosen(qtbot, widget, viewer, detection):
    ask(qtbot, widget, marked(detection))
    choose(qtbot, widget, "colours")
    viewer.layers.remove(detection.layers.explained["overlay"])
    assert widget.overlay.value == "nothing"
    assert detection.layers.heat.visible


def test_layers_go_with_their_scan(qtbot, widget, viewer, detection):
    ask(qtbot, widget, marked(detection))
    choose(qtbot, widget, "component")
    viewer.layers.remove(detection.scan)
    qtbot.waitUntil(lambda: not viewer.layers, timeout=LONG_MS)
    assert widget.panel.isHidden() and "Open a scan" in widget.status.text()


def test_a_new_detection_drops_what_was_explained(qtbot, widget, viewer, detection, anomaly):
    ask(qtbot, widget, marked(detection))
    choose(qtbot, widget, "component")
    again = finish(viewer, detection.scan, anomaly, "another model")
    assert widget.place is None and widget.panel.isHidden()
    assert not again.layers.explained and len(viewer.layers) == 3
    ask(qtbot, widget, np.argwhere(anomaly.foreground)[90_000])
    assert "another model" in widget.panel.whose.text()


def test_another_scan_shows_nothing_of_the_first(qtbot, widget, viewer, detection, healthy):
    ask(qtbot, widget, marked(detection))
    add_scan(viewer, healthy[0].volume)
    assert widget.panel.isHidden() and "Press Detect first" in widget.status.text()
    assert not detection.layers.explained


def test_closing_the_dock_leaves_nothing_behind(qtbot, widget, viewer, detection):
    ask(qtbot, widget, marked(detection))
    choose(qtbot, widget, "colours")
    assert widget.pointer._on_press in viewer.mouse_drag_callbacks
    widget.release()
    assert widget.pointer._on_press not in viewer.mouse_drag_callbacks
    assert len(viewer.layers) == 3 and detection.layers.heat.visible
    widget.release()


def test_it_works_when_opened_after_the_detection(qtbot, viewer, anomaly):
    detection = finish(viewer, viewer.layers[0], anomaly)
    widget = InspectWidget(viewer)
    qtbot.addWidget(widget)
    assert "Click a place" in widget.status.text()
    ask(qtbot, widget, np.argwhere(anomaly.foreground)[90_000])
    assert not widget.panel.isHidden()
    assert detection.layers.explained
    widget.release()


def test_it_is_narrow(qtbot, widget, detection):
    ask(qtbot, widget, marked(detection))
    assert widget.minimumSizeHint().width() <= 380


def test_shades_run_from_black_to_bright():
    colours = shade(np.array([[0.0, 1.0, 2.0]]), 0.0, 1.0)
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[0, 1].tolist() == colours[0, 2].tolist() == [255, 255, 153]


def test_a_click_on_the_canvas_asks_and_a_drag_does_not(make_napari_viewer, qtbot, ill, anomaly):
    viewer = make_napari_viewer(show=True)
    scan = add_scan(viewer, ill.volume)
    finish(viewer, scan, anomaly)
    _, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Inspect")
    viewer.dims.set_point(0, float(scan.data_to_world((12, 0, 0))[0]))
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.wait(200)
    left, centre = Qt.MouseButton.LeftButton, canvas.rect().center()
    QTest.mousePress(canvas, left, pos=centre)
    QTest.mouseMove(canvas, centre * 1.3)
    QTest.mouseRelease(canvas, left, pos=centre * 1.3)
    qtbot.wait(50)
    assert widget.place is None
    QTest.mouseClick(canvas, left, pos=centre)
    qtbot.waitUntil(lambda: widget.place is not None, timeout=5000)
    assert widget.place.voxel[0] == 12
    qtbot.waitUntil(lambda: not widget.job.running, timeout=LONG_MS)
    widget.pick.click()
    before = widget.place
    QTest.mouseClick(canvas, left, pos=centre / 1.2)
    qtbot.wait(50)
    assert widget.place is before
    # Elsewhere the texts say that they are about the ring.
    assert "ring" not in widget.status.text()
    viewer.dims.set_current_step(0, 10)
    assert "place of the ring" in widget.status.text()
    viewer.dims.set_current_step(0, 12)


def test_similar_healthy_patches_are_shown_where_stored(qtbot, widget, detection, anomaly, healthy):
    voxel = marked(detection)
    ask(qtbot, widget, voxel)
    assert widget.panel.similar.isHidden()
    assert "No pictures" in widget.panel.similar_text.text()
    backbone = load_backbone(PHANTOM_BACKBONE)
    pictures = drain(collect_pictures(anomaly.model, [Case(healthy[0].volume)], backbone))
    session().keep_pictures(anomaly.model, pictures)
    try:
        ask(qtbot, widget, voxel)
        assert not widget.panel.similar.isHidden()
        names = [float(one.name.text()) for one in widget.panel.similar.pictures]
        assert names == sorted(names, reverse=True) and 0 < names[0] <= 1
    finally:
        session()._pictures.clear()
