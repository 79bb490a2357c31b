"""The View widget: which plane of the scan is on screen, with which contrast."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QLabel, QPushButton

from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.controls import DockWidget, WrapLabel, rule, small_label
from napari_dino_uad.widgets.forms import in_row
from napari_dino_uad.widgets.orientation import PLANES, orientation_of, show_plane, shown_plane
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.view.default_choice import DefaultChoice
from napari_dino_uad.widgets.view.presets import (
    CT_PRESETS,
    auto_limits,
    file_limits,
    is_ct,
    set_limits,
)

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

__all__ = ["ViewWidget"]

_PLUGIN = "napari-dino-uad"
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
        self.presets = [self._preset_button(preset) for preset in CT_PRESETS]
        self.auto = QPushButton("Auto")
        self.auto.setToolTip("Contrast from the scan's own values; best for MR.")
        self.auto.clicked.connect(lambda _: self._contrast(auto_limits))
        self.from_file = QPushButton("As in the file")
        self.from_file.clicked.connect(lambda _: self._contrast(file_limits))
        self.ct_rows = [*self.presets]
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
        add(rule())
        self.default = DefaultChoice()
        add(self.default)
        self.content.addStretch()

    def _plane_button(self, plane: Any) -> QPushButton:
        button = QPushButton(plane.name)
        button.setCheckable(True)
        button.clicked.connect(lambda _: self._show_plane(plane))
        return button

    def _preset_button(self, preset: Any) -> QPushButton:
        button = QPushButton(preset.name)
        button.setToolTip(
            f"{preset.shows[0].upper()}{preset.shows[1:]}: window {preset.width:g} HU around "
            f"{preset.centre:g} HU."
        )
        button.clicked.connect(partial(self._contrast, lambda _: preset.limits))
        return button

    # What is shown ------------------------------------------------------------------------

    def _on_scan(self) -> None:
        """Show the scan's name and notices, and what can be done with it."""
        scan = self._results.scan
        self.scan_name.setText(_NO_SCAN if scan is None else scan.name)
        notices = () if scan is None else scan.metadata.get(METADATA, {}).get("notices", ())
        self.notices.setText("\n".join(notices))
        self.notices.setVisible(bool(notices))
        hounsfield = scan is not None and self._is_ct(scan)
        for button in self.presets:
            button.setVisible(hounsfield)
        self.auto.setEnabled(scan is not None and not scan.rgb)
        window = None if scan is None else file_limits(scan)
        self.from_file.setEnabled(window is not None)
        self.from_file.setToolTip(
            "The file recommends no contrast."
            if window is None
            else f"The contrast that the file recommends: {window[0]:g} to {window[1]:g}."
        )
        self._on_plane()

    def _is_ct(self, scan: Image) -> bool:
        """Remember the answer: it takes a sample of the voxels."""
        known = getattr(self, "_known_ct", None)
        if known is None or known[0] is not scan:
            self._known_ct = known = (scan, is_ct(scan))
        return bool(known[1])

    def _on_plane(self, _: Any = None) -> None:
        scan = self._results.scan
        flat = scan is not None and scan.ndim < 3
        shown = shown_plane(self._viewer)
        for button, plane in zip(self.planes, PLANES, strict=True):
            button.setEnabled(scan is not None and not flat)
            button.setChecked(plane is shown)
            button.setToolTip(
                "A single image has one plane."
                if flat
                else f"{plane.name} slices: {_sides(plane.edges)}."
            )
        self.three.setEnabled(scan is not None and not flat)

    # Actions ------------------------------------------------------------------------------

    def _show_plane(self, plane: Any) -> None:
        show_plane(self._viewer, plane)
        # A second click on the plane shown must not release its button.
        self._on_plane()

    def _contrast(self, limits: Any, *_: Any) -> None:
        scan = self._results.scan
        chosen = None if scan is None else limits(scan)
        if scan is not None and chosen is not None:
            set_limits(scan, chosen)

    def _show_three(self) -> None:
        """Dock the three planes below the image, or bring them to the front."""
        _, widget = self._viewer.window.add_plugin_dock_widget(_PLUGIN, "Three planes")
        window, dock = widget.window(), widget.parentWidget()
        while dock is not None and not isinstance(dock, QDockWidget):
            dock = dock.parentWidget()
        if dock is not None and hasattr(window, "addDockWidget"):
            window.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, dock)
            dock.show()
            dock.raise_()


def _sides(edges: tuple[str, str, str, str]) -> str:
    """Describe which side of the patient lies where."""
    names = {"R": "right side", "A": "front", "S": "head"}
    return f"the patient's {names[edges[0]]} on the left, the {names[edges[2]]} up"
