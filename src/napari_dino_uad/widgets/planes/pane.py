"""One plane of a scan with its crosshair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QRectF, Qt, Signal
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import QSizePolicy

from napari_dino_uad.widgets.planes.pictures import frame_of, lookup_table, outlines, plane_of
from napari_dino_uad.widgets.side_letters import LETTER_COLOUR

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_dino_uad.widgets.orientation import Plane

__all__ = ["PlanePane"]

# Visible on grey anatomy and on heat, and fainter than the findings.
_CROSS = (255, 235, 80, 150)
_MARGIN = 4


class PlanePane(pg.GraphicsView):
    """Draws a slice of all layers that belong to a scan.

    A click or drag moves the crosshair, the wheel goes through slices, Ctrl and the wheel zooms,
    a double click shows the whole slice again.

    Parameters
    ----------
    plane : Plane

    Signals
    -------
    pointed : tuple of float
        Place along height and width that was clicked, in mm.
    hovered : tuple of float
        Likewise, below the cursor.
    stepped : int
        Number of slices to go.
    """

    pointed = Signal(object)
    hovered = Signal(object)
    stepped = Signal(int)

    def __init__(self, plane: Plane) -> None:
        super().__init__(background="k")
        self.plane = plane
        self.index = 0
        self._count = 0
        self._frame: QRectF | None = None
        self._zoomed = False
        self._wheel = 0
        self._items: list[pg.ImageItem] = []
        self._box = pg.ViewBox(
            lockAspect=True, invertY=True, enableMenu=False, enableMouse=False, border=None
        )
        self.setCentralItem(self._box)
        self.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(120, 110)
        self.setMouseTracking(True)
        self.setToolTip("")
        pen = pg.mkPen(_CROSS, width=1)
        self._lines = [pg.InfiniteLine(angle=angle, pen=pen) for angle in (0, 90)]
        for line in self._lines:
            line.setZValue(1000)
            line.hide()
            self._box.addItem(line, ignoreBounds=True)

    # Drawing ------------------------------------------------------------------------------

    def clear_slice(self) -> None:
        """Show nothing."""
        self._frame, self._count = None, 0
        self._show_items(0)
        for line in self._lines:
            line.hide()
        self.viewport().update()

    def draw(self, scan: Image, layers: list[Layer], index: int) -> None:
        """Draw a slice.

        Parameters
        ----------
        scan : Image
        layers : list of Layer
            What is drawn, from the bottom to the top, all on the grid of the scan.
        index : int
            Of the slice.
        """
        self.index, self._count = index, scan.data.shape[self.plane.across]
        frame = QRectF(*frame_of(scan, self.plane))
        for number, layer in enumerate(layers):
            self._draw_layer(self._item(number), layer, frame)
        self._show_items(len(layers))
        if frame != self._frame:
            self._frame, self._zoomed = frame, False
            self._fit()
        self.viewport().update()

    def _draw_layer(self, item: pg.ImageItem, layer: Layer, frame: QRectF) -> None:
        part = plane_of(np.asarray(layer.data), self.plane, self.index)
        if hasattr(layer, "contrast_limits"):
            item.setImage(
                np.ascontiguousarray(part),
                levels=tuple(layer.contrast_limits),
                lut=lookup_table(layer),
                autoLevels=False,
            )
        else:
            drawn = outlines(part, layer)
            if drawn is None:
                item.clear()
            else:
                item.setImage(drawn, levels=None, lut=None, autoLevels=False)
        item.setOpacity(float(layer.opacity))
        if item.image is not None:
            item.setRect(frame)

    def _item(self, number: int) -> pg.ImageItem:
        while len(self._items) <= number:
            item = pg.ImageItem(axisOrder="row-major")
            item.setZValue(len(self._items))
            self._items.append(item)
            self._box.addItem(item, ignoreBounds=True)
        return self._items[number]

    def _show_items(self, count: int) -> None:
        for number, item in enumerate(self._items):
            item.setVisible(number < count)

    def mark(self, down: float, right: float) -> None:
        """Move the crosshair to a place along height and width, in mm."""
        for line, value in zip(self._lines, (self._height(down), right), strict=True):
            line.setValue(value)
            line.setVisible(self._frame is not None)

    def _height(self, value: float) -> float:
        """Convert between the scan's axis along the height and that of the screen."""
        return -value if self.plane.upwards else value

    def _fit(self) -> None:
        if self._frame is not None and not self._zoomed:
            self._box.setRange(self._frame, padding=0.03)

    def drawForeground(self, painter: QPainter, _: QRectF) -> None:
        """Write the sides of the patient and the slice along the edges."""
        if self._frame is None:
            return
        painter.save()
        painter.resetTransform()
        painter.setPen(QColor.fromRgbF(*LETTER_COLOUR))
        area = self.viewport().rect().adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        sides = Qt.AlignmentFlag
        left, right, top, bottom = self.plane.edges
        for flags, text in (
            (sides.AlignLeft | sides.AlignVCenter, left),
            (sides.AlignRight | sides.AlignVCenter, right),
            (sides.AlignHCenter | sides.AlignTop, top),
            (sides.AlignHCenter | sides.AlignBottom, bottom),
            (sides.AlignLeft | sides.AlignTop, self.plane.name),
            (sides.AlignLeft | sides.AlignBottom, f"slice {self.index} of 0 to {self._count - 1}"),
        ):
            painter.drawText(area, int(flags), text)
        painter.restore()

    # Mouse --------------------------------------------------------------------------------

    def _place(self, event: Any) -> tuple[float, float]:
        where = event.position() if hasattr(event, "position") else event.localPos()
        point = self._box.mapSceneToView(self.mapToScene(where.toPoint()))
        return self._height(point.y()), point.x()

    def mousePressEvent(self, event: Any) -> None:
        """Move the crosshair to the place of a click."""
        if event.button() == Qt.MouseButton.LeftButton and self._frame is not None:
            self.pointed.emit(self._place(event))

    def mouseMoveEvent(self, event: Any) -> None:
        """Let the crosshair follow a drag."""
        if self._frame is None:
            return
        if event.buttons() & Qt.MouseButton.LeftButton:
            self.pointed.emit(self._place(event))
        self.hovered.emit(self._place(event))

    def mouseReleaseEvent(self, event: Any) -> None:
        """Take the event, so that pyqtgraph does nothing with it."""
        event.accept()

    def mouseDoubleClickEvent(self, event: Any) -> None:
        """Show the whole slice."""
        self._zoomed = False
        self._fit()

    def wheelEvent(self, event: Any) -> None:
        """Go through slices, or zoom with Ctrl."""
        event.accept()
        if self._frame is None:
            return
        turned = event.angleDelta().y()
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._zoomed = True
            down, right = self._place(event)
            scale = 0.999**turned
            self._box.scaleBy((scale, scale), center=pg.Point(right, self._height(down)))
            return
        # Touch pads send many small turns.
        self._wheel += turned
        steps = int(self._wheel / 120)
        if steps:
            self._wheel -= 120 * steps
            # The same way as napari's canvas.
            self.stepped.emit(steps if event.inverted() else -steps)

    def resizeEvent(self, event: Any) -> None:
        """Keep the whole slice on screen."""
        super().resizeEvent(event)
        # pyqtgraph resizes before it is built.
        if getattr(self, "_frame", None) is not None:
            self._fit()
