"""The View widget: which plane of the scan is on screen, with which contrast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QPushButton

from napari_dino_uad.core.scans.contrast import auto_limits, file_limits
from napari_dino_uad.core.scans.hounsfield import CT_WINDOWS, CtWindow, is_ct
from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.commands import open_dock
from napari_dino_uad.widgets.controls import DockWidget, WrapLabel, allow, rule, small_label
from napari_dino_uad.widgets.docks import dock_of
from napari_dino_uad.widgets.forms import in_row
from napari_dino_uad.widgets.layers import volume_of
from napari_dino_uad.widgets.orientation import PLANES, orientation_of, show_plane, shown_plane
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.view.default_choice import DefaultChoice
from napari_dino_uad.widgets.window_level import set_limits

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

__all__ = ["ViewWidget"]

_Limits = Callable[["Image"], "tuple[float, float] | None"]
# Windows wider than this need no decimals.
_WHOLE_NUMBERS = 20
_DRAG_HELP = "Shift and drag over the picture: right widens the window, up brightens."
_NO_SCAN = "Open a scan first: drag a file or folder into the window."


class ViewWidget(DockWidget):
    """Planes and contrast of the scan that all docks show.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._results = results_of(self._viewer)
        self._limits: dict[QPushButton, _Limits] = {}
        # The scan whose contrast is followed, and the limits that each button would give it.
        self._followed: Image | None = None
        self._wanted: dict[QPushButton, tuple[float, float]] = {}
        self._ct = False
        orientation_of(self._viewer)
        self._build()
        dims = self._viewer.dims.events
        self.listen(
            (self._results.scan_chosen, self._on_scan),
            (self._results.changed, self._on_scan),
            (dims.order, self._on_plane),
            (dims.ndisplay, self._on_plane),
        )
        self._on_scan()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.scan_name = WrapLabel()
        self.notices = small_label()
        self.planes = [self._plane_button(plane) for plane in PLANES]
        self.three = QPushButton("Three planes")
        self.three.setToolTip(
            "Show axial, coronal and sagittal at once, with one crosshair, heat and findings."
        )
        self.three.clicked.connect(self._show_three)
        self.presets = [self._preset_button(*one) for one in CT_WINDOWS.items()]
        self.auto = self._contrast_button("Auto", lambda scan: auto_limits(np.asarray(scan.data)))
        self.auto.setToolTip("Contrast from the scan's own values.")
        self.from_file = self._contrast_button("As in the file", _recommended)
        self.from_file.setToolTip("The contrast that the file recommends.")
        add = self.content.addWidget
        add(self.scan_name)
        add(self.notices)
        add(rule())
        add(QLabel("Plane"))
        self.content.addLayout(in_row(*self.planes))
        add(self.three)
        add(rule())
        add(QLabel("Contrast"))
        self.content.addLayout(in_row(*self.presets[:3]))
        self.content.addLayout(in_row(*self.presets[3:]))
        self.content.addLayout(in_row(self.auto, self.from_file))
        self.window = small_label()
        add(self.window)
        add(rule())
        self.default = DefaultChoice()
        add(self.default)
        self.content.addStretch()

    def _plane_button(self, plane: Any) -> QPushButton:
        button = QPushButton(plane.name)
        button.setToolTip(f"{plane.name} slices: {_sides(plane.edges)}.")
        button.setCheckable(True)
        button.clicked.connect(lambda _: self._show_plane(plane))
        return button

    def _preset_button(self, name: str, window: CtWindow) -> QPushButton:
        button = self._contrast_button(name.capitalize(), lambda _: window.limits)
        button.setToolTip(
            f"{window.shows[0].upper()}{window.shows[1:]}: window {window.width:g} HU around "
            f"{window.centre:g} HU."
        )
        return button

    def _contrast_button(self, text: str, limits: _Limits) -> QPushButton:
        button = QPushButton(text)
        button.setCheckable(True)
        button.clicked.connect(partial(self._contrast, button))
        self._limits[button] = limits
        return button

    # What is shown ------------------------------------------------------------------------

    def _on_scan(self) -> None:
        """Show the scan's name and notices, and what can be done with it."""
        scan = self._results.scan
        self.scan_name.setText(_NO_SCAN if scan is None else scan.name)
        notices = () if scan is None else scan.metadata.get(METADATA, {}).get("notices", ())
        self.notices.setText("\n".join(notices))
        self.notices.setVisible(bool(notices))
        self._follow(scan)
        for button in self.presets:
            button.setVisible(self._ct)
        self.auto.setVisible(not self._ct)
        why = _NO_SCAN if scan is None else "The file recommends no contrast."
        allow(self.auto, _NO_SCAN if scan is None else "Colours are shown as they are." * scan.rgb)
        allow(self.from_file, "" if self.from_file in self._wanted else why)
        self._on_contrast()
        self._on_plane()

    def _follow(self, scan: Image | None) -> None:
        """Know what contrast a scan may have, and follow the one it has, from now on."""
        if scan is self._followed:
            return
        if self._followed is not None:
            self._followed.events.contrast_limits.disconnect(self._on_contrast)
        self._followed = scan
        # A sample of the voxels is taken for these, so only once for each scan.
        self._ct = scan is not None and not scan.rgb and _shows_ct(scan)
        self._wanted = {}
        if scan is not None and not scan.rgb:
            for button, limits in self._limits.items():
                wanted = limits(scan)
                if wanted is not None:
                    self._wanted[button] = wanted
        if scan is not None:
            scan.events.contrast_limits.connect(self._on_contrast)

    def _leave(self) -> None:
        self._follow(None)

    def _on_contrast(self, _: Any = None) -> None:
        """Show which contrast is on."""
        shown = () if self._followed is None else tuple(self._followed.contrast_limits)
        for button in self._limits:
            wanted = self._wanted.get(button, ())
            button.setChecked(bool(wanted) and bool(np.allclose(shown, wanted)))
        text = ""
        if self._wanted:
            width, level = shown[1] - shown[0], sum(shown) / 2
            digits = ".0f" if width > _WHOLE_NUMBERS else ".3g"
            text = f"Window {width:{digits}}, level {level:{digits}}. {_DRAG_HELP}"
        self.window.setText(text)

    def _on_plane(self, _: Any = None) -> None:
        scan = self._results.scan
        flat = "A single image has one plane." if scan is not None and scan.ndim < 3 else ""
        why = _NO_SCAN if scan is None else flat
        shown = shown_plane(self._viewer)
        for button, plane in zip(self.planes, PLANES, strict=True):
            allow(button, why)
            button.setChecked(plane is shown)
        allow(self.three, why)

    # Actions ------------------------------------------------------------------------------

    def _show_plane(self, plane: Any) -> None:
        show_plane(self._viewer, plane)
        # A second click on the plane shown must not release its button.
        self._on_plane()

    def _contrast(self, button: QPushButton, *_: Any) -> None:
        if self._followed is not None and button in self._wanted:
            set_limits(self._followed, self._wanted[button])
        # A second click on the contrast that is on must not release its button.
        self._on_contrast()

    def _show_three(self) -> None:
        """Dock the three planes below the image, or bring them to the front."""
        widget = open_dock(self._viewer, "Three planes")
        window, dock = widget.window(), dock_of(widget)
        if dock is not None and hasattr(window, "addDockWidget"):
            window.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, dock)
            dock.show()
            dock.raise_()


def _recommended(scan: Image) -> tuple[float, float] | None:
    volume = volume_of(scan)
    return None if volume is None else file_limits(volume)


def _shows_ct(scan: Image) -> bool:
    volume = volume_of(scan)
    return is_ct(np.asarray(scan.data), None if volume is None else volume.modality)


def _sides(edges: tuple[str, str, str, str]) -> str:
    """Describe which side of the patient lies where."""
    names = {"R": "right side", "A": "front", "S": "head"}
    return f"the patient's {names[edges[0]]} on the left, the {names[edges[2]]} up"
