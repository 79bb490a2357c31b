"""Planes upright in the canvas, and three of them with one crosshair."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.cross_lines import cross_lines_of
from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.navigation import show_voxel
from napari_dino_uad.widgets.orientation import PLANES, orientation_of, show_plane, shown_plane
from napari_dino_uad.widgets.planes import ThreePlanesWidget
from napari_dino_uad.widgets.planes.pictures import frame_of, outlines, plane_of
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.side_letters import side_letters_of

SHAPE = (12, 20, 16)
LEFT = Qt.MouseButton.LeftButton
#: Marked voxels: near the head, the front, and the patient's left.
HEAD, FRONT, PATIENT_LEFT = (10, 10, 8), (6, 1, 8), (6, 10, 14)


def marked_scan():
    """A dark scan with bright marks and spacing that differs along the axes."""
    array = np.full(SHAPE, 10, np.float32)
    array[0, 0, 0] = 0
    for mark in (HEAD, FRONT, PATIENT_LEFT):
        array[mark] = 1000
    return volume_from_array(array, (3.0, 2.0, 1.5), (-7.0, 11.0, 5.0), "marked")


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    data, keywords, _ = volume_layer(marked_scan())
    viewer.add_image(data, **keywords | {"contrast_limits": (0, 1000)})
    orientation_of(viewer)
    QApplication.processEvents()
    return viewer


def bright(viewer, voxel):
    """Where the only mark is in a screenshot, from its centre: rows down, columns to the right."""
    data = np.full(SHAPE, 10, np.float32)
    data[voxel] = 1000
    viewer.layers[0].data = data
    show_voxel(viewer, viewer.layers[0], voxel)
    QApplication.processEvents()
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., 0].astype(float)
    rows, cols = np.nonzero(picture > 200)
    assert rows.size, voxel
    return rows.mean() - picture.shape[0] / 2, cols.mean() - picture.shape[1] / 2


@pytest.mark.parametrize(
    ("plane", "mark", "down", "right"),
    [
        ("Axial", FRONT, -1, 0),
        ("Axial", PATIENT_LEFT, 0, 1),
        ("Coronal", HEAD, -1, 0),
        ("Coronal", PATIENT_LEFT, 0, 1),
        ("Sagittal", HEAD, -1, 0),
        ("Sagittal", FRONT, 0, -1),
    ],
)
def test_each_plane_is_upright(viewer, plane, mark, down, right):
    [chosen] = [one for one in PLANES if one.name == plane]
    show_plane(viewer, chosen)
    rows, cols = bright(viewer, mark)
    assert shown_plane(viewer) is chosen
    assert np.sign(rows) == down if down else abs(rows) < 60
    assert np.sign(cols) == right if right else abs(cols) < 60
    assert max(abs(rows), abs(cols)) > 60


def test_rolling_with_naparis_button_stays_upright(viewer):
    seen = []
    for _ in range(6):
        viewer.dims.roll()
        plane = shown_plane(viewer)
        seen.append(plane.name)
        assert tuple(viewer.dims.displayed) == (plane.down, plane.right)
        assert str(viewer.scene.camera.orientation2d[0]) == ("up" if plane.upwards else "down")
    assert seen == ["Sagittal", "Coronal", "Axial"] * 2


def test_a_transposed_plane_is_left_alone(viewer):
    viewer.dims.transpose()
    assert tuple(viewer.dims.displayed) == (2, 1)


def test_other_images_keep_naparis_axes():
    viewer = ViewerModel()
    viewer.add_layer(Image(np.zeros((3, 4, 5, 6))))
    orientation_of(viewer)
    viewer.dims.roll()
    assert str(viewer.scene.camera.orientation2d[0]) == "down"
    assert shown_plane(viewer) is None


# Three planes -----------------------------------------------------------------------------


@pytest.fixture
def three(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Three planes")
    viewer.window.resize(1200, 800)
    settle()
    return widget


def settle():
    for _ in range(5):
        QApplication.processEvents()
        QTest.qWait(10)


def at(pane, down, right):
    """The pixel of a place, in mm along height and width."""
    height = -down if pane.plane.upwards else down
    scene = pane._box.mapViewToScene(QPointF(right, height))
    return pane.mapFromScene(scene)


def test_a_click_in_one_pane_moves_the_others(viewer, three):
    scan = viewer.layers[0]
    axial, coronal, sagittal = three.panes
    world = scan.data_to_world(PATIENT_LEFT)
    QTest.mouseClick(axial.viewport(), LEFT, pos=at(axial, world[1], world[2]))
    settle()
    assert coronal.index == PATIENT_LEFT[1]
    assert sagittal.index == PATIENT_LEFT[2]
    head = scan.data_to_world(HEAD)
    QTest.mouseClick(sagittal.viewport(), LEFT, pos=at(sagittal, head[0], head[1]))
    settle()
    assert axial.index == HEAD[0]
    # The image in napari follows too.
    assert viewer.dims.current_step[0] == HEAD[0]
    for pane, lines in ((axial, (1, 2)), (coronal, (0, 2)), (sagittal, (0, 1))):
        place = crosshair_of(viewer).position
        values = [line.value() for line in pane._lines]
        down = -place[lines[0]] if pane.plane.upwards else place[lines[0]]
        np.testing.assert_allclose(values, [down, place[lines[1]]])


def test_a_drag_scrolls_the_other_panes(viewer, three):
    axial, coronal, _ = three.panes
    scan, seen = viewer.layers[0], set()
    QTest.mousePress(axial.viewport(), LEFT, pos=at(axial, *scan.data_to_world((6, 2, 8))[1:]))
    for row in range(2, 18):
        place = at(axial, *scan.data_to_world((6, row, 8))[1:])
        drag(axial, place)
        seen.add(coronal.index)
    QTest.mouseRelease(axial.viewport(), LEFT, pos=place)
    assert len(seen) > 8


def drag(pane, place):
    """Move with the button pressed, which QTest cannot do."""
    where, none = QPointF(place), Qt.KeyboardModifier.NoModifier
    kind = QEvent.Type.MouseMove
    everywhere = QPointF(pane.viewport().mapToGlobal(place))
    QApplication.sendEvent(
        pane.viewport(), QMouseEvent(kind, where, everywhere, Qt.MouseButton.NoButton, LEFT, none)
    )
    settle()


def test_the_panes_are_upright(viewer, three):
    show_voxel(viewer, viewer.layers[0], HEAD)
    settle()
    for number, pane in enumerate(three.panes):
        assert pane.index == HEAD[number]
    _, coronal, sagittal = three.panes
    for pane in (coronal, sagittal):
        image = pane._items[0].image
        row, _ = np.unravel_index(image.argmax(), image.shape)
        assert row == SHAPE[0] - 1 - HEAD[0]
        # The picture lies where the crosshair is.
        centre = pane._items[0].mapRectToParent(pane._items[0].boundingRect())
        height = centre.top() + (row + 0.5) * 3.0
        assert height == pytest.approx(pane._lines[0].value())


def test_the_wheel_goes_through_slices(viewer, three):
    sagittal = three.panes[2]
    settle()
    before = sagittal.index
    # As napari's canvas: away from the user to the slice before.
    turn(sagittal, 120)
    assert sagittal.index == before - 1
    turn(sagittal, -240)
    assert sagittal.index == before + 1
    # A wheel with Ctrl zooms; a double click shows the whole slice again.
    width = sagittal._box.viewRect().width()
    turn(sagittal, 240, Qt.KeyboardModifier.ControlModifier)
    assert sagittal._box.viewRect().width() < 0.9 * width
    QTest.mouseDClick(sagittal.viewport(), LEFT)
    assert sagittal._box.viewRect().width() == pytest.approx(width)


def turn(pane, angle, modifiers=Qt.KeyboardModifier.NoModifier):
    centre = pane.viewport().rect().center()
    event = QWheelEvent(
        QPointF(centre),
        QPointF(pane.viewport().mapToGlobal(centre)),
        QPoint(0, 0),
        QPoint(0, angle),
        Qt.MouseButton.NoButton,
        modifiers,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(pane.viewport(), event)
    settle()


def test_a_click_in_naparis_canvas_moves_the_panes(viewer, three):
    show_plane(viewer, PLANES[0])
    settle()
    canvas = viewer.window._qt_viewer.canvas
    before = three.panes[1].index
    middle = canvas.native.rect().center()
    QTest.mouseMove(canvas.native, middle)
    QTest.mouseClick(canvas.native, LEFT, pos=QPoint(middle.x(), middle.y() - 60))
    settle()
    assert three.panes[1].index != before


def test_labels_and_contrast_are_followed(viewer, three):
    scan = viewer.layers[0]
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:8, 5:10, 5:10] = 1
    layer = viewer.add_layer(
        Labels(labels, scale=scan.scale, translate=scan.translate, units=scan.units)
    )
    viewer.layers.selection.active = scan
    show_voxel(viewer, scan, (6, 7, 7))
    settle()
    assert all(pane._items[1].isVisible() for pane in three.panes)
    scan.contrast_limits = (0, 20)
    settle()
    assert tuple(three.panes[0]._items[0].levels) == (0, 20)
    layer.visible = False
    settle()
    assert not three.panes[0]._items[1].isVisible()
    viewer.layers.remove(scan)
    settle()
    assert not any(item.isVisible() for pane in three.panes for item in pane._items)


def test_lines_in_the_canvas_follow_the_crosshair(viewer, three):
    scan, crosshair = viewer.layers[0], crosshair_of(viewer)
    lines = cross_lines_of(viewer)
    assert lines.layer in viewer.layers
    for voxel in ((3, 10, 12), (5, 15, 7)):
        crosshair.move(scan.data_to_world(voxel))
        settle()
        starts, ways = np.moveaxis(np.asarray(lines.layer.data), 1, 0)
        # In steps of the layer, which are the same along both axes on screen.
        place = np.multiply(voxel, scan.scale) / lines.layer.scale
        for axis in range(3):
            across = ways[:, axis] == 0
            np.testing.assert_allclose(starts[across, axis], place[axis])
        assert lines.layer.scale[1] == lines.layer.scale[2]
    findings = object()
    lines.show(findings, scan)
    three.release()
    assert lines.layer in viewer.layers
    lines.hide(findings)
    assert lines.layer is None and len(viewer.layers) == 1


def test_closing_the_dock_leaves_nothing_behind(viewer, three):
    crosshair, scan = crosshair_of(viewer), viewer.layers[0]
    callbacks = len(scan.events.contrast_limits.callbacks)
    assert crosshair._followers == 1
    three.release()
    assert crosshair._followers == 0
    assert len(scan.events.contrast_limits.callbacks) == callbacks - 1


def test_a_single_image_asks_for_a_scan(make_napari_viewer, qtbot):
    viewer = ViewerModel()
    viewer.add_layer(Image(np.random.default_rng(0).random((9, 8))))
    widget = ThreePlanesWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.hint.text()
    widget.release()


# Pictures ---------------------------------------------------------------------------------


def test_slices_run_from_the_upper_edge_to_the_lower():
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(plane_of(array, PLANES[0], 1), array[1])
    assert np.array_equal(plane_of(array, PLANES[1], 2), array[::-1, 2])
    assert np.array_equal(plane_of(array, PLANES[2], 3), array[::-1, :, 3])


def test_frames_enclose_whole_voxels():
    layer = Image(np.zeros((2, 3, 4)), scale=(3, 2, 1), translate=(10, 20, 30))
    assert frame_of(layer, PLANES[0]) == (29.5, 19.0, 4.0, 6.0)
    assert frame_of(layer, PLANES[1]) == (29.5, -14.5, 4.0, 6.0)


def test_outlines_lie_within_their_labels():
    labels = np.zeros((8, 8), np.uint8)
    labels[2:6, 2:6] = 3
    layer = Labels(labels)
    layer.contour = 1
    drawn = outlines(labels, layer)[..., 3] > 0
    assert drawn.shape == (24, 24)
    assert not drawn[8:16, 8:16].any() and drawn[6, 6:18].all()
    assert not drawn[np.kron(labels == 0, np.ones((3, 3))).astype(bool)].any()
    layer.contour = 0
    assert (outlines(labels, layer)[..., 3] > 0).sum() == 16
    assert outlines(np.zeros((4, 4), np.uint8), layer) is None


def test_the_whole_slice_stays_on_screen(viewer):
    results_of(viewer)
    camera, canvas = viewer.scene.camera, viewer.canvas
    viewer.reset_view()
    height, width = canvas.size
    shown = camera.zoom
    canvas.size = (height // 2, width)
    assert camera.zoom < 0.8 * shown
    canvas.size = (height, width)
    assert camera.zoom == pytest.approx(shown)
    # What the user has zoomed is left alone.
    camera.zoom = 3 * shown
    canvas.size = (height // 2, width)
    assert camera.zoom == 3 * shown


# Letters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plane", "letters"),
    [
        (PLANES[0], ("A", "P", "R", "L")),
        (PLANES[1], ("S", "I", "R", "L")),
        (PLANES[2], ("S", "I", "A", "P")),
    ],
)
def test_letters_name_the_sides(viewer, plane, letters):
    side_letters = side_letters_of(viewer)
    show_plane(viewer, plane)
    assert side_letters.shown == letters
    up, down = viewer.scene.camera.orientation2d
    viewer.scene.camera.orientation2d = ("down" if up == "up" else "up", down)
    assert side_letters.shown == (letters[1], letters[0], *letters[2:])


def test_letters_follow_the_picture_and_are_in_screenshots(viewer):
    letters = side_letters_of(viewer)
    viewer.dims.transpose()
    assert letters.shown == ("R", "L", "A", "P")
    viewer.scene.camera.orientation2d = ("down", "left")
    assert letters.shown == ("R", "L", "P", "A")
    viewer.layers[0].visible = False
    picture = viewer.screenshot(canvas_only=True, flash=False).astype(int)
    yellow = (picture[..., 0] - picture[..., 2]) > 80
    for edge in (yellow[:40], yellow[-40:], yellow[:, :40], yellow[:, -40:]):
        assert edge.any()
    viewer.dims.ndisplay = 3
    assert letters.shown == ()
    viewer.dims.ndisplay = 2
    assert letters.shown
    viewer.layers.clear()
    assert letters.shown == ()


def test_images_without_a_patient_have_no_letters():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 4, 5)))
    assert side_letters_of(viewer).shown == ()
