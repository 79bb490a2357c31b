"""Small pictures of a slice on its patch grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_dino_uad.widgets.controls import small_label

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

__all__ = ["Picture", "PictureRow", "shade"]

_EDGE = 100
_MARK = QColor(255, 40, 200)


def shade(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Colour values (h, w) from black over red to yellow, as (h, w, 3)."""
    share = np.clip((values - low) / max(high - low, 1e-9), 0, 1)[..., None]
    red, green, blue = 2 * share, 2 * share - 0.8, 3 * share - 2.4
    colours = np.concatenate([red, green, blue], axis=-1)
    return np.asarray((np.clip(colours, 0, 1) * 255).round(), dtype=np.uint8)


class _Canvas(QLabel):
    """A picture that keeps its proportions, with a ring around one patch."""

    def __init__(self) -> None:
        super().__init__()
        self._pixmap: QPixmap | None = None
        self._patch: tuple[float, float] = (0.0, 0.0)
        self._shape = (1, 1)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(_EDGE)

    def show_image(self, image: NDArray[np.uint8], place: tuple[float, float]) -> None:
        """Show colours (h, w, 3), and mark a place (row, column)."""
        image = np.ascontiguousarray(image)
        height, width = image.shape[:2]
        kind = QImage.Format.Format_RGB888
        self._pixmap = QPixmap.fromImage(QImage(image.data, width, height, 3 * width, kind).copy())
        self._patch, self._shape = place, (height, width)
        self.update()

    def sizeHint(self) -> QSize:
        """Return a square."""
        return QSize(_EDGE, _EDGE)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the picture and the ring."""
        if self._pixmap is None:
            return
        height, width = self._shape
        size = min(self.width() / width, self.height() / height)
        wide, high = width * size, height * size
        left, top = (self.width() - wide) / 2, (self.height() - high) / 2
        painter = QPainter(self)
        painter.drawPixmap(int(left), int(top), int(wide), int(high), self._pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(_MARK, 2))
        x, y = left + self._patch[1] * size, top + self._patch[0] * size
        painter.drawEllipse(int(x) - 5, int(y) - 5, 10, 10)


class Picture(QWidget):
    """A picture with its name below."""

    def __init__(self) -> None:
        super().__init__()
        self._canvas = _Canvas()
        self.name = small_label()
        self.name.setAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        layout.addWidget(self._canvas)
        layout.addWidget(self.name)

    def show_image(
        self, name: str, image: NDArray[np.uint8], place: tuple[float, float], tooltip: str
    ) -> None:
        """Show colours (h, w, 3) under a name; see `_Canvas.show_image`."""
        self.name.setText(name)
        self.setToolTip(tooltip)
        self._canvas.show_image(image, place)


class PictureRow(QWidget):
    """Pictures side by side."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.pictures = [Picture() for _ in range(count)]
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        for picture in self.pictures:
            row.addWidget(picture, 1)

    def show_images(
        self, images: list[tuple[str, NDArray[np.uint8], str]], place: tuple[float, float]
    ) -> None:
        """Show images, each with its name and tooltip."""
        for picture in self.pictures[len(images) :]:
            picture.hide()
        for picture, (name, image, tooltip) in zip(self.pictures, images, strict=False):
            picture.show_image(name, image, place, tooltip)
            picture.show()
